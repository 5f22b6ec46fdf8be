"""What a pod does: the runs of one group, as `finetune run` does them; or, in the last one, the count of all.

`python -m finetune.launch.pod STUDY 0,3,4` takes the group that JOB_COMPLETION_INDEX points at; with where several
nodes meet behind it, it is that node of the one group. `STUDY gather` waits for the groups.

Kubernetes has no job that comes after others whatever became of them, and most pods may not ask it anything. So each
pod writes down in the study's folder what becomes of its turn, and touches that as long as it lives: from this, and
from how often Kubernetes will try again, the gathering pod sees that a group is over, even if it was killed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from finetune.core.errors import Interrupted
from finetune.core.run_dir import not_for_all_to_write, read_json, write_json
from finetune.launch.cluster import LEAD
from finetune.launch.manifests import FAILURES, NODE
from finetune.launch.record import Launch, is_left, read_launch

LOOK = 0.5
"""Seconds between two looks at the process that does the runs."""

COUNTS = 5.0
"""Seconds between two looks at which groups are over."""

BEAT = 20.0
"""Seconds between two touches by which a pod tells that it lives."""

SILENT = 300.0
"""Seconds without one after which it was killed."""

MEETING = 1800
"""Seconds for which nodes that share a run wait for each other: images are pulled meanwhile."""

GATHERED = "gathered"
"""The list, among the turns, of the groups that were missing when what there was has been counted."""


class Turn:
    """One pod's turn at a group of runs."""

    def __init__(self, launch: Launch, group: int, node: int, meeting: str | None):
        self.launch, self.group, self.node, self.meeting = launch, group, node, meeting
        self.only = launch.groups[group].only
        self.failures = int(os.environ.get(FAILURES) or 0)
        self.path = launch.turn(group, node)
        self.asked_mark = self.path.with_name(f"{group}.asked")  # all nodes of a group leave when one is asked
        self.log = launch.logs(group)[node]
        minutes = launch.cluster.minutes
        self.limit = None if minutes is None else minutes * 60 - LEAD
        self.asked, self.seconds, self.beaten = False, 0.0, time.monotonic()
        self.process: subprocess.Popen[bytes] | None = None
        self.round = read_json(self.path)["round"] if self.path.exists() else ""  # the last one that this node was in

    def do(self) -> int:
        """Do the runs; gives the exit code, of which 130 says that what was done is saved, and to be gone on with."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda *_: self.ask())
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab", buffering=0) as log:
            where = os.environ.get(NODE) or socket.gethostname()
            _say(f"== {self.only} on {where}, {socket.gethostname()}, {datetime.now():%F %T}", log)
            if not self.node:
                self.round = uuid.uuid4().hex
            self._note("running")
            self.began = self.path.stat().st_mtime
            code, said = self._judge(self._work(log) if self._left() and self._meets() else 1)
            if said:
                _say(f"== {self.only}: {said}", log)
        state = {0: "done", Interrupted.exit_code: "left"}.get(code, "failed")
        self._note(state)
        counted = self.path.with_name(GATHERED)
        if state != "left" and not self.node and counted.exists() and self.group in read_json(counted):
            _gather(self.launch)  # the count has missed this: it is made anew
        return code

    def ask(self) -> None:
        """Ask the runs, on all nodes, to save and leave."""
        if not self.asked:
            self.asked = True
            self.asked_mark.touch()
        if self.process is not None:
            self.process.send_signal(signal.SIGUSR1)

    def _note(self, state: str) -> None:
        self.launch.note(self.group, self.node, state=state, failures=self.failures, round=self.round)

    def _lives(self) -> None:
        """Tell from time to time that this pod lives."""
        if time.monotonic() - self.beaten >= BEAT:
            self.beaten = time.monotonic()
            os.utime(self.path)

    def _meets(self) -> bool:
        """Wait until the first node begins a round in which this one was not: of nodes that are started again one by
        one, none is to join what another is just leaving. Gives False where it has to leave before."""
        if not self.node:
            return True
        first, ends = self.launch.turn(self.group), time.monotonic() + MEETING
        while self._left() and not self._all_asked() and time.monotonic() < ends:
            self._lives()
            found = read_json(first) if first.exists() else {}
            if found.get("state") == "running" and found["round"] != self.round:
                self.round = found["round"]
                self._note("running")
                return True
            time.sleep(LOOK)
        return False

    def _left(self) -> bool:
        return any(map(is_left, self.launch.runs(self.group).values()))

    def _work(self, log: IO[bytes]) -> int:
        """Run `finetune run` until it ends, and hand on what it says; gives its exit code."""
        began = time.monotonic()
        process = subprocess.Popen(self._command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.process = process
        assert process.stdout is not None
        listener = threading.Thread(target=_hand_on, args=(process.stdout, log), daemon=True)
        listener.start()
        if self.asked:
            self.ask()
        while process.poll() is None:
            now = time.monotonic()
            self._lives()
            late = self.limit is not None and now - began >= self.limit
            if not self.asked and (late or self._all_asked()):
                self.ask()
            if self.limit is not None and now - began >= self.limit + LEAD:
                process.kill()  # it was asked, and hangs
            time.sleep(LOOK)
        listener.join(BEAT)  # no longer: a process that it has started may still hold the stream
        self.seconds = time.monotonic() - began
        return process.returncode

    def _judge(self, code: int) -> tuple[int, str]:
        """Say with which exit code to end, and why."""
        if code == 0 or not self._left():
            return 0, ""  # what has diverged would diverge again
        if code != Interrupted.exit_code and not self._all_asked():
            return (code if code > 0 else 128 - code), f"ended with exit code {code}, failure {self.failures + 1}"
        if self.launch.cancelled.exists():
            return Interrupted.exit_code, "cancelled; what was done is saved"
        if self.limit is not None and self.seconds >= self.limit and not self._saved():
            return 1, "nothing was saved within the time limit; say a longer time in the cluster file"
        return Interrupted.exit_code, f"saved and left after {self.seconds:.0f} s; it goes on in another turn"

    def _all_asked(self) -> bool:
        """Tell whether this pod, or another node's of its group, was asked during this turn: torchrun says 1 then."""
        return self.asked or (self.asked_mark.exists() and self.asked_mark.stat().st_mtime >= self.began)

    def _saved(self) -> bool:
        """Tell whether anything was saved during this turn, as the run folders say it."""
        folders = [run.path for run in self.launch.runs(self.group).values()]
        return any(
            path.stat().st_mtime > self.began
            for folder in [*folders, self.launch.study.path / "stages"]
            for path in _saves(folder)
        )

    def _command(self) -> list[str]:
        own = ["-m", "finetune", *self.launch.command, "--only", self.only]
        options = self.launch.cluster
        if options.nodes * options.processes == 1:
            return [sys.executable, *own]
        torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={options.processes}"]
        if self.meeting is not None:
            host = "true" if self.node == 0 else "false"
            waits = f"is_host={host},join_timeout={MEETING},read_timeout={MEETING}"
            torchrun += [f"--nnodes={options.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={self.round}"]
            torchrun += [f"--rdzv-endpoint={self.meeting}", f"--rdzv-conf={waits}"]
        else:
            torchrun.append("--standalone")
        return [sys.executable, *torchrun, *own]


