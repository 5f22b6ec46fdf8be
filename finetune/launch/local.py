"""Processes of this machine that do a study's runs, each group of them on devices of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from finetune.core.errors import FinetuneError, Interrupted
from finetune.core.events import from_json
from finetune.core.progress import Progress
from finetune.core.signals import StopRequest
from finetune.launch.placement import Layout

LOOK = 0.2
"""Seconds between two looks at what has become of the processes."""

GRACE = 10.0
"""Seconds that the others of a group are given to end, when one has failed."""

LAST = 15
"""Lines of what a failed process has said last that are shown."""


@dataclass
class Helper:
    """A process, and what it has said."""

    name: str
    group: int
    process: subprocess.Popen[str]
    last: list[str] = field(default_factory=list)
    """Lines of its error stream."""
    listeners: list[threading.Thread] = field(default_factory=list)

    @property
    def ended(self) -> int | None:
        """Give its exit code; None while it runs."""
        return self.process.poll()

    @property
    def failed(self) -> bool:
        """Tell whether it has ended otherwise than it should."""
        return self.ended not in (None, 0, Interrupted.exit_code)

    @property
    def how(self) -> str:
        """Say in words how it ended."""
        code = self.process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def run_on(layout: Layout, command: Sequence[str], progress: Progress, stop: StopRequest) -> None:
    """Do a study's runs in the processes of ``layout``, each of which is ``finetune`` with the arguments ``command``.

    When one fails, those that share its runs are ended too, and other groups take these over; they are resumed from
    their checkpoints. Raises Interrupted when asked to stop, after all have saved; FinetuneError where all groups have
    failed.
    """
    heard: queue.Queue[tuple[Helper, str, str]] = queue.Queue()
    helpers = []
    for number, devices in enumerate(layout.groups):
        port = _port()
        helpers += [_start(layout, command, number, rank, port, heard) for rank in range(len(devices))]
    try:
        _watch(helpers, heard, progress, stop)
    finally:
        for helper in helpers:
            if helper.ended is None:
                helper.process.kill()
                helper.process.wait()
            progress.other(helper.name, None)
    if stop.requested or any(helper.ended == Interrupted.exit_code for helper in helpers):
        raise Interrupted("stopped; every run is saved")
    failed = [helper for helper in helpers if helper.failed]
    if failed and {helper.group for helper in failed} == {helper.group for helper in helpers}:
        raise FinetuneError(f"all processes have failed; {failed[0].name} {failed[0].how}")


def _port() -> int:
    """Find a port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found: int = free.getsockname()[1]
        return found


def _start(
    layout: Layout,
    command: Sequence[str],
    group: int,
    rank: int,
    port: int,
    heard: queue.Queue[tuple[Helper, str, str]],
) -> Helper:
    """Start one process; those of a group meet at ``port``."""
    devices = layout.groups[group]
    device, count = devices[rank], len(devices)
    name = f"cpu:{group * count + rank}" if device == "cpu" else f"cuda:{device}"
    own = {"PYTHONUNBUFFERED": "1"}
    if device != "cpu":
        own["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    elif "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = str(max(len(os.sched_getaffinity(0)) // layout.devices, 1))
    if count > 1:
        own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        own |= {"LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune", *command, "--helper", f"{group}:{layout.at_once}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **own},
        start_new_session=True,  # a terminal's Ctrl-C comes to us, and we hand it on
    )
    helper = Helper(name, group, process)
    for stream, kind in ((process.stdout, "out"), (process.stderr, "err")):
        helper.listeners.append(threading.Thread(target=_listen, args=(helper, kind, stream, heard), daemon=True))
        helper.listeners[-1].start()
    return helper


def _listen(helper: Helper, kind: str, stream: IO[str] | None, heard: queue.Queue[Any]) -> None:
    assert stream is not None
    for line in stream:
        heard.put((helper, kind, line.rstrip("\n")))


def _watch(helpers: Sequence[Helper], heard: queue.Queue[Any], progress: Progress, stop: StopRequest) -> None:
    """Show what the processes say until all have ended; hand on a request to stop."""
    told, failed_at, ended, said = False, dict[int, float](), set[str](), set[str]()
    while True:
        running = [helper for helper in helpers if helper.ended is None]
        for helper in helpers:
            if helper.ended is not None and helper.name not in ended:
                ended.add(helper.name)
                for listener in helper.listeners:
                    listener.join(LOOK)  # a process that it has started may still hold its streams
                _show_all(heard, progress, said)
                progress.other(helper.name, None)
                if helper.failed:
                    progress.say("\n".join([f"{helper.name} {helper.how}", *helper.last[-LAST:]]))
                    failed_at.setdefault(helper.group, time.monotonic())
        _show_all(heard, progress, said)
        if not running:
            return
        if stop.requested and not told:
            told = True
            for helper in running:  # which may have been sent SIGTERM already, and a second one would end it at once
                helper.process.send_signal(signal.SIGUSR1)
        for helper in running:
            if time.monotonic() - failed_at.get(helper.group, time.monotonic()) > GRACE:
                helper.process.kill()  # it waits for the one that has failed
        time.sleep(LOOK)


def _show_all(heard: queue.Queue[Any], progress: Progress, said: set[str]) -> None:
    while True:
        try:
            helper, kind, line = heard.get_nowait()
        except queue.Empty:
            return
        found = _message(line) if kind == "out" else None
        if found is None:
            helper.last.append(line)
        elif "say" in found:
            if found["say"] not in said:  # what is about the study comes from all of them
                progress.say(f"{helper.name} · {found['say']}")
            said.add(found["say"])
        elif "came" in found:
            progress.came(f"{helper.name} · {found['came']}")
        elif "event" in found:
            progress.tell(from_json(found["event"]))
        elif "line" in found:
            progress.other_says(helper.name, found["line"])
        elif "at" in found:
            progress.other(helper.name, found["at"])


def _message(line: str) -> dict[str, Any] | None:
    """Read what a helper has sent; None: it is something else."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
