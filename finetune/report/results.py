"""From runs to `results.json`, the machine interface; DESIGN.md lists its keys."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

import numpy as np

from finetune import stats
from finetune.report.combined import combined_of
from finetune.report.reading import Run, Study, is_mean
from finetune.report.units import unit
from finetune.run_dir import BASE, FAILED, FORMAT

LEVEL = 0.95
"""Level of every interval in a report."""

BASE_REASON = "the untuned base model has no seed: one fixed score"


def results_of(study: Study) -> dict[str, Any]:
    """The content of results.json: every run, what each variant's runs amount to, and every pair held together."""
    tasks = [_task(task) for task in study.data.get("tasks", [])]
    variants = [_variant(study, name, runs, tasks) for name, runs in study.variants.items()]
    if study.base is not None:
        variants.append(_variant(study, BASE, [study.base], tasks))
    return {
        "format": FORMAT,
        "study": study.name,
        "digest": study.digest,
        "level": LEVEL,
        "seeds": study.seeds,
        "environment": study.environment,
        "tasks": tasks,
        "variants": variants,
        "comparisons": _comparisons(study, tasks),
    }


def _task(task: dict[str, Any]) -> dict[str, Any]:
    directions = {metric["name"]: metric["higher_is_better"] for metric in task["metrics"]}
    return {
        "name": task["name"],
        "split": task["split"],
        "metric": task["headline"],
        "higher_is_better": directions[task["headline"]],
        "examples": task["examples"],
        "metrics": task["metrics"],
        "majority": task.get("majority"),
    }


def _variant(study: Study, name: str, runs: list[Run], tasks: list[dict[str, Any]]) -> dict[str, Any]:
    # Where each seed has its own split, row i is another example in each run.
    comparable = [] if "split" in study.vary else tasks
    spreads = {key: spread for task in comparable for key, spread in _spreads(runs, task).items()}
    keys = [f"{task['name']}/{metric['name']}" for task in tasks for metric in task["metrics"]]
    ended = [run.result["status"] for run in runs if run.result["status"] != "interrupted"]
    failures = stats.failure_rate(sum(status in FAILED for status in ended), len(ended), LEVEL)
    estimates = {key: _estimate(name, runs, key, spreads.get(key)) for key in keys}
    stability = _stability(name, failures, estimates, spreads, tasks)
    return {
        "name": name,
        "strategy": "none" if name == BASE else study.resolved["variants"][name]["recipe"]["strategy"]["type"],
        "parameters": next((run.result["parameters"] for run in runs if run.result.get("parameters")), None),
        "runs": [_run(run) for run in runs],
        "combined": [combined_of(made, runs, comparable, LEVEL) for made in study.combined.get(name, [])],
        "estimates": estimates,
        "failures": asdict(failures),
        "stability": stability.verdict,
        "stability_reason": stability.reason,
    }


def _run(run: Run) -> dict[str, Any]:
    result = run.result
    return {
        "seed": run.seed,
        "status": result["status"],
        "reason": result.get("reason"),
        "seconds": result.get("seconds"),
        "peak_memory_bytes": result.get("peak_memory_bytes"),
        "scores": run.scores,
    }


def _estimate(variant: str, runs: list[Run], key: str, spread: stats.Spread | None) -> dict[str, Any]:
    found = stats.estimate([run.scores[key] for run in runs if key in run.scores], LEVEL)
    if variant == BASE and found.n:
        found = replace(found, reason=BASE_REASON, method="one score, no seeds")
    return {
        **asdict(found),
        "sd_floor": spread.sd_floor if spread else None,
        "sd_corrected": spread.sd_corrected if spread else None,
        "sd_corrected_clipped": spread.clipped if spread else False,
    }


def _spreads(runs: list[Run], task: dict[str, Any]) -> dict[str, stats.Spread]:
    """Spread by "task/metric", for metrics that are means of the stored per-example scores."""
    name = task["name"]
    scored = [run for run in runs if f"{name}/{task['metric']}" in run.scores]
    rows = [run.example_scores(name) for run in scored]
    stored = [row for row in rows if row is not None]
    if len(stored) < max(2, len(rows)) or len({row.shape for row in stored}) > 1:
        return {}
    matrix = np.stack(stored)
    keys = [f"{name}/{metric['name']}" for metric in task["metrics"]]
    return {key: stats.spread(matrix) for key in keys if is_mean(matrix, [run.scores.get(key) for run in scored])}


def _stability(
    name: str,
    failures: stats.FailureRate,
    estimates: dict[str, dict[str, Any]],
    spreads: dict[str, stats.Spread],
    tasks: list[dict[str, Any]],
) -> stats.Stability:
    """Stability on the first task's headline metric, by its corrected SD, or its plain SD where there is none."""
    if name == BASE:
        return stats.Stability("undecided", BASE_REASON)
    if not tasks:
        return stats.stability(failures.count, failures.n, None, None)
    metric = tasks[0]["metric"]
    key = f"{tasks[0]['name']}/{metric}"
    found = estimates[key]
    interval = spreads[key].corrected_interval(LEVEL) if key in spreads else None
    if interval is None and found["sd"] is not None:
        low, high = stats.sd_factors(found["n"], LEVEL)
        interval = (found["sd"] * low, found["sd"] * high)
    return stats.stability(failures.count, failures.n, interval, unit(metric).point)


def _comparisons(study: Study, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every pair of variants, and every variant with the base, on every task and metric.

    Holm's correction runs over two families: all pairs and tasks on headline metrics, from which the verdict is
    read, and all others, so that reporting more metrics does not blunt the headline.
    """
    rows = []
    for task in tasks:
        for metric in task["metrics"]:
            for left, right in _pairs(study):
                rows.append(_compare(study, task, metric, left, right))
    for family in ("headline", "other"):
        members = [row for row in rows if row[0]["family"] == family]
        adjusted = stats.holm([comparison.p_value for _, comparison in members])
        for (row, comparison), p_adjusted in zip(members, adjusted, strict=True):
            row["p_value_adjusted"] = p_adjusted
            row["verdict"] = stats.verdict(comparison, p_adjusted, row["higher_is_better"])
    return [row for row, _ in rows]


def _pairs(study: Study) -> list[tuple[str, str]]:
    base = [(name, BASE) for name in study.variants] if study.base is not None else []
    return [*combinations(study.variants, 2), *base]


def _compare(
    study: Study, task: dict[str, Any], metric: dict[str, Any], left: str, right: str
) -> tuple[dict[str, Any], stats.Comparison]:
    key, higher = f"{task['name']}/{metric['name']}", metric["higher_is_better"]
    lefts = _by_seed(study.variants[left], key)
    if right == BASE and study.base is not None:
        fixed = study.base.scores.get(key)
        missing = stats.Comparison(0, None, None, None, None, LEVEL, "none", "the base model has no such score")
        found = missing if fixed is None else stats.compare_to_constant(lefts, fixed, higher, LEVEL)
    else:
        found = stats.compare(lefts, _by_seed(study.variants[right], key), higher, LEVEL)
    identity = {"task": task["name"], "metric": metric["name"], "left": left, "right": right}
    family = "headline" if metric["name"] == task["metric"] else "other"
    return {**identity, **asdict(found), "higher_is_better": higher, "family": family}, found


def _by_seed(runs: list[Run], key: str) -> dict[int, float]:
    return {run.seed: run.scores[key] for run in runs if run.seed is not None and key in run.scores}
