"""The untuned model as a reference: how much likelier it finds chosen answers, and rewards measured from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finetune.core.encoded import Examples
from finetune.core.examples import Example
from finetune.core.randomness import Streams
from finetune.core.runtime import Runtime
from finetune.evaluate import metrics
from finetune.evaluate.predict import predict
from finetune.evaluate.store import Predictions
from finetune.metrics.base import Metric
from finetune.models import BaseModel
from finetune.runner.build import group_of
from finetune.tasks.base import Task


def needs_reference(names: Iterable[str | Metric]) -> bool:
    """Tell whether one of the metrics ``names`` compares with a reference."""
    return any("reward" in metrics.load(name).columns for name in names)


@dataclass(frozen=True)
class Reference:
    """The base model as it is, which training starts from."""

    base: BaseModel
    task: Task
    scale: float
    """What log-ratios are multiplied by to be rewards."""
    size: int
    """Examples scored at once."""
    runtime: Runtime

    def rewarded(self, found: Sequence[Predictions], examples: Sequence[Example]) -> list[Predictions]:
        """Add to predictions of ``examples``, in their order, the rewards."""
        margins = self._margins(Examples.of(examples))
        return [replace(each, reward=self.scale * (_margin(each) - margins)) for each in found]

    def _margins(self, examples: Examples) -> np.ndarray:
        """Compute the margins of the base model, once for a set of examples: (examples,), nats."""
        how = [self.task.batching.name, str(self.runtime.dtype), str(self.runtime.device)]
        key = ("margins", examples.number, *how)
        if key not in self.base.kept:
            group = group_of(self.base.view(Streams(0)).requires_grad_(False), self.runtime, self.base)
            title = "scoring the reference"
            [found] = predict(group, self.task, examples, self.size, self.runtime, answers=False, title=title)
            self.base.kept[key] = _margin(found)
            del group
            self.runtime.accelerator.free_memory()
        kept: np.ndarray = self.base.kept[key]
        return kept


def _margin(predictions: Predictions) -> np.ndarray:
    assert predictions.margin is not None, "what has rewards has pairs"
    return predictions.margin
