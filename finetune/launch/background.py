"""A study in the background of this machine: one process, which lays it out as `finetune run` does."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.errors import FinetuneError, Problem
from finetune.launch.cluster import Cluster
from finetune.launch.launcher import Task
from finetune.launch.record import Launch

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe


class Background:
    """Processes of this machine."""

    name = "local"
    obeys = frozenset({"gpus", "environment"})
    resubmits = True

    def unfit(self, recipe: ResolvedRecipe, launch: Launch, cluster: Cluster) -> list[Problem]:
        """Find nothing: see :meth:`check`."""
        return []

    def dry_run(self, launch: Launch, groups: Sequence[int]) -> str:
        """Show the command."""
        return f"$ {shlex.join(_command(launch))} >>{shlex.quote(str(launch.log(0)))} 2>&1 &"

    def check(self, launch: Launch, cluster: Cluster) -> list[str]:
        """Find nothing: the process sees for itself, as `finetune run` does."""
        return []

    def submit(self, launch: Launch, groups: Sequence[int]) -> Launch:
        """Start the process, which finds the runs that are left by itself."""
        log = launch.log(0)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as stream:
            environment = {**os.environ, **launch.cluster.environment, "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(
                _command(launch),
                cwd=launch.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it stays when the terminal closes
            )
        facts = {"pid": process.pid, "began": _began(process.pid), "host": socket.gethostname()}
        return launch.submitted(groups, facts)

    def describe(self, launch: Launch) -> str:
        """Name the process."""
        return "process {pid} on {host}".format(**launch.submissions[-1].facts)

    def tasks(self, launch: Launch) -> dict[int, Task]:
        """Give all groups while the process runs: it does them in an order of its own."""
        if not self.at_work(launch):
            return {}
        last = launch.submissions[-1]
        return dict.fromkeys(last.groups, Task("running", last.facts["host"], ""))

    def at_work(self, launch: Launch) -> bool:
        """Tell whether the process runs. Raises FinetuneError on another machine, from which it cannot be seen."""
        facts = launch.submissions[-1].facts
        if facts["host"] != socket.gethostname():
            raise FinetuneError(f"this study was launched on {facts['host']}; ask there")
        return facts["began"] is not None and _began(facts["pid"]) == facts["began"]

    def said(self, launch: Launch, group: int) -> str:
        """Give nothing: all that the process says is in its log."""
        return ""

    def cancel(self, launch: Launch) -> None:
        """Ask the process to save and leave."""
        if self.at_work(launch):
            os.kill(launch.submissions[-1].facts["pid"], signal.SIGTERM)


def _command(launch: Launch) -> list[str]:
    devices = launch.cluster.devices
    own = [] if devices is None else ["--devices", str(devices)]
    return [sys.executable, "-m", "finetune", *launch.command, *own]


def _began(pid: int) -> int | None:
    """Tell when a process began, in ticks since the machine did; None where it has ended. The number may be another's
    by now."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
