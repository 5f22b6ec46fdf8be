"""Answers with plain transformers, or peft, and what lies in the export's folder: `python -I THIS FOLDER QUESTIONS
ANSWERS`. The lines are described in `finetune/export/questions.py`; nothing of `finetune` is imported.

It does what a reader of the export's card would do: the folder's own tokenizer, which cuts where its files say, its own
chat template and generation config, its own labels.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import transformers

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # which isolated Python leaves out

import answering
from heads_asked import ANSWERS as OF_HEADS
from texts_asked import ANSWERS as OF_TEXTS

CLASSES = {
    "classify": "SequenceClassification",
    "multi_label": "SequenceClassification",
    "regress": "SequenceClassification",
    "tag": "TokenClassification",
    "answer": "QuestionAnswering",
    "continue": "CausalLM",
    "fill": "MaskedLM",
    "translate": "Seq2SeqLM",
}
"""What `AutoModelFor…` is called, by the kind of the question."""


OF_THE_HEAD = ("num_labels", "id2label", "label2id", "problem_type", "pad_token_id")
"""What a base model from the hub is told, whose own configuration knows nothing of the head."""


def kind_of(question: dict[str, Any]) -> str | None:
    """The end of the Auto class's name; None: the bare model."""
    if question["kind"] == "choose":
        return "MultipleChoice" if question.get("beside") else "CausalLM"
    return CLASSES.get(question["kind"])


def load(folder: str, kind: str | None) -> Any:
    """The folder's model, in evaluation mode and float32."""
    settings = {"local_files_only": True, "dtype": torch.float32}
    if not os.path.exists(os.path.join(folder, "adapter_config.json")):
        auto = getattr(transformers, f"AutoModelFor{kind}" if kind else "AutoModel")
        return auto.from_pretrained(folder, **settings).eval()
    import peft

    described = os.path.join(folder, "base", "config.json")
    with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as file:
        base = json.load(file)["base_model_name_or_path"]
    if os.path.exists(described) and not os.path.isdir(base):
        config = transformers.AutoConfig.from_pretrained(folder, subfolder="base", local_files_only=True)
        settings |= {name: getattr(config, name) for name in OF_THE_HEAD}
    return getattr(peft, f"AutoPeftModelFor{kind}").from_pretrained(folder, **settings).eval()


def ends_of(model: Any) -> list[int]:
    """The tokens at which generation stops, by the folder's generation config."""
    config = getattr(model, "generation_config", None)
    found = getattr(config, "eos_token_id", None)
    return [] if found is None else list(found) if isinstance(found, list) else [found]


def main(folder: str, questions: str, answers: str) -> None:
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    header, asked = answering.read(questions)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = load(folder, kind_of(asked[0]))
    adapted = os.path.exists(os.path.join(folder, "adapter_config.json"))
    packages = ("transformers", "torch", "tokenizers", *(["peft"] if adapted else []))
    first = answering.opening("peft" if adapted else "transformers", packages, ends_of(model))
    known, about = {**OF_HEADS, **OF_TEXTS}, {**header, "folder": folder}
    answering.write(answers, first, asked, lambda each: known[each["kind"]](model, tokenizer, each, about))


if __name__ == "__main__":
    main(*sys.argv[1:])
