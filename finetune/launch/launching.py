"""Launches a study, and gathers what has become of it: what `finetune launch` does, and the job that comes last."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.errors import FinetuneError, InputError, Problem, bad_input
from finetune.core.run_dir import FAILED, StudyDir
from finetune.launch.background import Background
from finetune.launch.cluster import Cluster
from finetune.launch.kubernetes import Kubernetes
from finetune.launch.launcher import Launcher
from finetune.launch.record import Launch, former_launch, group_runs, is_left, read_launch
from finetune.launch.slurm import Slurm
from finetune.recipe.tree import shown
from finetune.recipe.validate import by_place

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe

LAUNCHERS: dict[str, Launcher] = {each.name: each for each in (Background(), Slurm(), Kubernetes())}
"""By their names on the command line."""


def plan_launch(
    recipe: ResolvedRecipe, file: Path, overrides: Sequence[str], output: Path, on: str, cluster: Cluster
) -> Launch:
    """Say how the runs of a recipe are placed; writes nothing. Raises InputError for what cannot be placed."""
    if recipe.until is not None and on != Background.name:
        found = "a rule adds seeds here, and each task does seeds that are named"
        raise bad_input("seeds", found, "write seeds: 5, say, or launch --on local").located(recipe.locate)
    command = ("run", str(file.absolute()), *overrides, "--output", str(output.absolute()))
    planned = Launch(
        study=StudyDir(output.absolute() / recipe.name),
        on=on,
        at=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=command,
        cwd=str(Path.cwd()),
        cluster=cluster.options,
        groups=tuple(group_runs(recipe, cluster.options.runs_per_task)),
        until=recipe.until is not None,
    )
    problems = [*_unheeded(on, cluster), *LAUNCHERS[on].unfit(recipe, planned, cluster)]
    if problems:
        raise InputError(problems)
    return planned


ELSEWHERE = {
    ("kubernetes", "partition"): "name a queue of Kueue's under kubernetes.queue",
    ("kubernetes", "account"): "name a namespace under kubernetes.namespace",
    ("kubernetes", "qos"): "name a priority class under kubernetes.priority",
    ("kubernetes", "modules"): "name an image that has them under kubernetes.image",
    ("kubernetes", "setup"): "name an image that is set up under kubernetes.image",
    ("kubernetes", "container"): "name an image under kubernetes.image",
}
"""What does what an option does that a launcher cannot obey."""


def _unheeded(on: str, cluster: Cluster) -> list[Problem]:
    """Find the options that a launcher cannot obey: to leave one out is not to be taken for obeying it."""
    found = []
    for option in cluster.options.model_fields_set - LAUNCHERS[on].obeys:
        others = " and ".join(name for name, each in LAUNCHERS.items() if option in each.obeys)
        advice = ELSEWHERE.get((on, option), "leave it out")
        found.append(cluster.problem(option, f"is for {others}, and means nothing on {on}", advice))
    return sorted(found, key=by_place)


def launch(recipe: ResolvedRecipe, planned: Launch, cluster: Cluster, say: Callable[[str], None]) -> Launch:
    """Have the runs that are left done, after a look at everything that can be found wrong before. Raises InputError
    where something is, and nothing is submitted then."""
    refuse_twice(planned)
    left = planned.left()
    if not left:
        raise bad_input(None, f"every run of {planned.study.path} is finished", "`finetune report` writes its report")
    launcher, there = LAUNCHERS[planned.on], planned.study.path.exists()
    try:
        for note in launcher.check(planned, cluster):
            say(note)
        _look_at_study(recipe, planned)
    except Exception:
        if not there and planned.folder.exists():  # the probe's, which is empty
            planned.folder.rmdir()
            planned.study.path.rmdir()
        raise
    planned.cancelled.unlink(missing_ok=True)
    return launcher.submit(planned, left)


def refuse_twice(planned: Launch) -> None:
    """Raise InputError where the study has been launched already, and is still under way."""
    former = former_launch(planned.study)
    if former is not None and LAUNCHERS[former.on].at_work(former):
        study = shlex.quote(shown(planned.study.path))
        found = f"{study} has been launched already, as {LAUNCHERS[former.on].describe(former)}"
        raise bad_input(None, found, f"look at it by `finetune status {study}`, or end it by `finetune cancel {study}`")


def _look_at_study(recipe: ResolvedRecipe, planned: Launch) -> None:
    """Find what is wrong with data, models and the study's folder, as every run would."""
    from finetune.launch.placement import find_devices
    from finetune.study.claim import claim
    from finetune.study.facts import data_facts
    from finetune.study.preflight import preflight

    if planned.on == Background.name:
        find_devices(recipe, planned.cluster.devices)
    claim(planned.study, recipe, data_facts(recipe, preflight(recipe)))


def gather(study: Path, say: Callable[[str], None]) -> int:
    """Count the results of a launched study, have what is missing done again while that is allowed, and write the
    report. Gives 0 where every run is there and none has failed, else 1."""
    from finetune import report

    found = read_launch(study)
    runs = {
        f"{group.variant}/{seed}": run for n, group in enumerate(found.groups) for seed, run in found.runs(n).items()
    }
    missing = [name for name, run in runs.items() if is_left(run)]
    say(f"{len(runs) - len(missing)} of {len(runs)} runs are there")
    if missing:
        say(f"missing: {', '.join(missing)}")
        try:
            if LAUNCHERS[found.on].resubmits:
                _try_again(found, say)
        except FinetuneError as error:  # on the node, or in the container, that this runs in
            say(f"they could not be submitted again: {error}")
    if found.study.resolved.exists():
        report.build(found.study.path)
        say(f"report: {found.study.report / 'index.html'}")
    results = {name: run.read_result() for name, run in runs.items()}
    failed = {name: result for name, result in results.items() if result and result["status"] in FAILED}
    for name, result in failed.items():
        say(f"{name}: {result['status']}: {result['reason']}")
    return 1 if missing or failed else 0


def _try_again(found: Launch, say: Callable[[str], None]) -> None:
    """Submit the groups that are left, unless they are still under way, or were cancelled, or tried often enough."""
    launcher = LAUNCHERS[found.on]
    if any(task.state != "ended" for task in launcher.tasks(found).values()):
        say("they are still under way")
    elif not found.cancelled.exists() and len(found.submissions) <= found.cluster.retries:
        found = launcher.submit(found, found.left())
        say(f"submitted again, {len(found.submissions) - 1} of {found.cluster.retries}: {launcher.describe(found)}")


def cancel(study: Path) -> Launch:
    """End a launch; what its runs have done is saved, and nothing of it is queued again."""
    found = read_launch(study)
    found.cancelled.touch()
    LAUNCHERS[found.on].cancel(found)
    return found
