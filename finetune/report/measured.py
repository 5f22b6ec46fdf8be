"""What the runs came to on one held-out task: each variant's estimates, and every pair of variants held together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from finetune import stats
from finetune.core.run_dir import BASE
from finetune.report.reading import Study
from finetune.report.sections.agreement import agreement_of
from finetune.report.sections.calibration import calibration_of
from finetune.report.sides import distinct, side_of

Results = dict[str, Any]

BASE_REASON = "the untuned base model has no seed: one fixed score"

SOLVED_METHOD = "one fit for all seeds"

SOLVED_REASON = (
    "solved, not trained in steps: a seed changes nothing, so the spread is zero by construction, not tested"
)


@dataclass(frozen=True)
class Measured:
    """One task's part of results.json."""

    estimates: dict[str, dict[str, Results]]
    """By variant, then by "task/metric"."""
    agreement: dict[str, Results]
    """By variant; those without it are not in it."""
    calibration: dict[str, Results]
    comparisons: list[tuple[Results, stats.Comparison]]
    """Rows that still lack what only all comparisons together can decide, and what was found."""


def measure(study: Study, task: Results, level: float) -> Measured:
    """Everything on one task, whose predictions are read once and then let go."""
    # One model, stored for each seed, is one: agreeing with itself says nothing.
    every = {name: distinct(runs) for name, runs in study.everything.items()}
    # Where each seed has its own split, row i is another example in each run.
    same_rows = "split" not in study.vary
    groups = study.groups(task["name"]) if same_rows else None
    rng = np.random.default_rng(list(f"{study.digest} {task['name']}".encode()))
    sides = {
        (name, metric["name"]): side_of(runs, task["name"], metric["name"], same_rows)
        for metric in task["metrics"]
        for name, runs in every.items()
    }
    estimates: dict[str, dict[str, Results]] = {
        name: {
            f"{task['name']}/{metric['name']}": _estimate(
                study, name, sides[name, metric["name"]], metric, groups, level
            )
            for metric in task["metrics"]
        }
        for name in every
    }
    alike = {name: agreement_of(runs, task, level, groups) for name, runs in every.items() if same_rows}
    sure = {name: calibration_of(runs, task["name"], rng, level) for name, runs in every.items()}
    rows = [
        _compare(task, metric, pair, sides, rng, groups, level) for metric in task["metrics"] for pair in _pairs(study)
    ]
    return Measured(estimates, _known(alike), _known(sure), rows)


def _known(by_variant: dict[str, Results | None]) -> dict[str, Results]:
    return {name: found for name, found in by_variant.items() if found is not None}


def _pairs(study: Study) -> Iterator[tuple[str, str]]:
    """All pairs of variants, or the others with the baseline; and each with the untuned base model."""
    if study.baseline is None:
        yield from combinations(study.variants, 2)
    else:
        yield from ((name, study.baseline) for name in study.variants if name != study.baseline)
    if study.base is not None:
        yield from ((name, BASE) for name in study.variants)


def _estimate(study: Study, variant: str, side: stats.Side, metric: Results, groups: Any, level: float) -> Results:
    """A score over seeds: by the confidence sequence where the scores decided how many seeds there are."""
    if study.until is not None and side.seeds is not None:
        found = stats.sequential_estimate(side.scores, level)
    else:
        found = stats.estimate(side.scores, level)
    if variant == BASE and found.n:
        found = replace(found, reason=BASE_REASON, method="one score, no seeds")
    elif side.seeds is None and found.n:
        found = replace(found, reason=SOLVED_REASON, method=SOLVED_METHOD)
    spread = None if side.contributions is None else stats.spread(side.contributions, groups, level)
    return {
        **asdict(found),
        "sd_floor": spread.sd_floor if spread else None,
        "sd_corrected": spread.sd_corrected if spread else None,
        "sd_corrected_ci": spread.sd_corrected_ci if spread else None,
        "sd_corrected_clipped": spread.clipped if spread else False,
        "expected_best": stats.expected_best(side.scores, metric["higher_is_better"]).tolist(),
    }


def _compare(
    task: Results,
    metric: Results,
    pair: tuple[str, str],
    sides: dict[tuple[str, str], stats.Side],
    rng: np.random.Generator,
    groups: Any,
    level: float,
) -> tuple[Results, stats.Comparison]:
    left, right = pair
    name, higher = metric["name"], metric["higher_is_better"]
    other = sides[right, name]
    if right == BASE and not len(other):
        found = stats.Comparison(0, level, "none", reason="the base model has no such score")
    else:
        found = stats.compare(sides[left, name], other, rng, groups, higher, level)
    identity = {"task": task["name"], "metric": name, "left": left, "right": right}
    family = "headline" if name == task["metric"] else "other"
    return {**identity, **asdict(found), "higher_is_better": higher, "family": family}, found


def decide(rows: list[tuple[Results, stats.Comparison]]) -> list[Results]:
    """Adjust the p-values of all tasks' comparisons together, and read the verdicts.

    Holm's correction runs over two families: all pairs and tasks on headline metrics, from which the verdict is
    read, and all others, so that reporting more metrics does not blunt the headline. The tests of spread are two
    more.
    """
    for family in ("headline", "other"):
        members = [row for row in rows if row[0]["family"] == family]
        adjusted = stats.holm([comparison.p_value for _, comparison in members])
        spreads = stats.holm([comparison.p_spread for _, comparison in members])
        for (row, comparison), p_adjusted, p_spread in zip(members, adjusted, spreads, strict=True):
            row["p_value_adjusted"] = p_adjusted
            row["verdict"] = stats.verdict(comparison, p_adjusted, row["higher_is_better"])
            row["p_spread_adjusted"] = p_spread
            row["spread_verdict"] = stats.spread_verdict(comparison.sd_ratio_ci, p_spread, comparison.level)
    return [row for row, _ in rows]
