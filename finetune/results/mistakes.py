"""Mistakes: which labels are taken for which, and the examples that most seeds of most variants fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune import stats
from finetune.results.reading import TEXTS, Run, Study
from finetune.results.schema import EvaluationSet, Results

MOST_EXAMPLES = 20
"""Examples listed for one set."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of how often a variant takes each of k labels for each, mean over its runs."""

    variant: str
    labels: tuple[str, ...]
    counts: NDArray[np.float64]
    """(k, k) examples: rows are the true labels, columns the predicted ones."""
    true: NDArray[np.int64] | None
    """(examples,) places of the true labels; None where runs were scored on different examples."""
    said: NDArray[np.int64] | None
    """(runs, examples) places of the predicted ones."""
    clusters: NDArray[np.int64] | None = None
    """(examples,) numbers of the clusters of examples that belong together; None where each stands for itself."""

    @property
    def support(self) -> NDArray[np.float64]:
        """Count the examples of each label, (k,)."""
        return self.counts.sum(axis=1)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Compute the share of each label's examples that is given each label, (k, k); 0 where a label has none."""
        return self.counts / np.maximum(self.support, 1e-12)[:, None]

    def interval(self, true: int, said: int, level: float = 0.95) -> tuple[float, float] | None:
        """Compute the interval of one of the shares, over new seeds and new examples; None where it is not known."""
        if self.true is None or self.said is None or not (self.true == true).any():
            return None
        own = self.true == true
        clusters = None if self.clusters is None else self.clusters[own]
        return stats.interval_of_mean((self.said[:, own] == said).astype(float), level, clusters, stats.SHARE)


def confusion(
    variant: str,
    labels: tuple[str, ...],
    runs: Sequence[tuple[pa.DictionaryArray, pa.DictionaryArray]],
    clusters: NDArray[np.int64] | None = None,
) -> Confusion:
    """Count, as the mean over ``runs``, each the true and the predicted label of every example."""
    index, size = {label: place for place, label in enumerate(labels)}, len(labels)
    total = np.zeros(size * size)
    coded = [(_codes(true, index), _codes(said, index)) for true, said in runs]
    for true, said in coded:
        known = (true >= 0) & (said >= 0)
        total += np.bincount(true[known] * size + said[known], minlength=size * size)
    counts = total.reshape(size, size) / max(len(runs), 1)
    if not coded or any(len(true) != len(coded[0][0]) or (true != coded[0][0]).any() for true, _ in coded):
        return Confusion(variant, labels, counts, None, None)
    return Confusion(variant, labels, counts, coded[0][0], np.stack([said for _, said in coded]), clusters)


def _codes(column: pa.DictionaryArray, index: dict[str, int]) -> NDArray[np.int64]:
    """Find the place of each text in ``index``, (n,); -1: none."""
    places = np.array([index.get(text, -1) for text in column.dictionary.to_pylist()], dtype=np.int64)
    return places[column.indices.to_numpy()]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a variant's runs to the n examples of an evaluation set, in order of their numbers."""

    variant: str
    stored: list[pa.Table]
    """Each run's prediction store; `prediction` and `reference` are dictionaries."""
    answer: str | None
    """What the task answers; older studies do not say, and there it is `label` or `text`."""
    labels: tuple[str, ...]
    """The classes that answers are of; empty where they are not one of several."""
    clusters: NDArray[np.int64] | None = None
    """(examples,) which of them belong together; None where each stands for itself."""

    @property
    def score(self) -> NDArray[np.float64]:
        """Average the examples' own scores over runs, (n,): for labels, the share of runs that are right."""
        return np.mean([table["score"].to_numpy() for table in self.stored], axis=0)

    @property
    def confusion(self) -> Confusion:
        """Count which labels are taken for which, in a classification."""
        pairs = [tuple(table[name].combine_chunks() for name in TEXTS) for table in self.stored]
        return confusion(self.variant, self.labels, [(true, said) for said, true in pairs], self.clusters)

    def said(self, row: int) -> list[str]:
        """List what each run answered to the example in ``row``."""
        return [table["prediction"][row].as_py() for table in self.stored]


def answers_of(study: Study, results: Results, task: EvaluationSet) -> list[Answers]:
    """Read what each variant answered, the one with the best mean score first.

    Failed runs that were scored are in it. Runs that scored other rows than the first one's are not, unless each seed
    has a split of its own.
    """
    means = {each.name: each.estimates[task.key].mean for each in results.variants}
    found: list[Answers] = []
    clusters = None if study.own_rows(task.name) else study.clusters(task.name)
    for name, runs in study.variants.items():
        stored = [table for run in runs if (table := _stored(run, task.name)) is not None]
        if stored and "split" not in study.vary:
            rows = (found[0].stored if found else stored)[0]["example"]
            stored = [table for table in stored if table["example"].equals(rows)]
        if stored:
            labels = json.loads((stored[0].schema.metadata or {}).get(b"labels", b"[]"))
            answer = study.facts(task.name).get("answer", "label" if labels else "text")
            found.append(Answers(name, stored, answer, tuple(labels) if answer == "label" else (), clusters))

    def rank(each: Answers) -> float:
        mean = means[each.variant]
        return float("inf") if mean is None else -task.sign * mean

    return sorted(found, key=rank)


def _stored(run: Run, task: str) -> pa.Table | None:
    """Read a run's predictions; None without a score for every example, as where a model has diverged."""
    table = run.predictions(task, ["score", *TEXTS], TEXTS)
    return table if table is not None and len(table) and np.isfinite(table["score"].to_numpy()).all() else None


def hardest(means: NDArray[np.float64], right_or_wrong: bool) -> NDArray[np.int64]:
    """Find the examples with the lowest mean over variants, the worst first, at most :data:`MOST_EXAMPLES`, as rows.

    ``means`` (variants, examples) over runs; more is better. Where an answer is ``right_or_wrong``, only of examples
    that more than half of the variants get wrong in more than half of their runs.
    """
    order = np.argsort(means.mean(axis=0), kind="stable")
    if right_or_wrong:
        order = order[((means < 0.5).sum(axis=0) > len(means) / 2)[order]]
    return order[:MOST_EXAMPLES]
