"""Answers with onnxruntime and what lies in the export's folder: `python -I THIS FOLDER QUESTIONS ANSWERS`.

The lines are described in `finetune/export/questions.py`; nothing of `finetune` is imported.

The graph is the model, with its pooling and head; texts are cut by the folder's own tokenizer, and labels are those of
its configuration. Questions are asked as transformers is, with the graph in the model's place. It generates nothing.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import onnxruntime
import torch
import transformers

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # which isolated Python leaves out

import answering
from heads_asked import ANSWERS as OF_HEADS
from texts_asked import ANSWERS as OF_TEXTS


class Graph:
    """The graph, called as a model of transformers is."""

    def __init__(self, folder: str):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
        place = os.path.join(folder, "model.onnx")
        self.session = onnxruntime.InferenceSession(place, options, providers=["CPUExecutionProvider"])
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.outputs = [each.name for each in self.session.get_outputs()]
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            labels = json.load(file).get("id2label", {})
        self.config = SimpleNamespace(id2label={int(number): label for number, label in labels.items()})

    def __call__(self, **given: torch.Tensor) -> SimpleNamespace:
        """Outputs by name, of inputs (batch, length); or (batch, 1, length), of one choice each."""
        choices = given["input_ids"].ndim == 3
        rows = {name: given[name][:, 0] if choices else given[name] for name in self.inputs}
        found = self.session.run(None, {name: value.numpy() for name, value in rows.items()})
        return SimpleNamespace(**dict(zip(self.outputs, map(torch.from_numpy, found), strict=True)))


def embed(model: Graph, tokenizer: Any, question: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """The vector that the graph makes."""
    given = tokenizer(question["text"], truncation=True, return_tensors="pt")
    return {"vector": model(**given).sentence_embedding[0].tolist(), "tokens": given["input_ids"][0].tolist()}


def ends_of(folder: str, tokenizer: Any) -> list[int]:
    """The tokens at which whoever generates has to stop: the generation config's, else the tokenizer's own."""
    found, config = tokenizer.eos_token_id, os.path.join(folder, "generation_config.json")
    if os.path.exists(config):
        with open(config, encoding="utf-8") as file:
            found = json.load(file).get("eos_token_id", found)
    return [] if found is None else list(found) if isinstance(found, list) else [found]


def main(folder: str, questions: str, answers: str) -> None:
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    header, asked = answering.read(questions)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = Graph(folder)
    first = answering.opening("onnxruntime", ("onnxruntime", "transformers", "tokenizers"), ends_of(folder, tokenizer))
    known, about = {**OF_HEADS, **OF_TEXTS, "embed": embed}, {**header, "folder": folder}
    for question in asked:
        question.pop("generate", None)
    answering.write(answers, first, asked, lambda each: known[each["kind"]](model, tokenizer, each, about))


if __name__ == "__main__":
    main(*sys.argv[1:])
