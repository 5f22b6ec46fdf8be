"""What comes to files: no room, no right to write, cut short, flipped, lost, or copied while they are written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts._faults.kinds import Trial, kind
from scripts._faults.studies import Study

ROOM = "256m"


@contextmanager
def own_disk(study: Study) -> Iterator[Path]:
    """A small file system in memory, in which the study is."""
    place = study.folder / study.output
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place: Path, options: str) -> bool:
    """Change the file system; False where it is busy."""
    return subprocess.run(["mount", "-o", f"remount,{options}", str(place)], capture_output=True).returncode == 0


@kind(
    "a full disk",
    "The file system of the study (a small tmpfs) has no room left at any moment: one line says so, what was saved "
    "before stays, and when there is room again the same command goes on.",
    needs="root",
)
def full(trial: Trial) -> None:
    study = trial.study()
    with own_disk(study) as place:
        command = study.start()

        def fill() -> None:
            used = shutil.disk_usage(place).used
            remount(place, f"size={used + trial.rng.choice([0, 4096, 40_000])}")

        if trial.hit(study, command, fill):
            trial.expect(command, 1, 0)
            remount(place, f"size={ROOM}")
        trial.finish(study)


@kind(
    "a read-only folder",
    "The study's folder can no longer be written to at any moment: one line says so, and when it can be, the same "
    "command goes on.",
)
def read_only(trial: Trial) -> None:
    study = trial.study()
    rights = {"kind": "rights"}
    command = study.start(fault=rights)
    place = study.folder / study.output

    def close() -> bool:
        return place.exists() and subprocess.run(["chmod", "-R", "a-w", str(place)]).returncode == 0

    if trial.hit(study, command, close):
        trial.expect(command, 1, 2, 0)
        if trial.outcome.errors:
            trial.expect(study.start(fault=rights), 1, 2)
        subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)
    trial.finish(study)


def newest_checkpoints(study: Study) -> list[Path]:
    """The newest checkpoint of each run that has any."""
    found = {path.parent: path for path in sorted(study.study.glob("**/checkpoints/step-*"))}
    return list(found.values())


def damaged(trial: Trial, damage: Callable[[Path], None]) -> None:
    """Kill a study while it trains, damage a file of a newest checkpoint, and go on."""
    study = trial.study()
    for _ in range(trial.rng.randint(1, 2)):
        command = study.start()

        def harm(command=command) -> None:
            command.send(signal.SIGKILL)
            command.wait()
            if found := newest_checkpoints(study):
                damage(trial.rng.choice(sorted(trial.rng.choice(found).iterdir())))

        trial.hit(study, command, harm, "step ", at_once=2)
    trial.finish(study)


@kind(
    "a truncated checkpoint",
    "The process is killed and a file of its newest checkpoint cut short: each file has its digest beside it, the "
    "checkpoint is told to be damaged, and the one before is used.",
)
def truncated(trial: Trial) -> None:
    damaged(trial, lambda path: os.truncate(path, int(path.stat().st_size * trial.rng.random())))


@kind("a flipped bit in a checkpoint", "The same, with one bit of such a file turned over.")
def flipped(trial: Trial) -> None:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        bit = trial.rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)

    damaged(trial, flip)


@kind("a file of a checkpoint that is gone", "The same, with such a file removed.")
def gone(trial: Trial) -> None:
    damaged(trial, lambda path: path.unlink())


OTHERS = [
    "*/seed-*/result.json",
    "*/seed-*/metrics.jsonl",
    "*/seed-*/predictions/*.parquet",
    "resolved.yaml",
    "recipe.yaml",
    "environment.json",
    "data.json",
    "speed.json",
    "examples/*.parquet",
    "report/results.json",
    "baselines/*/result.json",
]


@kind(
    "another file cut short",
    "Of a study that was killed, or of one that is finished, any other file is cut short or emptied: it is written "
    "anew, or one line names it, and when it is removed the same command makes it again.",
)
def others_cut(trial: Trial) -> None:
    study, rng = trial.study(), trial.rng
    command = study.start()
    if rng.random() < 0.5:
        trial.hit(study, command, lambda: command.send(signal.SIGKILL))
    command.wait()
    found = sorted(path for pattern in OTHERS for path in study.study.glob(pattern))
    if not found:
        return trial.finish(study)
    chosen = rng.choice(found)
    whole = chosen.read_bytes()
    os.truncate(chosen, int(chosen.stat().st_size * rng.choice([0, rng.random(), 0.99])))
    study.note_fault(trial.outcome.kind)
    trial.outcome.faults += 1
    last = study.run()
    if last.code != 0:
        trial.error(last)
        if chosen.name not in last.said:
            trial.outcome.wrong.append(f"{chosen.name} is not named: {last.said[-300:]}")
        if chosen.name == "resolved.yaml":  # by which the folder is known
            chosen.write_bytes(whole)
        else:
            chosen.unlink()
            if chosen.parent.name == "predictions":
                (chosen.parents[1] / "result.json").unlink()
    trial.finish(study)


@kind(
    "a study folder copied while it runs",
    "The copy is opened in another place while the first goes on, and either comes to the same.",
)
def copied(trial: Trial) -> None:
    study = trial.study()
    command = study.start()
    place = study.folder / "copied"

    def copy() -> None:
        # Files vanish meanwhile, which cp tells, and goes on.
        subprocess.run(["cp", "-a", str(study.folder / study.output), str(place)], capture_output=True)

    trial.hit(study, command, copy)
    trial.finish(study)
    if (place / study.name).exists():
        study.output = "copied"
        trial.outcome.resumed += 1
        last = study.run()
        if last.code != 0:
            trial.error(last)
            return
        trial.judge(study)
