"""Metrics of lm-evaluation-harness, of which each document's own values are known when it is scored, and only then."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune.core.errors import FinetuneError
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.jackknife import pseudo_values
from finetune.metrics.unit import Unit, percent

PREFIX = "lm_eval."
"""How their names begin: some of them are called like ours, and are computed otherwise."""

SHARES = frozenset(("acc", "acc_bytes", "acc_mutual_info", "acc_norm", "exact_match"))
"""Those that the harness itself computes as shares of documents; what others are depends on the task."""

BOUNDS = {name: (1.0, math.inf) for name in ("perplexity", "word_perplexity", "byte_perplexity")} | {
    "bits_per_byte": (0.0, math.inf)
}
"""The lowest and the highest that others of the harness can be."""


def unit_of(name: str) -> Unit | None:
    """Give the unit of a metric of the harness, by its name with prefix and filter; None for any other metric."""
    if not name.startswith(PREFIX):
        return None
    metric = name.removeprefix(PREFIX).partition(",")[0]
    return percent(name) if metric in SHARES else Unit(name, bounds=BOUNDS.get(metric))


class HarnessMetric(Metric):
    """A metric of a task of the harness, under one of the task's filters of answers."""

    columns = ("own",)

    def __init__(self, name: str, filter_name: str, aggregate: Callable[[Sequence[Any]], Any], higher_is_better: bool):
        """``aggregate`` makes the score of what the documents that have the metric give it."""
        self.metric, self.filter_name = name, filter_name
        self.name = PREFIX + (name if filter_name == "none" else f"{name},{filter_name}")
        self.unit = unit_of(self.name) or Unit(self.name)
        self.aggregate, self.higher_is_better = aggregate, higher_is_better

    def value(self, columns: Columns) -> float:
        """Compute the score from what each example contributes, which is stored."""
        return float(self.contributions(columns).mean())

    def contributions(self, columns: Columns) -> Values:
        """Give what each example contributes, (examples,), as it is stored."""
        return np.asarray(columns["own"][self.name], dtype=float)

    def made_of(self, found: Sequence[Mapping[str, Any]]) -> Values:
        """Compute what each of n documents contributes, (n,) floats whose mean is the harness's score.

        ``found`` has each document's own values by metric: a number, or whatever the aggregation takes. Where the score
        is the mean of numbers these are they; else the jackknife's. A document without the metric counts what the
        others have on average. Raises FinetuneError where no document has it.
        """
        given = [own[self.metric] for own in found if self.metric in own]
        there = np.array([self.metric in own for own in found])
        if not given:
            raise FinetuneError(f"{self.name}: no document has got a value")
        score = self.score_of(given)
        if self._is_mean(given, score):
            values = np.full(len(found), score)
            own = np.asarray(given, float)
            values[there] = own if there.all() else score + (own - score) / there.mean()
            return values

        def score_without(kept: np.ndarray) -> float:
            left = [own[self.metric] for own, stays in zip(found, kept, strict=True) if stays and self.metric in own]
            return self.score_of(left) if left else score

        return pseudo_values(score, len(found), score_without)

    def score_of(self, given: Sequence[Any]) -> float:
        """Compute the score of what some documents give. Raises FinetuneError where that is no number."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is undefined, such as a correlation of equal labels, is so often
                score = self.aggregate(given)
        except OverflowError:  # a perplexity beyond all numbers
            return math.inf
        except Exception as error:  # foreign code: anything can come out of it
            raise FinetuneError(f"{self.name} cannot be computed: {error}") from error
        if isinstance(score, bool) or not isinstance(score, int | float | np.number):
            raise FinetuneError(f"{self.name} gives no number, but: {score!r:.60}")
        return float(score)

    def _is_mean(self, given: Sequence[Any], score: float) -> bool:
        """Tell whether the score is the mean of what the documents give: of all of them, and of half of them."""
        if not all(isinstance(value, int | float | np.number) for value in given):
            return False
        half = given[: (len(given) + 1) // 2]
        pairs = ((score, given), (self.score_of(half), half))
        return all(math.isclose(one, float(np.mean(of)), rel_tol=1e-9, abs_tol=1e-12) for one, of in pairs)
