"""From runs to what `results.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune import stats
from finetune.core.run_dir import BASE, RESULTS_FORMAT
from finetune.results.across import across_of
from finetune.results.choosing import choice_of
from finetune.results.combined import combined_of
from finetune.results.forgetting import forgetting_of
from finetune.results.measure import BASE_REASON, CHEAP_REASON, SOLVED_REASON, Measured, failures_of, measure
from finetune.results.reading import Run, Study
from finetune.results.schema import (
    Direction,
    EvaluationSet,
    ExportResult,
    Parameters,
    PoolingResult,
    Results,
    RunResult,
    ScoreEstimate,
    TrainingData,
    VariantResult,
)

LEVEL = 0.95
"""Level of every interval in a report."""


def results_of(study: Study) -> Results:
    """Compute every run's scores, what each variant's runs amount to, and every pair held together."""
    splits = study.data.get("splits", {})
    cut = {name: split.get("facts", {}).get("cut") for name, split in splits.items()}
    tasks = [evaluation_set(task, cut.get(task["name"])) for task in study.data.get("tasks", [])]
    measured = {task.name: measure(study, task, LEVEL) for task in tasks}
    comparisons = [pair for found in measured.values() for pair in found.comparisons]
    variants = [_variant(study, name, runs, tasks, measured) for name, runs in study.everything.items()]
    return Results(
        format=RESULTS_FORMAT,
        study=study.name,
        digest=study.digest,
        level=LEVEL,
        seeds=study.seeds,
        until=study.until,
        vary=study.vary,
        training=_training(study),
        crossed="crossed" in study.resolved,
        baseline=study.baseline,
        environment=study.environment,
        tasks=tasks,
        variants=[variant for variant in variants if variant.name not in study.baselines],
        baselines=[variant for variant in variants if variant.name in study.baselines],
        comparisons=comparisons,
        across=across_of(study, tasks, np.random.default_rng(list(study.digest.encode())), LEVEL),
        forgetting=forgetting_of(study.variants, tasks, comparisons),
    )


def _training(study: Study) -> TrainingData | None:
    split = study.data.get("splits", {}).get("train")
    if split is None:
        return None
    cut = split.get("facts", {}).get("cut")
    return TrainingData(split["examples"], cut, "split" in study.vary, study.data.get("distinct"))


def evaluation_set(facts: Mapping[str, Any], cut: int | None = None) -> EvaluationSet:
    """The evaluation set that an entry of `data.json` describes, ``cut`` of whose texts were cut."""
    metrics = [Direction(metric["name"], metric["higher_is_better"]) for metric in facts["metrics"]]
    return EvaluationSet(
        name=facts["name"],
        split=facts["split"],
        metric=facts["headline"],
        higher_is_better=next(metric.higher_is_better for metric in metrics if metric.name == facts["headline"]),
        examples=facts["examples"],
        metrics=metrics,
        majority=facts.get("majority"),
        role=facts.get("role") or ("in-domain" if facts["split"] == "test" else "shifted"),
        margin=facts.get("margin"),
        cut=cut,
    )


def _variant(
    study: Study, name: str, runs: list[Run], tasks: list[EvaluationSet], measured: Mapping[str, Measured]
) -> VariantResult:
    failures = failures_of(runs, LEVEL)
    estimates = {key: found for task in measured.values() for key, found in task.estimates[name].items()}
    stability = _stability(name, failures, estimates, tasks)
    recipe = study.resolved["variants"][name]["recipe"] if name in study.variants else {}
    train = recipe.get("train", {})
    solved = "solved" in (_first(runs, "training") or {"solved": True})
    made = study.combined.get(name, [])
    comparable = tasks if made and "split" not in study.vary else []
    clusters = {task.name: study.clusters(task.name) for task in comparable}
    parameters, pooling = _first(runs, "parameters"), _first(runs, "pooling")
    return VariantResult(
        name=name,
        strategy=recipe["strategy"]["type"] if recipe else "none",
        parameters=None if parameters is None else Parameters(parameters["total"], parameters["trainable"]),
        new=_first(runs, "new") or [],
        pooling=None if pooling is None else PoolingResult(**pooling),
        runs=[_run(run) for run in runs],
        combined=[combined_of(each, runs, comparable, clusters, LEVEL) for each in made],
        estimates=estimates,
        agreement={task: found.agreement[name] for task, found in measured.items() if name in found.agreement},
        calibration={task: found.calibration[name] for task, found in measured.items() if name in found.calibration},
        failures=failures,
        stability=stability.verdict,
        stability_reason=stability.reason,
        learning_rate=None if solved else train.get("learning_rate"),
        chosen_by=train.get("chosen_by"),
        exports=[ExportResult(**each) for each in study.exports.get(name, [])],
        choice=choice_of(runs, train.get("select", "loss"), [] if "split" in study.vary else tasks),
    )


def _first(runs: Sequence[Run], fact: str) -> Any:
    """Read a ``fact`` of the model from the first run that has it; None where none does."""
    return next((run.result[fact] for run in runs if run.result.get(fact)), None)


def _run(run: Run) -> RunResult:
    return RunResult(
        seed=run.seed,
        status=run.result["status"],
        reason=run.result.get("reason"),
        seconds=run.result.get("seconds"),
        peak_memory_bytes=run.result.get("peak_memory_bytes"),
        scores=run.scores,
    )


def _stability(
    name: str, failures: stats.FailureRate, estimates: Mapping[str, ScoreEstimate], tasks: Sequence[EvaluationSet]
) -> stats.Stability:
    if name == BASE:
        return stats.Stability("undecided", BASE_REASON)
    if tasks and estimates[tasks[0].key].reason in (SOLVED_REASON, CHEAP_REASON):
        return stats.Stability("undecided", str(estimates[tasks[0].key].reason))
    return stats.stability(failures)
