"""Which of a variant's runs to take away: the best by validation, and what that choice is worth on the test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune import stats
from finetune.metrics import find
from finetune.results.reading import Run
from finetune.results.schema import ChoiceResult, EvaluationSet, Worth


def higher_is_better(metric: str) -> bool:
    """Tell which way a validation metric goes; a loss is better where it is lower."""
    known = find(metric)
    return metric != "loss" if known is None else known.higher_is_better


def validated(run: Run, metric: str) -> float | None:
    """Read the score on the validation split of the weights that a finished run has kept; None: it has none."""
    if run.result["status"] != "finished":
        return None
    rows = [row for row in run.metrics if row["kind"] == "evaluation" and row["scores"].get(metric) is not None]
    if not rows:
        return None
    best = (run.result.get("training") or {}).get("best_step")
    kept: dict[str, Any] = next((row for row in rows if row["step"] == best), rows[-1])
    return float(kept["scores"][metric])


def solved(run: Run) -> bool:
    """Tell whether what it learnt was solved for, so that other seeds have found the same."""
    return "solved" in (run.result.get("training") or {})


def best_of(scores: dict[int, float], higher: bool) -> int | None:
    """Find the seed with the best of ``scores``, in a tie the first; None: there are none."""
    ordered = sorted(scores.items(), key=lambda each: (-each[1] if higher else each[1], each[0]))
    return ordered[0][0] if ordered else None


def choice_of(runs: Sequence[Run], metric: str, tasks: Sequence[EvaluationSet]) -> ChoiceResult | None:
    """Describe what choosing a run by its validation ``metric`` is worth; None where fewer than two have been
    validated."""
    known = {run.seed: score for run in runs if run.seed is not None and (score := validated(run, metric)) is not None}
    if len(known) < 2:
        return None
    higher = higher_is_better(metric)
    seed = best_of(known, higher)
    assert seed is not None
    worth: dict[str, Worth] = {}
    for task in tasks:
        scored = {run.seed: run.scores.get(task.key) for run in runs if run.seed in known}
        if None in scored.values():
            continue
        pairs = [(known[each], score) for each, score in scored.items() if each is not None and score is not None]
        validation, test = np.array(pairs, dtype=float).T
        chosen = stats.expected_chosen(validation, test, higher)
        best = stats.expected_best(test, task.higher_is_better)
        worth[task.key] = Worth(
            mean=float(test.mean()),
            chosen=float(scored[seed] or 0.0),
            expected_chosen=float(chosen[-1]),
            expected_best=float(best[-1]),
        )
    return ChoiceResult(metric=metric, seeds=len(known), seed=seed, worth=worth)
