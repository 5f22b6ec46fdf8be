"""Answers with sentence-transformers and what lies in the export's folder: `python -I THIS FOLDER QUESTIONS ANSWERS`.
The lines are described in `finetune/export/questions.py`; nothing of `finetune` is imported."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # which isolated Python leaves out

import answering


def answer(model: Any, question: dict[str, Any]) -> dict[str, Any]:
    """What `encode` gives, which behind a head are the logits of the labels, in the order of the configuration's."""
    found = torch.tensor(model.encode([question["text"]])[0]).double()
    tokens = model.preprocess([question["text"]])["input_ids"][0].tolist()
    if question["kind"] == "embed":
        return {"vector": found.tolist(), "tokens": tokens}
    if question["kind"] == "regress":
        return {"value": float(found[0]), "tokens": tokens}
    shares = found.softmax(-1) if question["kind"] == "classify" else found.sigmoid()
    labels = model[0].auto_model.config.id2label
    return {"probabilities": {labels[n]: share for n, share in enumerate(shares.tolist())}, "tokens": tokens}


def main(folder: str, questions: str, answers: str) -> None:
    torch.set_grad_enabled(False)
    _, asked = answering.read(questions)
    settings: dict[str, Any] = {"model_kwargs": {"dtype": torch.float32}, "local_files_only": True, "device": "cpu"}
    model = SentenceTransformer(folder, **settings)
    packages = ("sentence-transformers", "transformers", "torch", "tokenizers")
    answering.write(answers, answering.opening(packages[0], packages), asked, lambda each: answer(model, each))


if __name__ == "__main__":
    main(*sys.argv[1:])
