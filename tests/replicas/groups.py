"""Groups of runs on tiny models, made and trained the way a study does it, and what came of each run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from finetune import recipe as recipes
from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.registry import STRATEGIES
from finetune.core.run_dir import RunDir
from finetune.core.runtime import Runtime, make_deterministic, open_runtime
from finetune.core.signals import StopRequest
from finetune.evaluate.predict import predict
from finetune.evaluate.store import Predictions
from finetune.models import BaseModel, processor
from finetune.replicas.group import Member, ReplicaGroup
from finetune.run.build import assemble, open_prefix
from finetune.run.resources import Resources, TaskData
from finetune.run.scoring import validate_with
from finetune.strategies.base import trained_parameters
from finetune.train.loop import train
from finetune.train.meters import read_rows
from finetune.train.passes import Accumulation
from tests import tiny

TASKS: dict[str, dict[str, Any]] = {
    "classification": {"type": "classification", "max_length": 32},
    "chat": {"type": "chat", "prompt": "prompt", "completion": "completion", "max_length": 64, "max_new_tokens": 4},
    "language": {"type": "language", "max_length": 16},
}
TRAIN = {"max_steps": 6, "min_steps": 6, "batch_size": 8, "learning_rate": 3e-3, "evaluations": 0}


@dataclass(frozen=True)
class Came:
    """What came of one run."""

    losses: list[float]
    norms: list[float]
    weights: dict[str, torch.Tensor]
    """What was trained."""
    batches: list[list[int]]
    """Numbers of the examples of each step."""
    facts: dict[str, Any]
    predictions: Predictions
    """Of the test split, in order."""
    rows: list[dict[str, Any]]


@dataclass
class Variant:
    """One variant of a study: its recipe, and what is loaded for it once."""

    recipe: Any
    folder: Path
    resources: Resources = field(default_factory=Resources)

    @classmethod
    def of(
        cls,
        folder: Path,
        model: Path,
        task: str,
        strategy: dict[str, Any],
        mitigations: Sequence[Any] = (),
        **train: Any,
    ) -> Variant:
        """44 examples of a task, 12 of them for testing; ``train`` changes options of training."""
        folder.mkdir(parents=True, exist_ok=True)
        chat, pairs = task == "chat", STRATEGIES.get(strategy["type"]).pairs
        data = (
            (tiny.write_pairs if pairs else tiny.write_chats)(folder / "data.jsonl", 44)
            if chat
            else tiny.write_csv(folder / "data.csv", tiny.sentences(44))
        )
        content = {
            "model": {"source": str(model), "dtype": "float32", "device": "cpu", "new": ["cls"]},
            "data": {"train": {"path": str(data)}, "split": {"test": 8, "validation": 4}},
            "task": {**TASKS[task], **({"rejected": "rejected"} if pairs else {})},
            "strategy": strategy,
            "mitigations": list(mitigations),
            "train": {**TRAIN, **train},
        }
        path = folder / "recipe.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML too
        return cls(recipes.load(path).variants[0].recipe, folder)

    @cached_property
    def data(self) -> TaskData:
        return self.resources.data(self.recipe, split_seed=0)

    @property
    def base(self) -> BaseModel:
        return self.resources.base(self.recipe, self.data.task)

    def like(self, strategy: Any = None, **train: Any) -> Variant:
        """Another variant, with the same data and base model."""
        changes: dict[str, Any] = {"train": self.recipe.train.model_copy(update=train)}
        if strategy is not None:
            changes["strategy"] = strategy
        return Variant(self.recipe.model_copy(update=changes), self.folder, self.resources)

    def runtime(self, stop: StopRequest | None = None, dtype: torch.dtype = torch.float32) -> Runtime:
        return open_runtime(*processor(self.recipe.model), Progress(), stop or StopRequest(), self.folder).at("", dtype)

    def members(self, name: str, seeds: Sequence[int]) -> list[Member]:
        return [Member(Streams(seed), RunDir(self.folder / name / str(seed))) for seed in seeds]

    def assembled(self, seeds: Sequence[int] = (0,), dtype: torch.dtype = torch.float32) -> ReplicaGroup:
        """The group as training starts from it, with its prefix."""
        runtime = self.runtime(dtype=dtype)
        group, _, _ = assemble(self.recipe, self.base, self.data, self.members("unused", seeds), runtime, {})
        open_prefix(group, self.recipe, self.base, self.data, runtime)
        return group

    def run(
        self,
        seeds: Sequence[int],
        name: str,
        stop: StopRequest | None = None,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
    ) -> list[Came]:
        """Train ``seeds`` side by side; under the same name, interrupted ones go on."""
        make_deterministic(True)
        runtime, members = self.runtime(stop, dtype), self.members(name, seeds)
        group, _, _ = assemble(self.recipe, self.base, self.data, members, runtime, {})
        open_prefix(group, self.recipe, self.base, self.data, runtime)
        if compiled:
            group.compile()
        validation = validate_with(group, self.data, self.recipe, runtime)
        batches: list[dict[int, list[int]]] = [{} for _ in seeds]
        plain = Accumulation._parts

        def watched(passes: Accumulation, step: int) -> Any:
            for part in plain(passes, step):
                left = iter(part.examples)
                for size, seen in zip(part.sizes, batches, strict=True):
                    seen.setdefault(step, []).extend(example.number for example in islice(left, size))
                yield part

        with patch.object(Accumulation, "_parts", watched):
            trained = train(
                group, self.data.task, self.data.train.examples, self.recipe.train, members, runtime, validation
            )
        found = predict(group, self.data.task, self.data.held_out["test"].examples, 5, runtime)
        came = []
        for number, member in enumerate(members):
            with group.alone(number) as model:
                weights = {key: value.detach().clone() for key, value in trained_parameters(model).items()}
            rows = read_rows(member.folder.metrics)
            steps = [row for row in rows if row["kind"] == "train"]
            came.append(
                Came(
                    losses=[row["loss"] for row in steps],
                    norms=[row["gradient_norm"] for row in steps],
                    weights=weights,
                    batches=[sorted(batches[number][step]) for step in sorted(batches[number]) if step < len(steps)],
                    facts=trained[number].facts,
                    predictions=found[number],
                    rows=rows,
                )
            )
        return came


def far(one: Came, other: Came) -> float:
    """How far two runs are apart: the largest difference between weights, losses (relative), norms and predictions."""
    assert one.weights.keys() == other.weights.keys() and one.batches == other.batches
    assert len(one.losses) == len(other.losses)
    gaps = [float((one.weights[name] - other.weights[name]).abs().max()) for name in one.weights]
    for ours, theirs in ((one.losses, other.losses), (one.norms, other.norms)):
        gaps += [abs(left - right) / max(abs(right), 1e-3) for left, right in zip(ours, theirs, strict=True)]
    gaps += [float(abs(one.predictions.loss - other.predictions.loss).max())]
    return max(gaps)
