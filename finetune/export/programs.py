"""How an export is loaded and asked, by form: code for its card, and commands of programs that serve such models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.export.snippets import Snippet
from finetune.models.heads import WARM_STARTED

if TYPE_CHECKING:
    from finetune.export.trained import Trained


def auto_class(trained: Trained) -> str:
    """The Auto class of transformers that loads the model."""
    architecture = trained.task.architecture
    if trained.task.name == "embedding":
        return "AutoModel"
    if architecture == WARM_STARTED:
        return "AutoModelForSeq2SeqLM"
    return architecture if isinstance(architecture, str) else architecture.name


def for_transformers(trained: Trained, folder: Path) -> list[Snippet]:
    """transformers itself, and what serves its folders."""
    kind = auto_class(trained)
    opening = (
        f"from transformers import AutoTokenizer, {kind}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{{folder}}")\n'
        f'model = {kind}.from_pretrained("{{folder}}").eval()\n'
    )
    found = [Snippet("transformers", opening + _asking(trained, folder))]
    return [*found, *_serving(trained)]


def for_adapter(trained: Trained, folder: Path) -> list[Snippet]:
    """peft, and vLLM with the adapter beside its base model."""
    kind = auto_class(trained).replace("AutoModelFor", "AutoPeftModelFor")
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = settings["base_model_name_or_path"]
    told = bool(settings.get("modules_to_save")) and not Path(base).is_dir()
    opening = (
        f"from peft import {kind}\nfrom transformers import {'AutoConfig, ' if told else ''}AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{{folder}}")\n'
        f"{_TELLING if told else ''}"
        f'model = {kind}.from_pretrained("{{folder}}"{", **told" if told else ""}).eval()\n'
    )
    found = [Snippet("peft", opening + _asking(trained, folder))]
    if trained.generates and "r" in settings:
        command = f"vllm serve {base} --enable-lora --max-lora-rank {settings['r']} --lora-modules tuned={{folder}}\n"
        found.append(Snippet("vLLM", command, "sh"))
    return found


def for_sentence_transformers(trained: Trained, folder: Path) -> list[Snippet]:
    """sentence-transformers, and text-embeddings-inference where there is no head."""
    opening = (
        "from sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("{folder}")\n'
        f"found = model.encode([{_example(trained)!r}])\n"
    )
    if trained.task.name == "embedding":
        serve = "text-embeddings-router --model-id {folder} --port 8080\n"
        return [Snippet("sentence-transformers", opening), Snippet("text-embeddings-inference", serve, "sh")]
    if trained.labels and trained.task.name == "classification":
        opening += f"labels = {list(trained.labels)!r}\nprint([labels[row.argmax()] for row in found])\n"
    elif trained.labels:
        opening += (
            f"labels = {list(trained.labels)!r}\nprint([[n for n, x in zip(labels, row) if x > 0] for row in found])\n"
        )
    else:
        opening += "print(found[:, 0])\n"
    return [Snippet("sentence-transformers", opening)]


def _serving(trained: Trained) -> list[Snippet]:
    """Servers of whole transformers folders."""
    limit = int(getattr(trained.model.config, "max_position_embeddings", 0) or 2048)
    if trained.generates and trained.task.causal:
        return [
            Snippet("vLLM", f"vllm serve {{folder}} --max-model-len {limit}\n", "sh"),
            Snippet(
                "Text Generation Inference",
                "docker run --gpus all -p 8080:80 -v $PWD/{folder}:/model "
                "ghcr.io/huggingface/text-generation-inference --model-id /model\n",
                "sh",
            ),
        ]
    if auto_class(trained) == "AutoModelForSequenceClassification":
        return [Snippet("vLLM", "vllm serve {folder} --runner pooling --convert classify\n", "sh")]
    if trained.task.name == "embedding":
        return [Snippet("text-embeddings-inference", "text-embeddings-router --model-id {folder} --port 8080\n", "sh")]
    return []


def _example(trained: Trained) -> str:
    """A short text in the place of a user's own; none of the data's."""
    return "Write a text of your own here."


def _asking(trained: Trained, folder: Path) -> str:
    task: Any = trained.task
    ask = ASKING.get(auto_class(trained), ASKING["AutoModel"])
    if auto_class(trained) == "AutoModelForCausalLM":
        ask = _CHAT if getattr(task, "shown_by", None) or _asks_by_template(task) else _CONTINUE
    two = ', "and the second text here"' if getattr(task.options, "pair", None) else ""
    return ask.replace("TEXT", repr(_example(trained)) + two)


def _asks_by_template(task: Any) -> bool:
    return getattr(getattr(task, "asking", None), "shown_by", None) is not None


_TELLING = """config = AutoConfig.from_pretrained("{folder}", subfolder="base")  # the base model's own has other labels
told = {name: getattr(config, name) for name in ("num_labels", "id2label", "label2id", "problem_type", "pad_token_id")}
"""
_CHAT = """
messages = [{"role": "user", "content": TEXT}]
asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
written = model.generate(**asked)[0, asked["input_ids"].shape[1] :]
print(tokenizer.decode(written, skip_special_tokens=True))
"""
_CONTINUE = """
asked = tokenizer(TEXT, return_tensors="pt")
written = model.generate(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"])[0]
print(tokenizer.decode(written[asked["input_ids"].shape[1] :], skip_special_tokens=True))
"""
ASKING = {
    "AutoModelForSequenceClassification": """
asked = tokenizer(TEXT, truncation=True, return_tensors="pt")
scores = model(**asked).logits[0]
if model.config.num_labels == 1:
    print(float(scores[0]))
elif model.config.problem_type == "multi_label_classification":
    print({model.config.id2label[n]: float(x) for n, x in enumerate(scores.sigmoid())})
else:
    print({model.config.id2label[n]: float(x) for n, x in enumerate(scores.softmax(-1))})
""",
    "AutoModelForTokenClassification": """
asked = tokenizer(TEXT, truncation=True, return_tensors="pt")
tags = [model.config.id2label[int(n)] for n in model(**asked).logits[0].argmax(-1)]
print(list(zip(tokenizer.convert_ids_to_tokens(asked["input_ids"][0]), tags)))
""",
    "AutoModelForQuestionAnswering": """
asked = tokenizer("What is asked?", TEXT, truncation="only_second", return_tensors="pt")
found = model(**asked)
begin, end = int(found.start_logits.argmax()), int(found.end_logits.argmax())
print(tokenizer.decode(asked["input_ids"][0, begin : end + 1]))
""",
    "AutoModelForMultipleChoice": """
choices = ["the first choice", "the second one"]
asked = tokenizer([TEXT] * 2, choices, truncation="only_first", padding=True, return_tensors="pt")
scores = model(**{name: values[None] for name, values in asked.items()}).logits[0]
print(choices[int(scores.argmax())])
""",
    "AutoModelForSeq2SeqLM": """
asked = tokenizer(TEXT, truncation=True, return_tensors="pt")
written = model.generate(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"])[0]
print(tokenizer.decode(written, skip_special_tokens=True))
""",
    "AutoModelForMaskedLM": """
asked = tokenizer(TEXT + " " + tokenizer.mask_token, return_tensors="pt")
hidden = int((asked["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0])
print(tokenizer.decode(model(**asked).logits[0, hidden].argmax()))
""",
    "AutoModel": """
asked = tokenizer(TEXT, truncation=True, return_tensors="pt")
hidden = model(**asked).last_hidden_state
print(hidden.shape)  # of these POOLING makes the vector; sentence-transformers does so by itself
""",
}
"""By Auto class: what is done with `tokenizer` and `model`."""
