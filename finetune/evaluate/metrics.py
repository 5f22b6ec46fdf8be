"""Metrics by name: what each measures and which way is up. Light to import: `metric_modules.py` does the sums."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from finetune.core.errors import FinetuneError, InputError, bad_input, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from finetune.evaluate.store import Predictions

Unit = Literal["fraction", "coefficient", "points", "nats", "unknown"]
"""`fraction`: 0 to 1; `coefficient`: -1 to 1; `points`: 0 to 100; `nats`: from 0 up."""

HUB = "hub:"

LOWER_IS_BETTER = frozenset(
    ("brier_score", "cer", "charcut_mt", "mae", "mape", "mase", "mse", "perplexity", "smape", "ter", "toxicity", "wer")
)
"""Metrics of the `evaluate` hub where less is better; a local script says so with `higher_is_better = False`."""


@dataclass(frozen=True)
class Metric:
    """One number for the predictions of one run on one held-out task."""

    name: str
    description: str
    higher_is_better: bool
    unit: Unit
    needs: Literal["labels", "text", "loss", "margin"]
    """Which columns of the prediction store it reads."""

    def compute(self, predictions: Predictions) -> float:
        """The score, in the metric's unit. Raises ValueError without rows, or without the columns it needs."""
        from finetune.evaluate.metric_modules import MODULES

        module = MODULES[self.name]()
        columns = {name: _column(self.name, predictions, name) for name in module.columns}
        return float(module.compute(**columns)[self.name])


OWN = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "share of right labels", True, "fraction", "labels"),
        Metric("macro_f1", "mean F1 of the labels that occur in the references", True, "fraction", "labels"),
        Metric("mcc", "Matthews correlation; 0 when only one label occurs", True, "coefficient", "labels"),
        Metric("nll", "negative log-likelihood of the reference, a mean over examples", False, "nats", "loss"),
        Metric("rouge_l", "longest common word subsequence, F-measure, a mean over examples", True, "fraction", "text"),
        Metric("chrf", "character n-gram F-score of all examples together", True, "points", "text"),
        Metric("exact_match", "share of texts equal to the reference", True, "fraction", "text"),
        Metric("loss", "negative log-likelihood of the answers, a mean over tokens", False, "nats", "loss"),
        Metric("preference_accuracy", "share of chosen answers likelier than the rejected", True, "fraction", "margin"),
    )
}
"""The metrics that need no download."""

NAMES: tuple[str, ...] = tuple(OWN)


@dataclass(frozen=True)
class HubMetric(Metric):
    """A metric of `evaluate.load`. The score is the first number in what it returns."""

    module: Any
    """The loaded `evaluate.EvaluationModule`."""
    folder: TemporaryDirectory
    """Where the module may keep files; it goes when this object does."""

    def compute(self, predictions: Predictions) -> float:
        """The score. Raises FinetuneError when the module fails on these predictions, or returns no number."""
        features = _features(self.module)
        columns = {
            name: _fitted(_column(self.name, predictions, name), features[name], predictions) for name in features
        }
        try:
            result = self.module.compute(**columns)
        except Exception as error:  # foreign code: anything can come out of it
            self.module.writer = None  # else the rows it choked on would be counted the next time
            raise FinetuneError(f"{self.name} failed on the predictions: {error}") from error
        for value in result.values():
            if isinstance(value, float | int) or getattr(value, "ndim", None) == 0:
                return float(value)
        raise FinetuneError(f"{self.name} returned no number, but: {result}")


def check(name: str, at: str = "task.metrics") -> None:
    """Raise an :class:`InputError` at recipe path ``at`` for a name that cannot be a metric. Loads nothing."""
    if name.startswith(HUB) and name != HUB:
        return
    if name not in OWN:
        advice = did_you_mean(name, (*NAMES, HUB + "NAME"))
        raise bad_input(at, f"there is no metric called '{name}'", advice)


def load(name: str, at: str = "task.metrics") -> Metric:
    """The metric called ``name``; an :class:`InputError` at recipe path ``at`` when there is none.

    ``hub:NAME`` is fetched and imported here, once in a process: so load metrics before training, not after it.
    """
    check(name, at)
    if not name.startswith(HUB):
        return OWN[name]
    try:
        return _from_hub(name)
    except InputError as error:
        raise InputError(replace(problem, path=at) for problem in error.problems) from error


def scores_of(name: str, prediction: list[str], reference: list[str]) -> np.ndarray:
    """(n,) float64: the per-example scores whose mean is the metric ``name``: accuracy, exact_match or rouge_l."""
    from finetune.evaluate.metric_modules import PER_EXAMPLE

    return PER_EXAMPLE[name](prediction, reference)


@cache
def _from_hub(name: str) -> HubMetric:
    import evaluate

    source = name.removeprefix(HUB)
    folder = TemporaryDirectory(prefix="finetune-metric-")
    try:
        module = evaluate.load(source, keep_in_memory=True, cache_dir=folder.name)
    except Exception as error:  # network, hub, missing packages, or a mistake inside a foreign script
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = f"check the name and the network, or use one that needs none: {', '.join(NAMES)}"
        raise bad_input(None, f"{name} cannot be loaded: {reason}", advice) from error
    unknown = sorted(set(_features(module)) - {"predictions", "references"})
    if unknown:
        raise bad_input(None, f"{name} wants columns that no task here has: {', '.join(unknown)}", "use another metric")
    upwards = getattr(module, "higher_is_better", source.rstrip("/").rpartition("/")[2] not in LOWER_IS_BETTER)
    return HubMetric(name, module.description.strip().partition("\n")[0], upwards, "unknown", "text", module, folder)


def _features(module: Any) -> dict[str, Any]:
    """Column name to type; modules that accept several shapes list the plain one last, and take it unasked."""
    return dict(module.features[-1] if isinstance(module.features, list) else module.features)


def _column(metric: str, predictions: Predictions, column: str) -> Any:
    """The column of the store that `evaluate` calls ``column``."""
    values = getattr(predictions, column.removesuffix("s") if column in ("predictions", "references") else column)
    if values is None or not len(values):
        raise ValueError(f"{metric} needs the column '{column}' of at least one prediction")
    return values


def _fitted(texts: list[str], feature: Any, predictions: Predictions) -> list[Any]:
    """Labels or texts in the type that a foreign module asks for: text, a list with one text, or label numbers."""
    inner = getattr(feature, "feature", None) or (feature[0] if isinstance(feature, list) else None)
    if inner is not None:
        return [[value] for value in _fitted(texts, inner, predictions)]
    if not str(feature.dtype).startswith(("int", "uint")):
        return texts
    numbers = {label: number for number, label in enumerate(predictions.labels or sorted(set(predictions.reference)))}
    return [numbers.get(text, -1) for text in texts]
