"""What became of a study: held against one of the same recipe to which nothing has happened, and its steps counted."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts._faults.studies import Command, Study
from tests.end_to_end.reading import predictions, results, scores

ROUNDING = 1e-3
"""How far apart scores may lie after a step that was summed up in other parts, on so few examples."""

SLACK = 0.3
"""Seconds that writing a checkpoint may take on a busy machine."""

LONGEST = 8
"""Lines that a clear error may have."""

TIMED = {"seconds", "tokens_per_second", "phases", "utilisation", "resumed", "part"}


@dataclass
class Outcome:
    """What became of one study."""

    kind: str
    shape: str
    faults: int = 0
    """That have come to it."""
    errors: int = 0
    """Commands that ended in a clear error, before one went on."""
    resumed: int = 0
    """Commands that had to be given again, besides."""
    lost: list[int] = field(default_factory=list)
    """Steps done anew, by fault."""
    wrong: list[str] = field(default_factory=list)
    """What should not be."""
    seconds: float = 0.0

    def __str__(self) -> str:
        told = f"{self.faults} faults, {self.errors} errors, {self.resumed} resumed, steps lost {self.lost or [0]}"
        wrong = "".join(f"\n! {each}" for each in self.wrong)
        return f"{self.kind}, {self.shape}: {told}, {self.seconds:.0f} s{wrong}"


def clear_error(command: Command) -> str | None:
    """Say what is wrong with the error in which a command has ended; None: it is clear."""
    said = command.err.read_text(encoding="utf-8", errors="replace").strip() or command.said.strip()
    if command.code not in (1, 2):
        return f"ended with {command.code}: {said[-300:]}"
    if "Traceback" in command.said:
        return f"a traceback: {said[-400:]}"
    if not said or len(said.splitlines()) > LONGEST:
        return f"no clear error: {said[-400:]!r}"
    return None


def differences(study: Path, reference: Path, rounded: bool = False) -> Iterator[str]:
    """List what of a study that has ended is not as it is in one that nothing has happened to."""
    found, wanted = scores(study), scores(reference)
    if found.keys() != wanted.keys():
        yield f"results of {sorted(set(wanted) ^ set(found))} are in one study only"
    for run in found.keys() & wanted.keys():
        if not _equal(found[run], wanted[run], rounded):
            yield f"{run} has scores {found[run]}, wanted {wanted[run]}"
    tables, others = predictions(study), predictions(reference)
    if tables.keys() != others.keys():
        yield f"predictions of {sorted(set(tables) ^ set(others))} are in one study only"
    for name in tables.keys() & others.keys():
        if not rounded and not tables[name].equals(others[name]):
            yield f"{name} differs"
    for run in sorted(reference.glob("*/seed-*")) if not rounded else ():
        own = study / run.relative_to(reference)
        if _log(own) != _log(run):
            yield f"{own.name}/metrics.jsonl differs"
    if not rounded and _report(study) != _report(reference):
        yield "the report's results.json differs"


def _equal(found: dict[str, Any], wanted: dict[str, Any], rounded: bool) -> bool:
    if not rounded or found.keys() != wanted.keys():
        return found == wanted
    return all(math.isclose(found[name], wanted[name], rel_tol=ROUNDING, abs_tol=ROUNDING) for name in wanted)


def _log(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def _report(study: Path) -> dict[str, Any]:
    """What results.json says, but for times and places."""
    found = results(study)
    del found["environment"]
    return json.loads(json.dumps(found, sort_keys=True), object_hook=_untimed)


def _untimed(content: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in content.items()
        if not any(word in name for word in ("seconds", "bytes", "joules", "energy", "latency", "per_second", "cost"))
        and name not in TIMED
    }


def steps_lost(study: Study) -> tuple[list[int], list[str]]:
    """Count for each fault the steps that were done anew because of it, of the run that lost most; and list where
    these are more than a step and a checkpoint interval.

    A fault is a line among the events, with how many it was at once, such as a kill and a flipped bit.
    """
    lost, wrong, at_once = list[int](), list[str](), list[int]()
    newest: dict[str, int] = {}
    ended: dict[tuple[str, int], float] = {}
    """When a run's step was done last."""
    waiting: dict[str, tuple[int, int]] = {}
    """By run: its newest step when a fault came, and which it was."""
    for event in study.events():
        if event.kind == "fault":
            lost.append(0)
            at_once.append(int(event.words.partition(" ")[0]))
            for run, step in newest.items():
                waiting.setdefault(run, (step, len(lost) - 1))
        elif event.kind == "step":
            step, run = event.step
            if run in waiting:
                before, number = waiting.pop(run)
                lost[number] = max(lost[number], before - step + 1)
                times = [ended[run, each] for each in range(step, before + 1)]
                if problem := _too_many(times, sum(at_once[number:]), study.interval):
                    wrong.append(f"{Path(run).parent.name}/{Path(run).name}: {problem}")
            newest[run], ended[run, step] = step, event.at
    return lost, wrong


def _too_many(times: list[float], faults: int, interval: float) -> str | None:
    """Say what is wrong with the loss of steps that had ended at these ``times``, ``interval`` seconds being those
    between two checkpoints; None: nothing is."""
    late = times if interval == 0 else [at for at in times if at > times[0] + faults * (interval + SLACK)]
    allowed = 2 * faults if interval == 0 else faults
    if len(late) <= allowed:
        return None
    return f"{len(times)} steps lost by {faults} faults, with a checkpoint every {interval:g} s"


def redone(study: Study) -> int:
    """Count the steps that were done more than once."""
    counts: dict[str, list[int]] = defaultdict(list)
    for event in study.events():
        if event.kind == "step":
            step, run = event.step
            counts[run].append(step)
    return sum(len(steps) - len(set(steps)) for steps in counts.values())
