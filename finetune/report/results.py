"""From runs to `results.json`, the machine interface; DESIGN.md lists its keys."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from finetune import stats
from finetune.core.run_dir import BASE, FAILED, FORMAT
from finetune.report.measured import BASE_REASON, SOLVED_REASON, Measured, decide, measure
from finetune.report.reading import Run, Study
from finetune.report.sections.across import across_of
from finetune.report.sections.combined import combined_of
from finetune.report.units import unit

LEVEL = 0.95
"""Level of every interval in a report."""


def results_of(study: Study) -> dict[str, Any]:
    """The content of results.json: every run, what each variant's runs amount to, and every pair held together."""
    tasks = [_task(task) for task in study.data.get("tasks", [])]
    measured = {task["name"]: measure(study, task, LEVEL) for task in tasks}
    return {
        "format": FORMAT,
        "study": study.name,
        "digest": study.digest,
        "level": LEVEL,
        "seeds": study.seeds,
        "until": study.until,
        "crossed": "crossed" in study.resolved,
        "baseline": study.baseline,
        "environment": study.environment,
        "tasks": tasks,
        "variants": [_variant(study, name, runs, tasks, measured) for name, runs in study.everything.items()],
        "comparisons": decide([row for found in measured.values() for row in found.comparisons]),
        "across": across_of(study, tasks, np.random.default_rng(list(study.digest.encode())), LEVEL),
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


def _variant(
    study: Study, name: str, runs: list[Run], tasks: list[dict[str, Any]], measured: dict[str, Measured]
) -> dict[str, Any]:
    ended = [run.result["status"] for run in runs if run.result["status"] != "interrupted"]
    failures = stats.failure_rate(sum(status in FAILED for status in ended), len(ended), LEVEL)
    estimates = {key: found for task in measured.values() for key, found in task.estimates[name].items()}
    stability = _stability(name, failures, estimates, tasks)
    comparable = [] if "split" in study.vary else tasks
    return {
        "name": name,
        "strategy": "none" if name == BASE else study.resolved["variants"][name]["recipe"]["strategy"]["type"],
        "parameters": next((run.result["parameters"] for run in runs if run.result.get("parameters")), None),
        "new": next((run.result["new"] for run in runs if run.result.get("new")), []),
        "pooling": next((run.result["pooling"] for run in runs if run.result.get("pooling")), None),
        "runs": [_run(run) for run in runs],
        "combined": [combined_of(made, runs, comparable, LEVEL) for made in study.combined.get(name, [])],
        "estimates": estimates,
        "agreement": {task: found.agreement[name] for task, found in measured.items() if name in found.agreement},
        "calibration": {task: found.calibration[name] for task, found in measured.items() if name in found.calibration},
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


def _stability(
    name: str, failures: stats.FailureRate, estimates: dict[str, dict[str, Any]], tasks: list[dict[str, Any]]
) -> stats.Stability:
    """Stability on the first task's headline metric, by its corrected SD, or its plain SD where there is none."""
    if name == BASE:
        return stats.Stability("undecided", BASE_REASON)
    if not tasks:
        return stats.stability(failures.count, failures.n, None, None)
    metric = tasks[0]["metric"]
    found = estimates[f"{tasks[0]['name']}/{metric}"]
    if found["reason"] == SOLVED_REASON:
        return stats.Stability("undecided", SOLVED_REASON)
    return stats.stability(failures.count, failures.n, found["sd_corrected_ci"] or found["sd_ci"], unit(metric).point)