def _saves(folder: Path) -> Iterator[Path]:
    yield from folder.rglob("checkpoints/*")
    yield from folder.rglob("result.json")


def _hand_on(stream: IO[bytes], log: IO[bytes]) -> None:
    """Write what a process says into the log, which lasts, and where `kubectl logs` finds it."""
    for line in stream:
        log.write(line)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _say(text: str, log: IO[bytes]) -> None:
    log.write(f"{text}\n".encode())
    print(text, flush=True)


def is_over(launch: Launch, group: int, now: float) -> bool:
    """Tell whether nothing more will come of a group, ``now`` by the clock of the folder's files: its runs are there;
    or the last of the turns that Kubernetes allows has failed, or has been silent for so long that it was killed."""
    if not any(map(is_left, launch.runs(group).values())):
        return True
    for path in (launch.turn(group, node) for node in range(launch.cluster.nodes)):
        if not path.exists():
            continue
        turn: dict[str, Any] = read_json(path)
        ended = turn["state"] == "failed" or (turn["state"] == "running" and now - path.stat().st_mtime > SILENT)
        if turn["state"] == "done" or (ended and turn["failures"] >= launch.cluster.retries):
            return True
    return False


def wait_and_gather(launch: Launch) -> int:
    """Wait until every group is over, however; then count, and write the report."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Interrupted.exit_code))
    clock, told = launch.turn(0).with_name("clock"), -1
    while True:
        clock.touch()
        now = clock.stat().st_mtime
        waiting = [group for group in range(len(launch.groups)) if not is_over(launch, group, now)]
        if not waiting:
            break
        if len(waiting) != told:
            told = len(waiting)
            print(f"{told} of {len(launch.groups)} groups are not over", flush=True)
        time.sleep(COUNTS)
    write_json(clock.with_name(GATHERED), launch.left())
    return _gather(launch)


def _gather(launch: Launch) -> int:
    from finetune.launch.launching import gather

    launch.gather_log.parent.mkdir(parents=True, exist_ok=True)
    with open(launch.gather_log, "ab", buffering=0) as log:
        return gather(launch.study.path, lambda text: _say(text, log))


def main(argv: Sequence[str]) -> int:
    """Do what one pod is for."""
    study, what, *meeting = argv
    launch = read_launch(Path(study))
    if what == "gather":
        return wait_and_gather(launch)
    groups, index = [int(group) for group in what.split(",")], int(os.environ["JOB_COMPLETION_INDEX"])
    return Turn(launch, groups[0], index, meeting[0]).do() if meeting else Turn(launch, groups[index], 0, None).do()


if __name__ == "__main__":
    with not_for_all_to_write():
        sys.exit(main(sys.argv[1:]))
