"""Forgetting: whether a tuned model can still do what the untuned one could.

That no loss was found does not show that there is none. So the question is turned round, as in a trial for
non-inferiority: a variant has kept what was there where its whole interval lies above the largest loss that is
acceptable, the margin (Piaggio et al. 2012, "Reporting of noninferiority and equivalence randomized trials", JAMA 308,
figure 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from finetune.core.run_dir import BASE
from finetune.results.schema import EvaluationSet, ForgettingResult, PairResult


def forgetting_of(
    variants: Iterable[str], tasks: Sequence[EvaluationSet], comparisons: Sequence[PairResult]
) -> list[ForgettingResult]:
    """Judge each variant on each set of role `forgetting`, by its comparison with the untuned model."""
    pairs = {(pair.left, pair.task, pair.metric): pair for pair in comparisons if pair.right == BASE}
    names = list(variants)
    return [
        _judged(name, task, pairs.get((name, task.name, task.metric)))
        for task in tasks
        if task.role == "forgetting" and task.margin is not None
        for name in names
    ]


def _judged(variant: str, task: EvaluationSet, pair: PairResult | None) -> ForgettingResult:
    margin = task.margin or 0.0
    if pair is None or pair.difference is None:
        reason = "the untuned model has no score here" if pair is None else pair.reason
        return ForgettingResult(variant, task.name, task.metric, None, None, margin, "undecided", reason)
    change, ci = task.sign * pair.difference, None
    if pair.ci is not None:
        low, high = sorted(task.sign * end for end in pair.ci)
        ci = (low, high)
        verdict: Literal["kept", "lost", "undecided"] = (
            "kept" if low > -margin else "lost" if high < -margin else "undecided"
        )
        return ForgettingResult(variant, task.name, task.metric, change, ci, margin, verdict)
    return ForgettingResult(variant, task.name, task.metric, change, None, margin, "undecided", pair.reason)
