"""Fabricates study folders: real files in the run folder's formats, from a seeded generator and no training.

The fixtures are for the `conftest.py` of folders whose tests read such studies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from finetune.results.schema import Results

METRICS = {"accuracy": True, "macro_f1": True, "nll": False}


@dataclass
class Fabricator:
    """Writes one study's folder, run by run."""

    path: Path
    seeds: list[int]
    variants: dict[str, str]
    """Strategy type by variant."""
    tasks: tuple[str, ...] = ("test",)
    labels: tuple[str, ...] = ("tech", "sport", "politics")
    name: str = "topics"
    examples: int = 200

    def study(self) -> Path:
        """The files that belong to no run."""
        self.path.mkdir(parents=True)
        variants = {
            name: {
                "digest": f"d-{name}",
                "recipe": {"strategy": {"type": strategy}, "train": {"epochs": 3.0, "learning_rate": 1e-4}},
            }
            for name, strategy in self.variants.items()
        }
        resolved = {
            "name": self.name,
            "digest": "0123456789abcdef",
            "seeds": self.seeds,
            "vary": ["init", "order", "dropout", "noise"],
            "variants": variants,
        }
        (self.path / "resolved.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
        (self.path / "recipe.yaml").write_text(f"# {self.name}\nseeds: {len(self.seeds)}\n", encoding="utf-8")
        self.json(
            "environment.json",
            {
                "format": 1,
                "finetune": "0.1.0",
                "python": "3.11.7",
                "platform": "Linux",
                "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
                "device": "cpu (2 threads)",
                "dtype": "bfloat16",
                "processes": 1,
                "git": None,
            },
        )
        self.json("data.json", self.data())
        return self.path

    def data(self) -> dict[str, Any]:
        counts = {label: 40 - 7 * index for index, label in enumerate(self.labels)}
        splits = {
            name: {
                "examples": size,
                "fingerprint": "f" * 32,
                "source": "package:news",
                "facts": {"labels": counts, "tokens": {"mean": 31.4, "max": 96}, "cut": 3},
            }
            for name, size in (("train", 120), ("validation", 40), *((task, self.examples) for task in self.tasks))
        }
        metrics = [{"name": name, "higher_is_better": higher} for name, higher in METRICS.items()]
        tasks = [
            {
                "name": task,
                "split": task,
                "examples": self.examples,
                "fingerprint": "f" * 32,
                "headline": "accuracy",
                "metrics": metrics,
                "majority": 0.23,
            }
            for task in self.tasks
        ]
        return {
            "format": 1,
            "seed": 0,
            "splits": splits,
            "duplicates_dropped": 98,
            "leaks": {"checked": 700, "found": 0, "action": "refuse"},
            "tasks": tasks,
        }

    def run(
        self, variant: str, seed: int, accuracy: float | None, status: str = "finished", reason: str | None = None
    ) -> dict[str, Any]:
        """One run with about that accuracy; None: it was never scored."""
        rng = np.random.default_rng([seed, sum(map(ord, variant))])
        folder = self.path / variant / f"seed-{seed}"
        self.metrics(folder, rng, explode=status == "diverged")
        return self.result(folder, variant, seed, self.variants[variant], accuracy, rng, status, reason)

    def base(self, accuracy: float) -> dict[str, Any]:
        rng = np.random.default_rng(9)
        return self.result(self.path / "base", "base", None, "none", accuracy, rng, "finished", None)

    def cheap(self, name: str, accuracy: float) -> dict[str, Any]:
        """A cheap baseline, which no seed has made."""
        rng = np.random.default_rng(11)
        folder = self.path / "baselines" / name
        return self.result(folder, name, None, "none", accuracy, rng, "finished", None)

    def result(self, folder, variant, seed, strategy, accuracy, rng, status, reason) -> dict[str, Any]:
        scores: dict[str, float] = {}
        for task in self.tasks if accuracy is not None else ():
            correct = (rng.random(self.examples) < accuracy).astype(float)
            self.predictions(folder / "predictions" / f"{task}.parquet", correct)
            found = float(correct.mean())
            scores |= {f"{task}/accuracy": found, f"{task}/macro_f1": found * 0.98, f"{task}/nll": 1.2 - found}
        trainable = {"linear": 1925, "adapter": 93189, "none": 0}.get(strategy, 22713216)
        training = {
            "steps": 120,
            "epochs": 3.0,
            "examples": 1920,
            "tokens": 60000,
            "tokens_per_second": 4200.0,
            "padding": 0.1,
            "best_step": 96,
            "stopped_early": False,
            "resumed": 0,
        }
        result = {
            "format": 1,
            "variant": variant,
            "seed": seed,
            "digest": f"d-{variant}",
            "strategy": strategy,
            "status": status,
            "reason": reason,
            "seconds": 14.0 + rng.random(),
            "phases": {"load": 0.4, "train": 11.0, "evaluate": 2.2},
            "peak_memory_bytes": 912_000_000,
            "parameters": {"total": 22713216, "trainable": trainable},
            "scores": scores,
            "training": None if seed is None else training,
            "identity": None,
            "streams": None,
        }
        self.json(str((folder / "result.json").relative_to(self.path)), result)
        return result

    def metrics(self, folder: Path, rng: np.random.Generator, explode: bool = False, steps: int = 120) -> None:
        """Loss curves that fall; one that explodes ends early with a loss that is not finite."""
        lines = []
        level = 0.25 + 0.1 * rng.random()
        for step in range(2, steps + 1, 2):
            loss = level + 1.5 * np.exp(-step / 25) + 0.06 * rng.normal()
            if explode and step > steps // 2:
                loss = loss * 1.5 ** (step - steps // 2)
            lines.append(
                {
                    "kind": "train",
                    "step": step,
                    "epoch": step / 40,
                    "loss": float(abs(loss)),
                    "learning_rate": 1e-4,
                    "gradient_norm": 1.0,
                    "tokens": 500 * step,
                    "seconds": step / 10,
                }
            )
            if explode and step > steps // 2 + 10:
                lines.append({**lines[-1], "step": step + 2, "loss": None, "gradient_norm": None})
                break
            if step % 24 == 0:
                lines.append(
                    {
                        "kind": "evaluation",
                        "step": step,
                        "epoch": step / 40,
                        "seconds": step / 10,
                        "scores": {"loss": float(loss + 0.08), "accuracy": 0.9},
                    }
                )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def predictions(self, path: Path, correct: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        n = len(correct)
        order = np.random.default_rng(0).permutation(n)  # rows may stand in any order
        pq.write_table(
            pa.table(
                {
                    "example": order,
                    "prediction": ["tech"] * n,
                    "reference": ["tech"] * n,
                    "score": correct[order],
                    "probabilities": pa.nulls(n, pa.list_(pa.float32())),
                    "loss": np.zeros(n),
                    "weight": np.ones(n),
                }
            ),
            path,
        )

    def json(self, name: str, content: Any) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def topics(path: Path, seeds: int = 5, base: float | None = 0.31) -> Fabricator:
    """Three variants that differ clearly, every run finished."""
    made = Fabricator(path, list(range(1, seeds + 1)), {"linear": "linear", "lora": "adapter", "full": "full"})
    made.study()
    for seed in made.seeds:
        for variant, accuracy in (("linear", 0.80), ("lora", 0.93), ("full", 0.94)):
            made.run(variant, seed, accuracy)
    if base is not None:
        made.base(base)
    return made


def with_variant(results: Results, name: str, **changes: Any) -> Results:
    """The results with these fields of one variant changed."""
    variants = [replace(variant, **changes) if variant.name == name else variant for variant in results.variants]
    return replace(results, variants=variants)


@pytest.fixture
def study(tmp_path) -> Fabricator:
    """Five seeds of linear, lora and full, and the base model."""
    return topics(tmp_path / "topics")


@pytest.fixture
def make(tmp_path):
    """``make(seeds=..., base=...)``: the same study with other sizes."""
    return lambda **options: topics(tmp_path / "topics", **options)


@pytest.fixture
def fabricator(tmp_path):
    """``fabricator(seeds, variants, ...)``: an empty study to fill."""

    def build(seeds: list[int], variants: dict[str, str], **options: Any) -> Fabricator:
        made = Fabricator(tmp_path / "study", seeds, variants, **options)
        made.study()
        return made

    return build
