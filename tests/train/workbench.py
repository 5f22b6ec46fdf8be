"""Tiny models with their tasks and examples on a bench: what tests of training take in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from finetune.core.compute import ComputeOptions
from finetune.core.examples import Example
from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir
from finetune.core.runtime import Runtime, watch_over
from finetune.core.sharding import gathered
from finetune.core.signals import StopRequest
from finetune.evaluate.metrics import score
from finetune.evaluate.predict import predict
from finetune.models import BaseModel, ModelOptions, load_base, load_tokenizer
from finetune.replicas.group import Replica, ReplicaGroup
from finetune.runner.build import sharded
from finetune.strategies.base import train_only
from finetune.tasks.base import Task
from finetune.tasks.chat import Chat, ChatOptions
from finetune.tasks.classification import Classification, ClassificationOptions
from finetune.train.loop import train
from finetune.train.meters import read_rows
from finetune.train.options import TrainOptions
from finetune.train.state import Trained, Validation
from tests import tiny

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@dataclass(frozen=True)
class Bench:
    """A task fitted to its examples, and the model that learns it."""

    task: Task
    examples: list[Example]
    held_out: list[Example]
    base: BaseModel

    def model(self, seed: int = 0, streams: Streams | None = None) -> torch.nn.Module:
        """A fresh model, of which everything learns."""
        model = self.base.copy(streams or Streams(seed))
        train_only(model, {name for name, _ in model.named_parameters()})
        return model


def classification(folder: Path, dropout: bool = False, count: int = 48) -> Bench:
    """Three topics told apart by a tiny BERT."""
    rows = tiny.sentences(count + 15)
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    task = Classification(ClassificationOptions(type="classification", max_length=32))
    return _bench(task, columns, count, folder, {} if dropout else NO_DROPOUT)


def chat(folder: Path, count: int = 24) -> Bench:
    """A tiny Llama that answers with as many of a text's words as the text says: answers differ in length."""
    texts = [text for text, _ in tiny.sentences(count + 8)]
    answers = [" ".join(text.split()[: 1 + number % 4]) for number, text in enumerate(texts)]
    task = Chat(ChatOptions(type="chat", prompt="prompt", completion="completion", max_new_tokens=4))
    return _bench(task, {"prompt": texts, "completion": answers}, count, folder, {})


def _bench(task: Task, columns: dict[str, list[str]], count: int, folder: Path, config: dict[str, float]) -> Bench:
    data = Dataset.from_dict({"example": list(range(len(columns[task.inputs()[0]]))), **columns})
    first, rest = data.select(range(count)), data.select(range(count, len(data)))
    options = ModelOptions(source=str(folder), dtype="float32")
    task.fit(SimpleNamespace(train=first, validation=None, held_out={"test": rest}), load_tokenizer(options))
    encoded = [
        task.encode(part, "data", training=training).examples for part, training in ((first, True), (rest, False))
    ]
    return Bench(task, *encoded, load_base(options, task.architecture, **task.model_config(), **config))


def make_runtime(folder: Path, dtype: torch.dtype = torch.float32, **changes) -> Runtime:
    """This process on the CPU."""
    accelerator = Accelerator(cpu=True)
    return Runtime(accelerator, dtype, folder, watch=watch_over(accelerator), **changes)


def replica(folder: Path, seed: int = 0) -> Replica:
    """A run under ``seed``, which writes to ``folder``."""
    return Replica(Streams(seed), RunDir(folder))


def options(**changes) -> TrainOptions:
    """Twelve quick steps without validation, but for ``changes``."""
    few = {"min_steps": 0, "max_steps": 12, "epochs": 100.0, "batch_size": 8, "learning_rate": 2e-3, "evaluations": 0}
    return TrainOptions(**{**few, **changes})


@dataclass(frozen=True)
class Fitted:
    """What came of training."""

    trained: Trained
    model: torch.nn.Module
    rows: list[dict]
    """Of `metrics.jsonl`."""

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        own = {
            name: value.clone() for name, value in gathered(dict(self.model.named_parameters(remove_duplicate=False)))
        }
        return {name: own.get(name, value) for name, value in self.model.state_dict().items()}

    def column(self, name: str, kind: str = "train") -> list:
        return [row[name] for row in self.rows if row["kind"] == kind]


def fit(
    bench: Bench,
    folder: Path,
    seed: int = 0,
    model: torch.nn.Module | None = None,
    streams: Streams | None = None,
    dtype: torch.dtype = torch.float32,
    select: str = "loss",
    stop: StopRequest | None = None,
    compute: ComputeOptions | None = None,
    shard: bool = False,
    **changes,
) -> Fitted:
    """Train on the bench's examples; ``changes`` are training options. With ``shard`` the processes split the model."""
    chosen, streams = options(**changes), streams or Streams(seed)
    model = model if model is not None else bench.model(streams=streams)
    runtime = make_runtime(folder, dtype, stop=stop or StopRequest()).sharding(shard)
    group = ReplicaGroup(sharded(model, runtime))
    validation = None
    if chosen.evaluations:
        validation = Validation(lambda: scores(bench, group, runtime), select, select != "loss")
    replicas = [Replica(streams, RunDir(folder))]
    [trained] = train(group, bench.task, bench.examples, chosen, replicas, runtime, validation, None, compute)
    return Fitted(trained, model, read_rows(folder / "metrics.jsonl"))


def scores(bench: Bench, group: ReplicaGroup, runtime: Runtime) -> list[dict[str, float]]:
    """Of the held-out examples, for each run: the loss, and where there are classes the accuracy."""
    found = predict(group, bench.task, bench.held_out, 8, runtime, answers=False)
    return [score(each, ["loss", "accuracy"] if bench.task.labels else ["loss"]) for each in found]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether all weights are bit-identical."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def furthest(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """The largest difference between any two weights."""
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def without_seconds(rows: Sequence[dict]) -> list[dict]:
    """What has to be the same each time."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def example(length: int, weight: float = 1.0, number: int = 0) -> Example:
    """An example of which only the length and the weight matter."""
    return Example(number, {"input_ids": np.zeros(length, np.int32)}, 0, weight, "")
