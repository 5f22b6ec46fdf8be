"""What comes to a study that SLURM has placed: pre-emption by another job, and the end of a node's daemon."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scripts._faults.kinds import Trial, kind
from scripts._faults.studies import PATIENCE, Hangs, Study, environment_of
from tests.launch.real_slurm import RealSlurm

CLUSTER = "partition: usual\ngpus: 1\ncpus: 1\ntime: 10\nretries: 3\n"

KEPT: list[RealSlurm] = []
"""The cluster, which is started once."""


@contextmanager
def cluster() -> Iterator[RealSlurm]:
    """Keep a SLURM up for all studies of the campaign."""
    with RealSlurm(nodes=2) as slurm:
        KEPT.append(slurm)
        try:
            yield slurm
        finally:
            KEPT.pop()


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise Hangs("SLURM does not come to an end")
        time.sleep(0.1)


def launched(trial: Trial) -> tuple[RealSlurm, Study]:
    """A study that is launched on the cluster, and has begun to train."""
    slurm, study = KEPT[0], trial.study(SLURM_CONF=KEPT[0].environment["SLURM_CONF"])
    (study.folder / "cluster.yaml").write_text(CLUSTER, encoding="utf-8")
    words = ["launch", *study.argv[1:], "--on", "slurm", "--cluster", "cluster.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "finetune", *words],
        cwd=study.folder,
        env=environment_of(study._settings(None)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode != 0:
        raise Hangs(f"it was not launched: {done.stderr[-300:]}")
    events = trial.rng.randint(1, recipes_steps(trial))
    wait_for(lambda: sum(" step " in line for line in study.lines()) >= events)
    return slurm, study


def recipes_steps(trial: Trial) -> int:
    return max(sum(" step " in line for line in trial.reference.lines()) // 2, 1)


def finish(trial: Trial, slurm: RealSlurm, study: Study) -> None:
    """Wait until the queue is empty, and judge what has been gathered."""

    def ended() -> bool:
        slurm.start_requeued()
        return slurm.said("squeue", "-h") == ""

    wait_for(ended)
    logs = "".join(path.read_text(encoding="utf-8") for path in sorted((study.study / "launch" / "logs").glob("*.log")))
    if "Traceback" in logs:
        trial.outcome.wrong.append(f"a traceback: {logs[logs.index('Traceback') :][:400]}")
    trial.outcome.resumed += len(re.findall("^== ", logs, re.MULTILINE)) - len(list(study.study.glob("*/seed-*")))
    trial.judge(study)


@kind(
    "pre-emption by SLURM",
    "On a real SLURM a job of a higher priority takes the node: the study's job is told, saves, is queued again, and "
    "goes on when there is room; a job that depends on all of them gathers.",
    shapes=("full", "LoRA", "one by one"),
    needs="slurm",
    cold=True,
)
def taken(trial: Trial) -> None:
    slurm, study = launched(trial)
    slurm.said("sbatch", "-p", "urgent", "-N2", "--gres=gpu:1", "-o", "/dev/null", "--wrap", "sleep 1")
    study.note_fault(trial.outcome.kind)
    trial.outcome.faults += 1
    wait_for(lambda: slurm.said("squeue", "-h", "-p", "urgent") == "")
    finish(trial, slurm, study)


def children_of(pid: int) -> list[int]:
    """The processes that descend from one."""
    said = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in said.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, of in pairs if of == parent]
    return found[1:]


@kind(
    "SIGKILL of a slurmd",
    "The daemon of a node is killed, alone or with all that it has started, as when the node fails, and comes back: "
    "the job goes on, or SLURM queues it again, or the gathering job submits again what is missing.",
    shapes=("full", "LoRA", "one by one"),
    needs="slurm",
    cold=True,
)
def daemon_killed(trial: Trial) -> None:
    slurm, study = launched(trial)
    number = trial.rng.randint(1, slurm.nodes)
    steps = steppers(slurm, f"n{number}") if trial.rng.random() < 0.7 else []
    for pid in [slurm.slurmds[number].pid, *steps, *(child for each in steps for child in children_of(each))]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    study.note_fault(trial.outcome.kind)
    trial.outcome.faults += 1
    time.sleep(trial.rng.uniform(0.5, 3) + (slurm.forgives if steps else 0))
    slurm.restart(number)
    finish(trial, slurm, study)


def steppers(slurm: RealSlurm, node: str) -> list[int]:
    """The processes that look after a node's jobs."""
    found = []
    for job in slurm.said("squeue", "-h", "-r", "-t", "R", "-w", node, "-o", "%A").split():
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if words.startswith(b"slurmstepd: [" + job.encode()):
                found.append(int(path.parent.name))
    return found
