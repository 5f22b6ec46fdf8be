"""What a study has executed: what can be told of it from outside, without what only repeats the recipe."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from safetensors.torch import load_file

from finetune.core.errors import InputError
from finetune.core.progress import Progress
from finetune.study.running import run_study

TRAINING = ("steps", "epochs", "examples", "tokens", "padding", "replicas", "part", "stopped_early", "way", "best_step")
RESULT = ("status", "reason", "parameters", "scores", "new", "pooling")
SPEED = ("replicas", "compiled", "part_tokens")
REPORT = ("comparisons", "across")
VARIANT = ("chosen_by", "estimates", "agreement", "calibration", "combined")


class Heard(Progress):
    """Counts the phases of a study, but for those whose title names a file."""

    def __init__(self) -> None:
        super().__init__()
        self.titles = Counter[str]()

    def start(self, title: str, total: int | None) -> None:
        if "/" not in title:
            self.titles[title] += 1


@contextmanager
def passes() -> Iterator[list[tuple[Any, ...]]]:
    """The batches that pass through any model within the context, by what comes to its embeddings: shape, and whether
    it is trained on."""
    seen: list[tuple[Any, ...]] = []

    def hear(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding):
            seen.append((*inputs[0].shape, module.training, torch.is_grad_enabled()))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hear)
    try:
        yield seen
    finally:
        handle.remove()


def executed(recipe: Any, output: Path) -> dict[str, Any]:
    """Run a study, and say what it did, by kind: the same for the same recipe, whatever its options are called."""
    heard = Heard()
    with passes() as seen:
        try:
            run_study(recipe, output, heard)
        except InputError as error:
            return {"refused": [(problem.path, problem.found) for problem in error.problems]}
    return {
        "refused": None,
        "passes": seen,
        "phases": heard.titles,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "files": sorted(_name(path, output) for path in output.rglob("*") if path.is_file()),
        "weights": _by_file(output, "*.safetensors", _weights),
        "tables": _by_file(output, "*.parquet", lambda path: pyarrow.parquet.read_table(path).to_pylist()),
        "tokenizers": _by_file(output, "tokenizer.json", lambda path: path.read_text(encoding="utf-8")),
        "logs": _by_file(output, "metrics.jsonl", _log),
        "results": _by_file(output, "result.json", _result),
        "data": _by_file(output, "data.json", _data),
        "speed": _by_file(output, "speed.json", lambda path: [_some(each, SPEED) for each in _json(path).values()]),
        "report": _by_file(output, "results.json", _report),
    }


def effects(untouched: dict[str, Any], changed: dict[str, Any]) -> list[str]:
    """The kinds of evidence in which two studies differ."""
    return [kind for kind in {**untouched, **changed} if untouched.get(kind) != changed.get(kind)]


def _by_file(output: Path, pattern: str, read: Any) -> dict[str, Any]:
    return {_name(path, output): read(path) for path in sorted(output.rglob(pattern))}


def _name(path: Path, output: Path) -> str:
    """The path within the study, without the digest of options that a stage's folder ends with."""
    return re.sub(r"(stages/[^/]+)-[0-9a-f]{8}/", r"\1/", path.relative_to(output).as_posix())


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _some(facts: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: facts[name] for name in names if name in facts}


def _weights(path: Path) -> dict[str, str]:
    """Names, shapes and bits."""
    return {
        name: f"{tuple(value.shape)} {hashlib.sha256(value.contiguous().view(torch.uint8).numpy()).hexdigest()}"
        for name, value in load_file(path).items()
    }


def _log(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def _result(path: Path) -> dict[str, Any]:
    found = _json(path)
    return {**_some(found, RESULT), "training": _some(found.get("training") or {}, TRAINING)}


def _data(path: Path) -> dict[str, Any]:
    found = _json(path)
    splits = {name: {**facts, "source": None} for name, facts in found["splits"].items()}
    leaks = {name: value for name, value in found["leaks"].items() if name != "action"}
    return {"splits": splits, "leaks": leaks, "dropped": found["duplicates_dropped"], "tasks": found["tasks"]}


def _report(path: Path) -> dict[str, Any]:
    found = _json(path)
    return {**_some(found, REPORT), "variants": [_some(each, VARIANT) for each in found["variants"]]}
