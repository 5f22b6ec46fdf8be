"""A user's functions as metrics, tried before anything is trained: afterwards it is late for finding a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.errors import FinetuneError, bad_input, first_line
from finetune.evaluate import metrics
from finetune.metrics.function import FunctionMetric, NoNumber, refuse_unfilled

if TYPE_CHECKING:
    from finetune.core.encoded import Encoded
    from finetune.metrics import Columns
    from finetune.runner.resources import TaskData
    from finetune.tasks.base import Task

MOST = 100
"""Examples that a function is tried on."""


def refuse_failing(asked: Mapping[str, Any], data: TaskData) -> None:
    """Refuse functions that ask for columns which no store will have, or that fail on answers of which half are right.

    ``asked``: the options of each task, by their recipe path. What is no number for such answers may be one for those
    of a model, and is let pass.
    """
    sets = {"task": data.shared} | {f"evaluate.{name}.task": {name: data.held_out[name]} for name in data.own}
    tasks = {"task": data.task} | {f"evaluate.{name}.task": task for name, task in data.own.items()}
    for at, options in asked.items():
        for number, name in enumerate(options.metrics):
            metric = metrics.load(name)
            if isinstance(metric, FunctionMetric):
                refuse_unfilled(metric, tasks[at].fills, f"{at}.metrics.{number}")
                for held_out, encoded in sets.get(at, {}).items():
                    _try(metric, columns_of(tasks[at], encoded), f"{at}.metrics.{number}", held_out)


def _try(metric: FunctionMetric, columns: Columns, at: str, held_out: str) -> None:
    if not columns["prediction"]:
        return
    try:
        metric.value(columns)
    except NoNumber:
        return
    except FinetuneError as error:
        found = f"tried on '{held_out}' with every second answer right, {first_line(error)}"
        advice = "correct the function: it is called with lists of text, and arrays of numbers"
        raise bad_input(at, found, advice) from error


def columns_of(task: Task, encoded: Encoded) -> dict[str, Any]:
    """Make columns as a prediction store of ``task`` has them: every second example has the answer of the one before
    it, each label is as likely as any other, and losses, margins and weights are 1."""
    references = [example.reference for example in islice(encoded.examples, MOST)]
    given = [references[row - row % 2] for row in range(len(references))]
    ones, labels = np.ones(len(references)), task.labels
    likely = np.full((len(references), len(labels)), 1 / max(len(labels), 1))
    return {
        "prediction": given,
        "reference": references,
        "loss": ones,
        "weight": ones,
        "margin": ones,
        "probabilities": likely if "probabilities" in task.fills else None,
        "labels": labels,
        "extracted": task.extracted(given),
        "extracted_reference": task.extracted(references),
    }
