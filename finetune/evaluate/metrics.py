"""Finds metrics by the names that recipes use, those of the `evaluate` hub among them, and computes scores.

Light to import: `metric.py` brings `evaluate` when a score is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune.core.errors import FinetuneError, InputError, bad_input, did_you_mean, first_line
from finetune.core.registry import METRICS
from finetune.metrics import find, function
from finetune.metrics.base import Columns, Metric
from finetune.metrics.function import FunctionMetric, is_function, key_of
from finetune.metrics.harness import HarnessMetric
from finetune.metrics.unit import Unit

if TYPE_CHECKING:
    import numpy as np

    from finetune.evaluate.store import Predictions

HUB = "hub:"

LOWER_IS_BETTER = frozenset(
    ("brier_score", "cer", "charcut_mt", "mae", "mape", "mase", "mse", "perplexity", "smape", "ter", "toxicity", "wer")
)
"""Metrics of the `evaluate` hub where less is better; a local script says so with `higher_is_better = False`."""


class HubMetric(Metric):
    """A metric of `evaluate.load`. The score is the first number in what it returns."""

    def __init__(self, name: str, module: Any, higher_is_better: bool, folder: TemporaryDirectory[str]):
        self.name, self.unit, self.higher_is_better = name, Unit(name), higher_is_better
        self.module = module
        """The loaded `evaluate.EvaluationModule`."""
        self.folder = folder
        """Where the module may keep files; it goes when this object does."""

    def value(self, columns: Columns) -> float:
        """Compute the score. Raises FinetuneError when the module fails on these predictions, or returns no number."""
        features = _features(self.module)
        # Of one text and a list beside it, the list has texts of which each is right.
        tags = columns["labels"] or () if all(map(_inner, features.values())) else ()
        given = {name: _fitted(columns[name.removesuffix("s")], features[name], columns, tags) for name in features}
        try:
            result = self.module.compute(**given)
        except Exception as error:  # foreign code: anything can come out of it
            self.module.writer = None  # else the rows it choked on would be counted the next time
            raise FinetuneError(f"{self.name} failed on the predictions: {error}") from error
        for value in result.values():
            if isinstance(value, float | int) or getattr(value, "ndim", None) == 0:
                return float(value)
        raise FinetuneError(f"{self.name} returned no number, but: {result}")

    def contributions(self, columns: Columns) -> Any:
        """Refuse: what foreign code adds up is not known."""
        raise NotImplementedError(f"{self.name} has no contributions")


def check(name: str, at: str = "task.metrics") -> None:
    """Raise an :class:`InputError` at recipe path ``at`` for a name that cannot be a metric. Loads nothing."""
    if (name.startswith(HUB) and name != HUB) or is_function(name):
        return
    if find(name) is None:
        advice = did_you_mean(name, (*METRICS.all(), HUB + "NAME"))
        raise bad_input(at, f"there is no metric called '{name}'", advice)


def load(name: str | Metric, at: str = "task.metrics") -> Metric:
    """Find the metric called ``name``; an :class:`InputError` at recipe path ``at`` when there is none. A metric itself
    is found already.

    ``hub:NAME`` is fetched and imported here, and a file with a function is run, once in a process: so load metrics
    before training, not after it.
    """
    if isinstance(name, Metric):
        return name
    check(name, at)
    own = find(name)
    if own is not None:
        return own
    if is_function(name):
        return _from_file(name, at)
    try:
        return _from_hub(name)
    except InputError as error:
        raise InputError(replace(problem, path=at) for problem in error.problems) from error


def score(predictions: Predictions, names: Sequence[str | Metric]) -> dict[str, float]:
    """Compute each metric, in its unit, by the word under which it stands. Raises ValueError without rows, or without
    the columns that one needs."""
    from finetune.evaluate.metric import compute

    metrics, columns = [load(name) for name in names], predictions.columns()
    for metric in metrics:
        metric.check(columns)
    stored = [name for name, column in columns.items() if column is not None]
    together: dict[bool, list[Metric]] = {}
    for metric in metrics:
        if not isinstance(metric, FOREIGN):  # those of answers may read other columns under the same names
            together.setdefault(metric.of_answers and "extracted" in stored, []).append(metric)
    values: dict[str, float] = {}
    for own in together.values():
        values |= compute(own, {name: columns[each.source(name, stored)] for each in own for name in each.columns})
    # One by one: each may fail in its own way, and calls its numbers as it likes.
    values |= {metric.name: metric.value(columns) for metric in metrics if isinstance(metric, FOREIGN)}
    return {key_of(name): values[key_of(name)] for name in names}


def with_own(predictions: Predictions, names: Sequence[str | Metric]) -> Predictions:
    """Add what each example contributes to those of the metrics that are a user's functions: whoever reads the store
    need not run them."""
    own = {metric.name: metric for metric in map(load, names) if isinstance(metric, FunctionMetric)}
    if not own:
        return predictions
    columns = predictions.columns()
    return replace(predictions, own={name: metric.contributions(columns) for name, metric in own.items()})


def computable(predictions: Predictions, names: Sequence[str]) -> list[str]:
    """List the metrics whose columns ``predictions`` have: what only copies has no likelihoods, say."""
    columns = predictions.columns()
    return [name for name in names if all(columns.get(column) is not None for column in load(name).columns)]


def scores_of(name: str, prediction: Sequence[str], reference: Sequence[str]) -> np.ndarray:
    """Compute the per-example scores, (n,) float64, whose mean is the metric ``name``."""
    found = load(name).per_example({"prediction": prediction, "reference": reference})
    assert found is not None, f"{name} is a mean over examples"
    return found


FOREIGN = (HubMetric, FunctionMetric, HarnessMetric)
"""Metrics whose code is not ours."""


@cache
def _from_file(name: str, at: str) -> FunctionMetric:
    return function.load(name, at)


@cache
def _from_hub(name: str) -> HubMetric:
    import evaluate

    source = name.removeprefix(HUB)
    folder = TemporaryDirectory(prefix="finetune-metric-")
    try:
        module = evaluate.load(source, keep_in_memory=True, cache_dir=folder.name)
    except Exception as error:  # network, hub, missing packages, or a mistake inside a foreign script
        reason = first_line(error)
        advice = "check the name and the network, or use one that needs none: accuracy, macro_f1, rouge_l and others"
        raise bad_input(None, f"{name} cannot be loaded: {reason}", advice) from error
    features, advice = _features(module), "use another metric"
    if unknown := sorted(set(features) - {"predictions", "references"}):
        raise bad_input(None, f"{name} wants columns that no task here has: {', '.join(unknown)}", advice)
    if unfit := sorted(each for each, feature in features.items() if not _is_plain(feature)):
        raise bad_input(None, f"{name} wants {' and '.join(unfit)} of a type that no task here has", advice)
    upwards = getattr(module, "higher_is_better", source.rstrip("/").rpartition("/")[2] not in LOWER_IS_BETTER)
    return HubMetric(name, module, bool(upwards), folder)


def _features(module: Any) -> dict[str, Any]:
    """Column name to type; modules that accept several shapes list the plain one last, and take it unasked."""
    return dict(module.features[-1] if isinstance(module.features, list) else module.features)


def _inner(feature: Any) -> Any:
    """The type of what a list holds; None of a type that is no list."""
    return getattr(feature, "feature", None) or (feature[0] if isinstance(feature, list) else None)


def _is_plain(feature: Any) -> bool:
    """Tell whether a column of this type holds texts, numbers or labels, or lists of them."""
    from datasets import ClassLabel, Value

    inner = _inner(feature)
    return isinstance(feature, Value | ClassLabel) if inner is None else _is_plain(inner)


def _fitted(texts: list[str], feature: Any, columns: Columns, tags: Sequence[str]) -> list[Any]:
    """Labels or texts in the type that a foreign module asks for: text, a list with one text or with the ``tags`` in
    it, or label numbers."""
    inner = _inner(feature)
    if inner is not None:
        lists = [[text] if _inner(inner) else _listed(text, tags) for text in texts]
        return [_fitted(each, inner, columns, tags) for each in lists]
    if not str(feature.dtype).startswith(("int", "uint")):
        return texts
    labels = columns["labels"] or sorted(set(columns["reference"]))
    numbers = {label: number for number, label in enumerate(labels)}
    return [numbers.get(text, -1) for text in texts]


def _listed(text: str, tags: Sequence[str]) -> list[str]:
    """The words of a sentence of ``tags``; any other text stands alone, and so does what is one of them."""
    words = text.split()
    return words if words and text not in tags and set(words) <= set(tags) else [text]
