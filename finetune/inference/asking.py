"""Asks a model about rows without right answers: as it was scored, and nothing else."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from finetune import models
from finetune.core.errors import bad_input
from finetune.core.progress import Progress
from finetune.core.runtime import Runtime, allow_tf32, make_deterministic, open_runtime
from finetune.core.signals import StopRequest
from finetune.evaluate.predict import predictions_of
from finetune.inference.columns import Columns, columns_of
from finetune.inference.loading import OpenedModel
from finetune.replicas.group import ReplicaGroup
from finetune.runner.build import group_of
from finetune.runner.parity import applied, compare
from finetune.tasks.used import STAND_IN

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.core.examples import Prediction
    from finetune.tasks.base import Task

WINDOW, GENERATED = 2048, 256
"""Rows that are sorted by length together, and become a piece of the output: of answers that are generated, fewer."""


class Asker:
    """A model on its device, that can be asked about rows of its task."""

    def __init__(self, opened: OpenedModel, runtime: Runtime, probabilities: bool = False):
        self.opened, self.runtime, self.probabilities = opened, runtime, probabilities
        self.temperature = 1.0
        """What logits are divided by: see :mod:`finetune.inference.calibrating`."""
        recipe = opened.recipe
        self.batch_size = recipe.scoring.batch_size
        allow_tf32(recipe.compute.tf32)
        make_deterministic(recipe.train.deterministic)
        self.group: ReplicaGroup = group_of(opened.model.requires_grad_(False), runtime)
        self._task: Task = opened.task
        self._compared = opened.compared

    @property
    def window(self) -> int:
        """Count the rows that are asked about together."""
        return GENERATED if self._task.answer == "text" else WINDOW

    def task_for(self, columns: Sequence[str]) -> Task:
        """Give the task for rows with these ``columns``."""
        task: Task = self._task.for_use(columns)
        return task

    def check(self, data: Dataset, at: str) -> None:
        """Raise InputError where the model cannot be asked about ``data``, read at ``at``."""
        task = self.task_for(data.column_names)
        task.check(task.asked(data, at), at)

    def ask(self, data: Dataset, at: str) -> Columns:
        """Ask about ``data``, numbered rows that were read at ``at``: the columns of
        :mod:`finetune.inference.columns`. Raises InputError for rows that cannot be asked about."""
        task = self.task_for(data.column_names)
        asked = task.asked(data, at)
        task.check(asked, at)
        encoded = task.encode(asked, at, training=False)
        task = self._sharing(task, encoded.examples)
        [found] = self._predict(task, encoded.examples)
        found = task.decided(found, self.opened.decision)
        columns = columns_of(task, asked, encoded, found, self.probabilities, self.temperature)
        if task.answer == "text":
            columns |= self._sure(task, asked, [each.text for each in found], at)
            extracted = self.opened.task.extracted([each.text for each in found])
            columns |= {"extracted": pa.array(extracted, pa.string())} if extracted is not None else {}
        return columns

    def _predict(self, task: Task, examples: Any, answers: bool = True) -> list[list[Prediction]]:
        return predictions_of(self.group, task, examples, self.batch_size, self.runtime, answers, "predicting")

    def _sure(self, task: Task, asked: Dataset, texts: Sequence[str], at: str) -> Columns:
        """How likely the model itself finds its answers: exp of the mean log-likelihood of their tokens."""
        given = task.answered(asked, [text if text.strip() else STAND_IN for text in texts])
        if given is None:
            return {}
        encoded = task.encode(given, at, training=False)
        [found] = self._predict(task, encoded.examples, answers=False)
        both = zip(texts, found, encoded.examples.weights.tolist(), strict=True)
        sure = [
            float(np.exp(-each.loss / weight)) if text.strip() and weight and each.loss is not None else None
            for text, each, weight in both
        ]
        return {"confidence": pa.array(sure, pa.float64())}

    def _sharing(self, task: Task, examples: Any) -> Task:
        """Find out, the first time, what examples may share in a model of which nobody has said it."""
        if self._compared or not len(examples):
            return task
        found = shared_in(self.opened, task, examples)
        self._compared = True
        if found is None:
            return task
        if line := found.line(self._family):
            self.runtime.progress.say(line)
        self._task = applied(found, self._task)
        return applied(found, task)

    @property
    def _family(self) -> str:
        config: Any = self.opened.model.config
        return str(config.model_type)


def shared_in(opened: OpenedModel, task: Task, examples: Sequence[Any]) -> Any:
    """Compare a small model like the one that was opened with plain transformers: see
    :mod:`finetune.runner.parity`. None: it is too large even so."""
    small = models.draw_small(opened.recipe.model, task.architecture, opened.model.config)
    return None if small is None else compare(small, task, examples)


@contextmanager
def asking(opened: OpenedModel, progress: Progress, stop: StopRequest, **how: Any) -> Iterator[Asker]:
    """Put a model on its device within the context."""
    device, dtype = models.processor(opened.recipe.model)
    runtime = open_runtime(device, dtype, progress, stop, Path())
    try:
        yield Asker(opened, runtime, **how)
    finally:
        runtime.close()
        gc.collect()


def refuse_unasked(opened: OpenedModel) -> None:
    """Refuse a task that asks questions of its own."""
    if opened.task.asks:
        found = f"'{opened.source}' is for the task {opened.task.name}, which brings its own questions"
        raise bad_input("task.type", found, "give a model of another task")


def columns_mapped(opened: OpenedModel, known: Sequence[str]) -> dict[str, str]:
    """Give those new columns of the recipe's training data that can be made of columns called as ``known``."""
    from finetune.data.mapping import sources_of
    from finetune.data.options import Source

    train = opened.recipe.data.train
    if not isinstance(train, Source):
        return {}
    return {name: said for name, said in train.columns.items() if sources_of(said, list(known))}
