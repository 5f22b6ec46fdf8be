"""Where each run of a launched study stands: what its folder says, and who has it in hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from finetune.core.run_dir import RunDir
from finetune.launch.launcher import Task
from finetune.launch.record import Launch


class RunState(NamedTuple):
    """One run of a launch."""

    name: str
    """`VARIANT/SEED`."""
    state: str
    """Its status where it has ended; else `running`, `waiting`, `interrupted` or `not begun`."""
    step: int | None
    """The last step that was written down, of one that has not ended."""
    where: str
    why: str
    """What it waits for, or how it failed."""


def run_states(launch: Launch, tasks: Mapping[int, Task]) -> list[RunState]:
    """List where the runs stand; ``tasks`` are those that the launcher has in its hands, by group. Where a rule adds
    seeds, those that have begun."""
    begun = max(launch.study.begun(group.variant for group in launch.groups), 1)
    return [
        _state(f"{group.variant}/{seed}", run, tasks.get(number))
        for number, group in enumerate(launch.groups)
        for seed, run in launch.runs(number).items()
        if seed < begun or not launch.until
    ]


def _state(name: str, run: RunDir, task: Task | None) -> RunState:
    result = run.read_result()
    if result is not None:
        return RunState(name, result["status"], None, "", result["reason"] or "")
    step = last_step(run.metrics)
    if task is not None and task.state == "ended":
        return RunState(name, "not begun" if step is None else "interrupted", step, task.where, task.why)
    if task is not None and (task.state == "waiting" or step is not None):
        return RunState(name, task.state, step, task.where, task.why if task.state == "waiting" else "")
    if task is not None:  # another run of its group comes first, or it loads what it needs
        return RunState(name, "starting", None, task.where, "")
    return RunState(name, "not begun" if step is None else "interrupted", step, "", "")


def last_step(metrics: Path) -> int | None:
    """Read how far a run has come, from the end of its metrics; None where there are none. A killed run leaves half a
    line."""
    if not metrics.exists():
        return None
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1]
    return int(json.loads(lines[-1])["step"]) if lines else None
