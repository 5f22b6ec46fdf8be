"""The computations behind our own metrics, as `evaluate.Metric` subclasses that need no download and leave no file.

Importing this module imports `evaluate`, and with it torch; `metrics.py` does so when a metric is computed, not before.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, Value


def right(predictions: list[str], references: list[str]) -> np.ndarray:
    """(n,) 1.0 where prediction and reference are the same, letter by letter."""
    return np.array([float(p == r) for p, r in zip(predictions, references, strict=True)])


def exact(predictions: list[str], references: list[str]) -> np.ndarray:
    """(n,) 1.0 where they are the same but for white space around them; upper and lower case differ."""
    return right([p.strip() for p in predictions], [r.strip() for r in references])


def rouge_l_f(predictions: list[str], references: list[str]) -> np.ndarray:
    """(n,) F-measure of the longest common subsequence of words, in [0, 1] (Lin 2004, section 3), without a stemmer.

    Words are runs of a-z and 0-9 after lower-casing: a text without any has the score 0, even against itself.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return np.array([scorer.score(r, p)["rougeL"].fmeasure for p, r in zip(predictions, references, strict=True)])


PER_EXAMPLE = {"accuracy": right, "exact_match": exact, "rouge_l": rouge_l_f}
"""Metrics that are the mean of one score per example."""


class Module(evaluate.Metric):
    """A metric over strings ``predictions`` and ``references`` that keeps its table in memory."""

    columns: ClassVar[dict[str, str]] = {"predictions": "string", "references": "string"}

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""  # the parent's makes a folder below the home directory, which a table in memory has no use for

    def _info(self) -> evaluate.MetricInfo:
        features = Features({name: Value(kind) for name, kind in self.columns.items()})
        return evaluate.MetricInfo(description=inspect.getdoc(type(self)) or "", citation="", features=features)


class Accuracy(Module):
    """Share of examples whose predicted label is the reference."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return {"accuracy": right(predictions, references).mean()}


class MacroF1(Module):
    """Mean of the per-label F1 over the labels that occur in the references.

    A label that is predicted but never a reference is not a class of its own (it costs recall, not another 0 in the
    mean): so the mean is over the same labels in every run, whatever a run predicts. A label that is never
    predicted has an F1 of 0.
    """

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        from sklearn.metrics import f1_score

        labels = sorted(set(references))
        return {"macro_f1": f1_score(references, predictions, labels=labels, average="macro", zero_division=0)}


class MCC(Module):
    """Matthews correlation coefficient for any number of labels, in [-1, 1] (Gorodkin 2004).

    Undefined when all predictions, or all references, are one label; 0 then, by convention: no correlation.
    """

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        from sklearn.metrics import matthews_corrcoef

        if len(set(predictions)) == 1 or len(set(references)) == 1:
            return {"mcc": 0.0}
        return {"mcc": matthews_corrcoef(references, predictions)}


class ExactMatch(Module):
    """Share of examples whose text is the reference, white space around it aside."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return {"exact_match": exact(predictions, references).mean()}


class RougeL(Module):
    """Mean ROUGE-L F-measure of the examples."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return {"rouge_l": rouge_l_f(predictions, references).mean()}


class ChrF(Module):
    """Corpus chrF, 0 to 100 (Popović 2015): F2 over character 1- to 6-grams, counted over all examples together."""

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        from sacrebleu.metrics import CHRF

        return {"chrf": CHRF().corpus_score(predictions, [references]).score}


class NLL(Module):
    """Mean over examples of the negative log-likelihood of the reference, in nats."""

    columns: ClassVar[dict[str, str]] = {"loss": "float64"}

    def _compute(self, loss: list[float]) -> dict[str, Any]:
        return {"nll": np.mean(loss)}


class Loss(Module):
    """Mean over label tokens, of all examples together, of the negative log-likelihood, in nats."""

    columns: ClassVar[dict[str, str]] = {"loss": "float64", "weight": "float64"}

    def _compute(self, loss: list[float], weight: list[float]) -> dict[str, Any]:
        return {"loss": np.sum(loss) / np.sum(weight)}


class PreferenceAccuracy(Module):
    """Share of pairs whose chosen answer has a higher log-likelihood, summed over its tokens, than the rejected one.

    Of the model alone, without a reference model: so the untuned base model has one too. As sums, they favour shorter
    answers, in every model alike.
    """

    columns: ClassVar[dict[str, str]] = {"margin": "float64"}

    def _compute(self, margin: list[float]) -> dict[str, Any]:
        return {"preference_accuracy": (np.array(margin) > 0).mean()}


MODULES: dict[str, type[Module]] = {
    "accuracy": Accuracy,
    "macro_f1": MacroF1,
    "mcc": MCC,
    "exact_match": ExactMatch,
    "rouge_l": RougeL,
    "chrf": ChrF,
    "nll": NLL,
    "loss": Loss,
    "preference_accuracy": PreferenceAccuracy,
}
