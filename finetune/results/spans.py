"""Answers that are parts of a text: how far off they are where there is none, and by how long the right one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune import stats
from finetune.core.answers import spans_in
from finetune.results.mistakes import Answers

LENGTHS = (("1 word", 1, 1), ("2 words", 2, 2), ("3 to 5 words", 3, 5), ("6 words and more", 6, None))
"""Names of lengths, and their bounds."""


@dataclass(frozen=True)
class KindError:
    """How far off a variant's answers are to questions of one kind: 1 less their score, mean over runs and examples."""

    error: float
    interval: tuple[float, float] | None
    """At 95 %, over new seeds and new examples; None where it is not known."""


def kinds_of(references: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Find which of the examples, (examples,), are of each kind, by their right answers; kinds without any are left
    out. Of several right answers the first says how long they are."""
    answers = [spans_in(reference) for reference in references]
    words = np.array([len(each[0].split()) if each else 0 for each in answers], dtype=np.int64)
    found = {"no answer": words == 0, "an answer": words > 0}
    for name, least, most in LENGTHS:
        found[name] = (words >= least) & ((words <= most) if most else True)
    return {name: own for name, own in found.items() if own.any()}


def error_of(answers: Answers, own: NDArray[np.bool_]) -> KindError:
    """Compute the error of a variant on those of the examples."""
    scores = np.stack([table["score"].to_numpy()[own] for table in answers.stored])
    clusters = None if answers.clusters is None else answers.clusters[own]
    return KindError(1 - float(scores.mean()), stats.interval_of_mean(1 - scores, 0.95, clusters, stats.SHARE))


def references_of(answers: Answers) -> list[str]:
    """List the right answers of each example, as the store has them."""
    found: list[str] = answers.stored[0]["reference"].to_pylist()
    return found
