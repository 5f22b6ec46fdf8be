"""How an export is loaded and asked, by form: code for its card, and commands of programs that serve such models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.export.snippets import Snippet
from finetune.models.heads import WARM_STARTED
from finetune.tasks.choice_columns import Question

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
    if is_ordinal(trained):
        opening = "import numpy\n" + opening + ordinal_answer(trained, SIGMOID.replace("OUTPUTS", "found"))
    elif trained.labels and trained.task.name == "classification":
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
    if by_likelihood(trained):
        return _choosing(trained)
    if is_ordinal(trained):
        ask = _ORDINAL + ordinal_answer(trained, "scores.sigmoid()")
    elif auto_class(trained) == "AutoModelForCausalLM":
        ask = _CHAT if getattr(task, "shown_by", None) else _CONTINUE
    first = getattr(task.options, "prefix", "") + _example(trained)
    two = ', "and the second text here"' if getattr(task.options, "pair", None) else ""
    ask = ask.replace("MESSAGES", repr([*system_of(trained), {"role": "user", "content": first}]))
    return ask.replace("POOLING", str(task.pooling)).replace("TEXT", repr(first) + two)


def system_of(trained: Trained) -> list[dict[str, str]]:
    """The message that stood before every conversation in training; none where there was none."""
    said = getattr(trained.task.options, "system", None)
    return [{"role": "system", "content": said}] if said else []


def is_ordinal(trained: Trained) -> bool:
    """Tell whether its labels have an order, and the head an output for each but the last."""
    return getattr(trained.task.options, "ordinal", None) is not None


def ordinal_answer(trained: Trained, shares: str) -> str:
    """Code that makes labels of the sigmoids of such a head's outputs: see `finetune/tasks/ordinal.py`."""
    return (
        f"labels = {list(trained.labels)!r}\n"
        f"beyond = {shares}.cumprod(1)  # how likely the answer is beyond each label\n"
        "print([labels[n] for n in (beyond > 0.5).sum(1)])\n"
    )


def by_likelihood(trained: Trained) -> bool:
    """Tell whether it chooses among answers by how likely they are after a prompt."""
    return hasattr(trained.task, "asking")


def prompt_of(trained: Trained) -> str:
    """The prompt that such a model is asked by, about a text in the place of a user's own."""
    task: Any = trained.task
    if task.answer == "label":
        return str(task.prompted(_example(trained)))
    return str(task.prompted(Question(_example(trained), "The text that it is about.", CHOICES, (), None)))


def _choosing(trained: Trained) -> str:
    """Code that scores answers as the task does."""
    task: Any = trained.task
    pairs = zip(task.labels, task.words, strict=True) if task.answer == "label" else zip(CHOICES, CHOICES, strict=True)
    scored, free = "likelihood(prompt, words)", ""
    if getattr(task.options, "calibrate", "none") != "none":
        free = f"free = {task.prompted(task.options.content_free)!r}\n"
        scored += " - likelihood(free, words)"
    mean = getattr(task.options, "likelihood", "sum") == "mean"
    return (
        f"\nprompt = {prompt_of(trained)!r}\n{free}choices = {dict(pairs)!r}\n"
        + (_IN_TURNS if task.asking.shown_by else _JOINED)
        + _LIKELIHOOD.replace("TOTAL", "sum(logs) / len(logs)" if mean else "sum(logs)")
        + f"scores = {{choice: {scored} for choice, words in choices.items()}}\nprint(max(scores, key=scores.get))\n"
    )


SIGMOID = "(1 / (1 + numpy.exp(-OUTPUTS)))"
CHOICES = ("the first choice", "the second one")
_JOINED = """

def tokens(prompt, words):
    space = "" if prompt[-1:].isspace() else " "
    return [tokenizer(text)["input_ids"] for text in (prompt, prompt + space + words)]
"""
_IN_TURNS = """

def tokens(prompt, words):
    asked = [{"role": "user", "content": prompt}]
    said = [*asked, {"role": "assistant", "content": words}]
    begin = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(said, return_dict=True)["input_ids"]
    last = max(place for place, token in enumerate(whole) if token in tokenizer.all_special_ids)
    return begin, whole[: last + 1]  # up to the token that ends the answer
"""
_LIKELIHOOD = """

def likelihood(prompt, words):
    begin, whole = tokens(prompt, words)
    found = model(**tokenizer.pad({"input_ids": [whole]}, return_tensors="pt")).logits[0].detach().log_softmax(-1)
    logs = [float(found[place - 1, whole[place]]) for place in range(len(begin), len(whole))]
    return TOTAL


"""
_ORDINAL = """
asked = tokenizer(TEXT, truncation=True, return_tensors="pt")
scores = model(**asked).logits
"""
_TELLING = """config = AutoConfig.from_pretrained("{folder}", subfolder="base")  # the base model's own has other labels
told = {name: getattr(config, name) for name in ("num_labels", "id2label", "label2id", "problem_type", "pad_token_id")}
"""
_CHAT = """
messages = MESSAGES
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
print(hidden.shape)  # sentence-transformers makes one vector of these by itself (POOLING)
""",
}
"""By Auto class: what is done with `tokenizer` and `model`."""
