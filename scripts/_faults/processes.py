"""What comes to processes: they are killed, asked to leave, suspended, or started twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from scripts._faults.kinds import Trial, kind
from scripts._faults.studies import Command, Study

PREEMPTIONS = 20

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")

HANGS = "FINETUNE_PROCESS_TIMEOUT"


@kind(
    "SIGKILL",
    "The process is killed at any moment, up to three times in a study: checkpoints, results and predictions appear "
    "under their names only when they are whole, and the same command goes on from the newest.",
)
def killed(trial: Trial) -> None:
    study = trial.study()
    for _ in range(trial.rng.randint(1, 3)):
        command = study.start()
        if trial.hit(study, command, lambda command=command: command.send(signal.SIGKILL)):
            trial.expect(command, -signal.SIGKILL)
    trial.finish(study)


def asked_to_leave(trial: Trial, number: signal.Signals) -> None:
    study = trial.study()
    for _ in range(trial.rng.randint(1, 3)):
        command = study.start()
        if not trial.hit(study, command, lambda command=command: command.send(number)):
            break
        # One that comes when all is done changes nothing; before Python has begun, it kills.
        trial.expect(command, 130, 0, -number)
    trial.finish(study)


@kind("SIGTERM", "The process saves after the step that it is at, and ends with exit code 130.")
def terminated(trial: Trial) -> None:
    asked_to_leave(trial, signal.SIGTERM)


@kind("SIGUSR1", "The same: schedulers send it ahead of SIGTERM.")
def warned(trial: Trial) -> None:
    asked_to_leave(trial, signal.SIGUSR1)


@kind(
    "20 pre-emptions",
    "SIGTERM, SIGUSR1 or SIGUSR2 twenty times in one study, each a few steps after it went on.",
    shapes=("long, full", "long, one by one"),
)
def preempted(trial: Trial) -> None:
    study, rng = trial.study(), trial.rng
    for _ in range(PREEMPTIONS):
        command, number = study.start(), rng.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
        if not study.wait_for(command, rng.randint(1, 2), "step ", rng.uniform(0, 0.02)):
            break
        command.send(number)
        study.note_fault(trial.outcome.kind)
        trial.outcome.faults += 1
        trial.expect(command, 130, 0)
    if trial.outcome.faults < PREEMPTIONS:
        trial.outcome.wrong.append(f"it was over after {trial.outcome.faults} pre-emptions")
    trial.finish(study)


@kind("suspension", "The process is stopped for a while (a laptop that sleeps, a frozen container), and goes on.")
def suspended(trial: Trial) -> None:
    study = trial.study()
    command = study.start()

    def suspend() -> None:
        command.send(signal.SIGSTOP)
        time.sleep(trial.rng.uniform(0.5, 3))
        command.send(signal.SIGCONT)

    trial.hit(study, command, suspend)
    trial.finish(study)


@kind(
    "two processes on one study",
    "They share its runs by locks and leases, and one of them is killed or asked to leave: the other takes over its "
    "run, from the newest checkpoint.",
)
def two(trial: Trial, fault: dict[str, object] | None = None) -> None:
    study, rng = trial.study(), trial.rng
    both = [study.start(fault=fault), study.start(fault=fault)]
    victim, number = rng.choice(both), rng.choice([signal.SIGKILL, signal.SIGTERM])
    trial.hit(study, victim, lambda: victim.send(number))
    # The victim first: as long as nobody has asked how it ended, it is still there to whoever looks for it.
    study.commands.sort(key=lambda command: command is not victim)
    for command in study.commands:
        trial.expect(command, *([0, 130, -number] if command is victim else [0]))
    trial.finish(study)


@kind(
    "a file system without locks",
    "The same where the system's locks fail, as on some file systems of a network: leases alone keep two processes "
    "apart.",
)
def without_locks(trial: Trial) -> None:
    two(trial, {"kind": "locks"})


def helpers_of(command: Command) -> list[int]:
    """The processes that a process has started, which do its runs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            said = (path.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[1]) == command.pid and b"finetune" in said:
            found.append(int(path.parent.name))
    return sorted(found)


