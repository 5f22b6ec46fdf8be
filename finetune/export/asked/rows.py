"""Held-out rows that are asked, and the trained model alone with one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.examples import Batch, Example
from finetune.tasks.batching import Batching

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from finetune.export.trained import Trained
    from finetune.tasks.base import Task

CPU = "cpu"


@dataclass(frozen=True)
class Rows:
    """Some rows of a held-out set, in their order."""

    name: str
    """The set's."""
    at: str
    """Its recipe path."""
    data: Dataset
    """The rows alone."""
    examples: list[Example]
    """As they were scored, one for each row."""
    whole: Dataset
    """All rows of the set."""
    places: list[int]
    """Where in the set these rows are."""

    @classmethod
    def of(cls, trained: Trained, name: str, most: int) -> Rows:
        """Take at most ``most`` rows of the set ``name``, evenly spaced."""
        encoded, table = trained.data.held_out[name], trained.data.tables[name]
        first: dict[int, int] = {}  # of what is cut into pieces, the place of the first one
        for place in range(len(encoded.examples)):
            row = place if encoded.rows is None else int(encoded.rows[place])
            first.setdefault(row, place)
        rows = sorted(first)
        chosen = [rows[int(place)] for place in np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).round())]
        examples = [encoded.examples[first[row]] for row in chosen]
        return cls(name, trained.data.at[name], table.select(chosen), examples, table, chosen)

    def columns(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield each row's values of the columns called so, with its example last."""
        yield from zip(*(self.data[name][:] for name in names), self.examples, strict=True)


def alone(task: Task) -> Task:
    """The same task, in which examples share nothing."""
    return task.sharing(Batching.SINGLE, Batching.SINGLE)


def batch_of(task: Task, model: torch.nn.Module, example: Example) -> Batch:
    """One example as a batch that ``model`` takes."""
    import torch

    task.loss_path(model)  # which may try the model out
    return task.batch_for(model, [example], torch.device(CPU))


def tokens_of(example: Example) -> list[int]:
    """The tokens of an example that is one sequence, or of the first of its sequences."""
    found: list[int] = example.parts(example.inputs["input_ids"])[0].tolist()
    return found
