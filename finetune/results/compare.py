"""Variants of one study held against those of another, which is fair where both were scored on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from finetune import stats
from finetune.core.errors import InputError, Problem, bad_input, did_you_mean
from finetune.core.run_dir import RESULTS_FORMAT, StudyDir
from finetune.results.compute import evaluation_set
from finetune.results.measure import Ground, judged, side_of
from finetune.results.reading import Study, read_study
from finetune.results.schema import Direction, PairResult, to_json

LEVEL = 0.95

SCORE = "runs are comparable on the same examples only: score one study on the other's with `finetune evaluate`"

Facts = dict[str, Any]
"""What data.json says of one evaluation set."""


@dataclass(frozen=True)
class Chosen:
    """A study, and those of its variants that take part."""

    path: Path
    study: Study
    variants: list[str]

    def about(self) -> ComparedStudy:
        """Describe it for a JSON file."""
        return ComparedStudy(self.study.name, str(self.path), self.study.digest, self.variants)


@dataclass(frozen=True)
class ComparedStudy:
    """One side of a comparison of studies."""

    study: str
    folder: str
    digest: str
    variants: list[str]


@dataclass(frozen=True)
class ComparedSet:
    """An evaluation set that both studies have."""

    name: str
    examples: int
    fingerprint: str


@dataclass(frozen=True)
class StudyComparison:
    """Variants of two studies held together: what `finetune compare --json` writes."""

    format: int
    level: float
    left: ComparedStudy
    right: ComparedStudy
    tasks: list[ComparedSet]
    comparisons: list[PairResult]

    def to_json(self) -> dict[str, Any]:
        """Turn it into plain values."""
        content: dict[str, Any] = to_json(self)
        return content


def compare_studies(
    left: Path, right: Path, metric: str | None = None, task: str | None = None, variants: Sequence[str] = ()
) -> StudyComparison:
    """Compare every variant of ``left`` with every variant of ``right``, on every evaluation set that both have.

    Both are folders of studies, or of single variants; ``variants`` leaves only these, on either side. Without
    ``metric`` it is each task's headline metric. Holm's correction runs over all comparisons, and over all of spread.
    Raises InputError for folders that hold no study, where there is nothing to compare, and where the held-out data
    are not the same.
    """
    ours, theirs = _chosen(left, variants), _chosen(right, variants)
    _check_variants(ours, theirs, variants)
    tasks = _common_sets(ours.study, theirs.study, task)
    rng = np.random.default_rng(list(f"{ours.study.digest} {theirs.study.digest}".encode()))
    pairs = [pair for both in tasks for pair in _pairs(ours, theirs, both, _metric(both, metric), rng)]
    return StudyComparison(
        format=RESULTS_FORMAT,
        level=LEVEL,
        left=ours.about(),
        right=theirs.about(),
        tasks=[ComparedSet(facts["name"], facts["examples"], facts["fingerprint"]) for facts, _ in tasks],
        comparisons=pairs,
    )


def _chosen(path: Path, variants: Sequence[str]) -> Chosen:
    """The study in ``path``, or the study whose variant is in ``path``."""
    parent, name = StudyDir(path.resolve().parent), path.resolve().name
    if StudyDir(path).resolved.exists() or not parent.resolved.exists():
        study = read_study(path)
        return Chosen(path, study, [each for each in study.variants if not variants or each in variants])
    study = read_study(parent.path)
    if name not in study.variants:
        found = f"{path} is not a variant of the study {parent.path}"
        raise bad_input(None, found, did_you_mean(name, study.variants))
    return Chosen(path, study, [name])


def _check_variants(ours: Chosen, theirs: Chosen, wanted: Sequence[str]) -> None:
    known = dict.fromkeys([*ours.study.variants, *theirs.study.variants])
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            Problem(f"--variants: neither study has '{name}'", did_you_mean(name, known)) for name in unknown
        )
    for chosen in (ours, theirs):
        if not chosen.variants:
            found = f"--variants leaves none of {chosen.path}"
            raise bad_input(None, found, f"name at least one of: {', '.join(chosen.study.variants)}")
    if ours.study.folder.path.resolve() == theirs.study.folder.path.resolve() and set(ours.variants) & set(
        theirs.variants
    ):
        advice = "pairs within a study are in its report; for one of them, give two variants: RUNS/one RUNS/other"
        raise bad_input(None, f"{ours.path} and {theirs.path} hold the same runs", advice)


def _common_sets(ours: Study, theirs: Study, wanted: str | None) -> list[tuple[Facts, Facts]]:
    """Pair what both say of each evaluation set that both have; refuse sets that share no more than their name."""
    left, right = ({task["name"]: task for task in study.data.get("tasks", [])} for study in (ours, theirs))
    common = [name for name in left if name in right]
    if wanted is not None and wanted not in common:
        found = f"--task: the studies have no held-out task '{wanted}' in common"
        raise bad_input(None, found, did_you_mean(wanted, common))
    if not common:
        one, other = (", ".join(tasks) or "none" for tasks in (left, right))
        found = f"the studies have no held-out task in common: {one} on the left, {other} on the right"
        raise bad_input(None, found, SCORE)
    names = common if wanted is None else [wanted]
    reasons = {name: _difference(ours, theirs, left[name], right[name]) for name in names}
    same = [name for name in names if reasons[name] is None]
    if len(same) < len(names):
        advice = f"leave it out with --task {same[0]}" if same else SCORE
        found = "the held-out data of '{}' are not the same: {}"
        raise InputError(Problem(found.format(name, why), advice) for name, why in reasons.items() if why)
    return [(left[name], right[name]) for name in same]


def _difference(ours: Study, theirs: Study, left: Facts, right: Facts) -> str | None:
    """Tell why the examples of an evaluation set are not the same in both studies; None where they are."""
    varied = [side for side, study in (("left", ours), ("right", theirs)) if "split" in study.vary]
    if varied and left["split"] == "test":
        return f"each seed has its own split, on the {' and the '.join(varied)}"
    counts = f"{left['examples']:,} examples on the left, {right['examples']:,} on the right"
    if left["fingerprint"] != right["fingerprint"]:
        return f"{counts}; fingerprints {left['fingerprint'][:12]} and {right['fingerprint'][:12]}"
    return None if left["examples"] == right["examples"] else f"{counts}, cut from the same texts"


def _metric(both: tuple[Facts, Facts], wanted: str | None) -> Direction:
    """Name and direction of the metric to compare by."""
    left, right = ({metric["name"]: metric for metric in facts["metrics"]} for facts in both)
    name = wanted or both[0]["headline"]
    common = [each for each in left if each in right]
    if name not in common:
        found = f"--metric: '{name}' was not computed on '{both[0]['name']}' in both studies"
        raise bad_input(None, found, did_you_mean(name, common))
    return Direction(name, left[name]["higher_is_better"])


def _pairs(
    ours: Chosen, theirs: Chosen, both: tuple[Facts, Facts], metric: Direction, rng: np.random.Generator
) -> list[PairResult]:
    """Compare every pair on one evaluation set."""
    task = evaluation_set(both[0])
    sequential = ours.study.until is not None or theirs.study.until is not None
    ground = Ground(task, metric, ours.study.clusters(task.name), 0.0, sequential, LEVEL, rng)
    lefts, rights = (
        {name: side_of(chosen.study, name, chosen.study.variants[name], ground) for name in chosen.variants}
        for chosen in (ours, theirs)
    )
    pairs = list(product(lefts, rights))
    return list(judged(pairs, lefts, rights, stats.family_of(len(pairs), None, sequential), ground))
