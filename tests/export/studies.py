"""Tiny real studies of every kind of task, to take models away from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune import recipe as recipes
from finetune.core.registry import TASKS
from finetune.study.running import run_study
from tests.contracts.battery import example_of, said

SPLIT = {"test": 12, "validation": 8}
TRAIN = {"epochs": 1, "min_steps": 8, "max_steps": 8, "batch_size": 8, "learning_rate": 1e-2, "evaluations": 2}


FULL = {"full": {"strategy": {"type": "full"}}}

MODELS = {
    "multi-label-classification": "framed",
    "regression": "framed",
    "token-classification": "framed",
    "question-answering": "framed",
    "multiple-choice": "framed",
    "multiple-choice/likelihood": "decoder",
    "label-words": "decoder",
    "embedding": "framed",
    "seq2seq": "bart",
    "language": "decoder",
}
"""Tasks other than classification and chat, which have studies of their own, each with a tiny model for it."""


def write_recipe(folder: Path, model: Path, task: str, variants: Mapping[str, Any], **more: Any) -> Path:
    """Write a recipe of an example of a task, and its data, into ``folder``; ``more`` are other
    sections, and ``options`` of the task."""
    folder.mkdir(parents=True, exist_ok=True)
    example = example_of(TASKS, task)
    options = {**said(TASKS, task), **more.pop("options", {})}
    data = (example.pairs if "rejected" in options else example.data)(folder, 60)
    content = {
        "name": "tiny",
        "seeds": 2,
        "model": {"source": str(model), "dtype": "float32"},
        "data": {"train": {"path": data.name}, "split": SPLIT},
        "task": options,
        "baselines": {"enabled": False},
        "train": TRAIN,
        "variants": dict(variants),
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**content, **more}, sort_keys=False), encoding="utf-8")
    return recipe


def run_tiny(folder: Path, model: Path, task: str, variants: Mapping[str, Any], **more: Any) -> Path:
    """Run such a recipe; give the study's folder."""
    outcome = run_study(recipes.load(write_recipe(folder, model, task, variants, **more)), folder / "runs")
    wrong = [run["reason"] for run in outcome.failed if run["status"] in ("error", "diverged")]
    assert not wrong, wrong
    return outcome.folder


def let_it_count(study: Path) -> Path:
    """Let runs that learnt too little in so few steps count as finished: what is taken away is what they are."""
    for result in study.glob("*/*/result.json"):
        content = json.loads(result.read_text(encoding="utf-8"))
        if content["status"] == "degenerate":
            result.write_text(json.dumps({**content, "status": "finished", "reason": None}), encoding="utf-8")
    return study
