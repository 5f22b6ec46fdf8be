"""`python -m finetune` without the wait for torch: each command runs in a process forked from one that has imported it.

The commands are processes of their own, with exit codes, signals and files, so that a test can kill them; and they
start in milliseconds. Run as a program, this file is the process from which they are forked.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

ROOT = Path(__file__).parents[2]
PRELOADED = (
    "finetune.cli.output",
    "finetune.report.content",
    "finetune.study.study",
    "evaluate",
    "peft",
    "sklearn.metrics",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
)
"""What commands import sooner or later."""


def environment_with(**variables: str) -> dict[str, str]:
    """The environment in which `python -m finetune` finds this checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **variables}


@dataclass(frozen=True)
class Done:
    """A command that has ended. ``code`` is negative when a signal killed it."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams, in lines whose breaks do not depend on the width."""
        return " ".join((self.out + self.err).split())


class Warm:
    """The running program, and what to say to it."""

    def __init__(self, folder: Path):
        self.folder = folder
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, __file__], **pipes, env=environment_with(), text=True)

    def run(self, *argv: str, cwd: Path, hook: str = "", kill_after: float | None = None) -> Done:
        """Run a command in ``cwd``; ``hook`` is Python that runs first, ``kill_after`` seconds end it with SIGKILL."""
        out, err = self.folder / "out", self.folder / "err"
        pid = self.start(argv, cwd, hook, str(out), str(err))
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)  # the process stays until it is waited for, so the number is its own
        return Done(self.wait(pid), out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def run_together(self, *commands: Sequence[str], cwd: Path, hook: str = "") -> list[Done]:
        """Run several commands at once in ``cwd``, each after ``hook``."""
        streams = [(self.folder / f"out-{number}", self.folder / f"err-{number}") for number in range(len(commands))]
        started = [
            self.start(argv, cwd, hook, str(out), str(err)) for argv, (out, err) in zip(commands, streams, strict=True)
        ]
        done = []
        for pid, (out, err) in zip(started, streams, strict=True):
            done.append(Done(self.wait(pid), out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")))
        return done

    def run_in_terminal(self, columns: int, *argv: str, cwd: Path) -> Done:
        """Run a command whose streams are a terminal of that width."""
        ours, theirs = pty.openpty()
        said: list[bytes] = []
        reader = Thread(target=drain, args=(ours, said))
        reader.start()
        hook = f"import os; os.environ.update(COLUMNS='{columns}', TERM='xterm')"
        name = os.ttyname(theirs)
        code = self.wait(self.start(argv, cwd, hook, name, name))
        os.close(theirs)
        reader.join()
        return Done(code, b"".join(said).decode("utf-8"), "")

    def start(self, argv: Sequence[str], cwd: Path, hook: str, out: str, err: str) -> int:
        """Start a command, and return its process's number."""
        self._say({"argv": argv, "cwd": str(cwd), "hook": hook, "out": out, "err": err})
        return self._hear()

    def wait(self, pid: int) -> int:
        """Wait for a command's process, and return its exit code."""
        self._say({"wait": pid})
        return self._hear()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=10)

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def _hear(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


def drain(terminal: int, said: list[bytes]) -> None:
    """Read a terminal until its other end is closed, which Linux tells by an error."""
    try:
        while part := os.read(terminal, 65536):
            said.append(part)
    except OSError:
        os.close(terminal)


def serve() -> None:
    """Read requests from stdin, a line each; answer with the number of a process, or the exit code of one."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # what was imported stays: collecting garbage need not look at it, and copies no page of it
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            while request["wait"] not in ended:  # whoever ends meanwhile is let go, or others would take it for alive
                pid, status = os.wait()
                ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.pop(request["wait"])
        else:
            answer = os.fork() or become(request)
        print(answer, flush=True)


def become(request: dict[str, Any]) -> int:
    """The forked process: run the command and end."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
    os.chdir(request["cwd"])
    from finetune.cli import main

    exec(request["hook"], {})
    code = main(request["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