def wait_until_gone(pids: list[int]) -> None:
    """Wait until processes have ended, or are no more than an entry in their parent's list."""
    ends = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < ends:
        states = [Command(pid, Path(), Path(), int, 0, "").over for pid in pids]
        if all(states):
            return
        time.sleep(0.05)


@kind(
    "SIGKILL of a worker",
    "`finetune run` has laid out the runs over two processes of its own, of which one is killed: the other takes over "
    "its run, and the same command ends with all of them.",
    shapes=("one by one",),
    cold=True,
)
def worker_killed(trial: Trial) -> None:
    study = trial.study()
    command = study.start_cold("--devices", "2")
    # In training: a worker that has not begun has nothing to lose.
    trial.hit(study, command, lambda: os.kill(trial.rng.choice(helpers_of(command)), signal.SIGKILL), "step ")
    trial.finish(study)


@kind(
    "SIGKILL of the parent",
    "The process that has started the workers is killed: they are told by the system, save and leave.",
    shapes=("one by one",),
    cold=True,
)
def parent_killed(trial: Trial) -> None:
    study, workers = trial.study(), list[int]()
    command = study.start_cold("--devices", "2")

    def kill() -> None:
        workers.extend(helpers_of(command))
        command.send(signal.SIGKILL)

    if trial.hit(study, command, kill, "step "):
        trial.expect(command, -signal.SIGKILL)
        wait_until_gone(workers)
    trial.finish(study)


def by_two(trial: Trial) -> tuple[Study, Study]:
    """A study whose runs are each done by two processes together, and the one without any fault."""
    whole = trial.bench.reference(trial.shape, "by two", lambda study: study.start_cold(launcher=TORCHRUN))
    return trial.study(**{HANGS: "12"}), whole


def ranks_of(command: Command) -> list[int]:
    return helpers_of(command)


def finish_by_two(trial: Trial, study: Study, whole: Study) -> None:
    """Give the same command again, and judge."""
    trial.outcome.resumed += 1
    last = study.start_cold(launcher=TORCHRUN)
    if last.wait() != 0:
        trial.outcome.wrong.append(f"given again, it ends with {last.code}: {last.said[-400:]}")
        return
    trial.judge(study, reference=whole)


def to_one_rank(trial: Trial, number: signal.Signals, words: str) -> None:
    """Send a signal to one of two processes that train one run; the command has to fail with these ``words``, and to go
    on when it is given again."""
    study, whole = by_two(trial)
    command = study.start_cold(launcher=TORCHRUN)
    if trial.hit(study, command, lambda: os.kill(trial.rng.choice(ranks_of(command)), number), "step "):
        if command.wait() == 0:
            trial.outcome.wrong.append("it ended as if nothing had happened")
        elif words not in command.said:
            trial.outcome.wrong.append(f"nobody said that one {words}: {command.said[-300:]}")
        else:
            trial.outcome.errors += 1
    finish_by_two(trial, study, whole)


@kind(
    "a lost rank",
    "Two processes of torchrun train one run together, and one is killed: torchrun ends the other one, and the same "
    "command goes on.",
    shapes=("full", "LoRA"),
    cold=True,
)
def rank_lost(trial: Trial) -> None:
    to_one_rank(trial, signal.SIGKILL, "")  # torchrun's own words name the rank and its signal


@kind(
    "a hanging rank",
    "One of them is stopped for good: the other names it after `FINETUNE_PROCESS_TIMEOUT` seconds and ends, and with "
    "it torchrun; the same command goes on.",
    shapes=("full", "LoRA"),
    cold=True,
)
def rank_hanging(trial: Trial) -> None:
    to_one_rank(trial, signal.SIGSTOP, "has not moved for")
