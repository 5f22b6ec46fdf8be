"""Our side: recipes for `finetune run`, and what the files of a finished study say. Used as a person would use it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts._benchmark import jobs
from scripts._benchmark.jobs import Case

STRATEGIES: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear"},
    "partial": {"type": "partial", "last": jobs.LAST_BLOCKS},
    "lora": {"type": "adapter", "method": "lora", "rank": jobs.RANK, "alpha": jobs.ALPHA},
    "full": {"type": "full"},
}


RAN = (0, 1)
"""Exit codes of `finetune run` after which there are results: 1 also stands for runs that learnt nothing, as may happen
with few examples, and to a peer as well. :func:`read_study` refuses those that broke."""


def command() -> list[str]:
    """`finetune`, as it is installed beside this Python."""
    installed = Path(sys.executable).with_name("finetune")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "finetune"]


def recipe(
    case: Case, seeds: Sequence[int], model: Path, train: Path, held_out: Path, save_model: bool = False
) -> dict[str, Any]:
    """The recipe of a case: what both sides share, and otherwise our defaults.

    ``min_steps`` alone is not left at its default: it would train few examples for longer than the peers do.
    """
    chat = case.job == "b"
    steps = {
        "epochs": case.epochs,
        "min_steps": 0,
        "batch_size": jobs.CHAT_BATCH if chat else jobs.BATCH,
        "learning_rate": case.learning_rate,
        "warmup": jobs.WARMUP,
        "weight_decay": jobs.WEIGHT_DECAY,
    }
    return {
        "name": "study",
        "seeds": list(seeds),
        "model": {"source": str(model)},
        "data": {"train": {"path": str(train)}, "test": {"path": str(held_out)}},
        "task": _chat() if chat else _pairs(),
        "strategy": STRATEGIES[case.strategy],
        # A probe is solved, and takes no steps.
        "train": {**({} if case.strategy == "linear" else steps), "save_model": save_model},
        "baselines": {"enabled": False},  # which no peer computes
        **({"scoring": {"base": False}} if chat else {}),
    }


def _pairs() -> dict[str, Any]:
    return {
        "type": "classification",
        "text": "sentence1",
        "pair": "sentence2",
        "label": "label",
        "max_length": jobs.MAX_LENGTH,
    }


def _chat() -> dict[str, Any]:
    # Answers are scored by answers.py, for everybody alike; one token of each is all that is generated here.
    return {
        "type": "chat",
        "prompt": "question",
        "completion": "answer",
        "max_length": jobs.CHAT_MAX_LENGTH,
        "max_new_tokens": 1,
        "metrics": ["loss"],
    }


def write_recipe(folder: Path, content: dict[str, Any]) -> Path:
    """A recipe file; JSON is YAML too."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path


def read_study(folder: Path) -> list[dict[str, Any]]:
    """The `result.json` of every run, by seed; a run that is missing or ended in an error raises RuntimeError."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/seed-*/result.json")]
    failed = [f"seed {result['seed']}: {result['reason']}" for result in results if result["status"] == "error"]
    if failed or not results:
        raise RuntimeError("; ".join(failed) or f"no results in {folder}")
    return sorted(results, key=lambda result: result["seed"])


def began_training(folder: Path) -> float:
    """When the study had read and encoded its data and was about to load its first model, in seconds since 1970."""
    return (folder / "environment.json").stat().st_mtime
