"""Groups of runs on tiny models, made and trained the way a study does it, and what came of each run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from finetune.core.sharding import gathered
from finetune.core.signals import StopRequest
from finetune.evaluate.predict import predict
from finetune.evaluate.store import Predictions
from finetune.models import BaseModel, processor
from finetune.replicas.group import Replica, ReplicaGroup
from finetune.runner.resources import Resources, TaskData
from finetune.runner.session import Session
from finetune.strategies.base import trained_parameters
from finetune.train.accumulation import Accumulation
from finetune.train.meters import read_rows
from tests.contracts.battery import data_of

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
        compute: Mapping[str, Any] | None = None,
        **train: Any,
    ) -> Variant:
        """44 examples of a task, 12 of them for testing; ``train`` changes options of training."""
        folder.mkdir(parents=True, exist_ok=True)
        said, data = data_of(task, STRATEGIES.get(strategy["type"]).pairs, folder, 44)
        content = {
            "model": {"source": str(model), "dtype": "float32", "device": "cpu", "new": ["cls"]},
            "data": {"train": {"path": str(data)}, "split": {"test": 8, "validation": 4}},
            "task": said,
            "strategy": strategy,
            "mitigations": list(mitigations),
            "train": {**TRAIN, **train},
            "compute": dict(compute or {}),
        }
        path = folder / "recipe.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML too
        return cls(recipes.load(path).variants[0].recipe, folder)

    @cached_property
    def data(self) -> TaskData:
        return self.resources.data(self.recipe, split_seed=0)

    @property
    def base(self) -> BaseModel:
        return self.resources.base(self.recipe.model, self.data.task)

    def like(self, strategy: Any = None, **train: Any) -> Variant:
        """Another variant, with the same data and base model."""
        changes: dict[str, Any] = {"train": self.recipe.train.model_copy(update=train)}
        if strategy is not None:
            changes["strategy"] = strategy
        return Variant(self.recipe.model_copy(update=changes), self.folder, self.resources)

    def runtime(self, stop: StopRequest | None = None, dtype: torch.dtype = torch.float32) -> Runtime:
        return open_runtime(*processor(self.recipe.model), Progress(), stop or StopRequest(), self.folder).at("", dtype)

    def replicas(self, name: str, seeds: Sequence[int]) -> list[Replica]:
        return [Replica(Streams(seed), RunDir(self.folder / name / str(seed))) for seed in seeds]

    def session(self, stop: StopRequest | None = None, dtype: torch.dtype = torch.float32) -> Session:
        """What its runs stand on, whatever a comparison with plain transformers would say."""
        runtime = self.runtime(stop, dtype).sharding(self.recipe.compute.shard)
        return Session(self.recipe, self.base, self.data, runtime)

    def assembled(self, seeds: Sequence[int] = (0,), dtype: torch.dtype = torch.float32) -> ReplicaGroup:
        """The group as training starts from it, with its prefix."""
        session = self.session(dtype=dtype)
        group = session.assemble(self.replicas("unused", seeds)).group
        session.speed_up(group)
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
        session, replicas = self.session(stop, dtype), self.replicas(name, seeds)
        assembled = session.assemble(replicas)
        group = assembled.group
        batches: list[dict[int, list[int]]] = [{} for _ in seeds]
        plain = Accumulation._micro_batches

        def watched(accumulation: Accumulation, step: int) -> Any:
            for micro_batch in plain(accumulation, step):
                left = iter(micro_batch.examples)
                for size, seen in zip(micro_batch.sizes, batches, strict=True):
                    seen.setdefault(step, []).extend(example.number for example in islice(left, size))
                yield micro_batch

        with patch.object(Accumulation, "_micro_batches", watched):
            trained = session.fit(assembled, compiled)
        found = predict(group, self.data.task, self.data.held_out["test"].examples, 5, session.runtime)
        came = []
        for number, replica in enumerate(replicas):
            with group.alone(number) as model:
                weights = {key: value.clone() for key, value in gathered(trained_parameters(model))}
            rows = read_rows(replica.folder.metrics)
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
