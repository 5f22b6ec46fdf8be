"""Our side: recipes for `finetune run`, and what the files of a finished study say. Used as a person would use it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts._benchmark import jobs
from scripts._benchmark.corpus import Row, read_rows
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
    if case.job == "f":
        return _few_shot(case, seeds, model, train, held_out)
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


def _few_shot(case: Case, seeds: Sequence[int], model: Path, train: Path, held_out: Path) -> dict[str, Any]:
    """As in recipes/setfit.yaml, but with one held-out file for all draws."""
    texts = {"text": "text", "label": "label", "max_length": jobs.FEW_MAX_LENGTH}
    few = {"batch_size": 8, "epochs": 4 if case.examples <= 8 * jobs.TOPICS else 1, "min_steps": 0}
    return {
        "name": "study",
        "seeds": list(seeds),
        "vary": ["split", "init", "order", "dropout", "noise"],
        "model": {"source": str(model)},
        "data": {
            "train": {"path": str(train)},
            "test": {"path": str(held_out)},
            "split": {"train": case.examples, "stratify": "label"},
        },
        "task": {"type": "classification", **texts},
        "strategy": {"type": "linear"},
        "stages": [
            {
                "name": "contrastive",
                "task": {"type": "embedding", **texts},
                "strategy": {"type": "full"},
                "train": {**few, "learning_rate": 5.0e-5},
            }
        ],
        "train": {"save_model": False},
        "baselines": {"enabled": False},
    }


def drawn(path: Path, seed: int) -> list[Row]:
    """The training examples that the recipe's run under ``seed`` draws."""
    from finetune import load_recipe
    from finetune.data.sources import read
    from finetune.data.splits import divide
    from finetune.study.preflight import split_seed

    recipe = load_recipe(path)
    data, own = recipe.variants[0].recipe.data, split_seed(recipe, recipe.variants[0], seed)
    rows = divide(read(data.train, "data.train", own), data.split, own).train
    every = read_rows(data.train.path)
    return [every[row] for row in rows]


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
