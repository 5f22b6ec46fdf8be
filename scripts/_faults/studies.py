"""Studies that faults come to: how one is started, watched and stopped, and what it has told of itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from scripts._faults import recipes
from scripts._faults.recipes import Shape
from tests.end_to_end.warm import Warm

PATIENCE = 180.0
"""Seconds after which a command counts as one that hangs."""

SAVING = re.compile(r" saved | phase writing a checkpoint| phase computing the digest")
"""Events of writing checkpoints, among others."""

INSIDE = Path(__file__).parent / "inside"

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_PROXY": "127.0.0.1",
    "COLUMNS": "200",
}
"""Of all processes."""


@dataclass(frozen=True)
class Event:
    """A line that a process has told."""

    at: float
    """Seconds of the clock that never jumps, which all processes share."""
    process: int
    kind: str
    """`step` and `saved`, with a number and a run's folder; `phase`, with its title; `fault`, which is ours."""
    words: str

    @property
    def step(self) -> tuple[int, str]:
        """The step and the folder of its run."""
        number, _, folder = self.words.partition(" ")
        return int(number), folder


@dataclass
class Command:
    """A command under way, or one that has ended."""

    pid: int
    out: Path
    err: Path
    end: Callable[[], int]
    """Waits for it, and gives its exit code."""
    begun: int
    """Lines of events before it."""
    output: str
    alone: bool = True
    """False under a launcher, which has words of its own."""
    code: int | None = None

    @property
    def over(self) -> bool:
        """Tell whether it has ended, without waiting."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state == "Z"

    @property
    def said(self) -> str:
        """What it has said."""
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in (self.out, self.err))

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until it ends, and give its exit code; one that hangs is killed."""
        if self.code is None:
            ends = time.monotonic() + seconds
            while not self.over and time.monotonic() < ends:
                time.sleep(0.005)
            if not self.over:
                self.send(signal.SIGKILL)
                self.end()
                raise Hangs(f"did not end within {seconds:.0f} s: {self.said[-300:]}")
            self.code = self.end()
        return self.code

    def send(self, number: int) -> None:
        """Send it a signal, if it is there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Hangs(Exception):
    """A command that does not end."""


@dataclass
class Study:
    """One study in a folder of its own, under the fork server or in processes from scratch."""

    folder: Path
    shape: Shape
    warm: Warm
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    interval: float = 0.0
    """Seconds between two checkpoints; 0: one after each step."""
    output: str = "runs"
    commands: list[Command] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "chats" if self.shape.chat else "topics"

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.folder / self.output / self.name

    @property
    def events_file(self) -> Path:
        return self.folder / "events"

    @property
    def argv(self) -> list[str]:
        """The command's words."""
        words = [*self.shape.overrides, f"train.checkpoint_seconds={self.interval}", *self.options]
        return ["run", f"{self.name}.yaml", *words, "--output", self.output]

    def start(self, *more: str, fault: dict[str, object] | None = None) -> Command:
        """Start the command in a process that is forked from one that has loaded the libraries."""
        out, err = self._streams()
        settings = self._settings(fault)
        hook = f"import os; os.environ.update({settings!r})"
        begun = len(self.lines())
        pid = self.warm.start([*self.argv, *more], self.folder, hook, str(out), str(err))
        return self._begun(Command(pid, out, err, lambda: self.warm.wait(pid), begun, self.output))

    def start_cold(self, *more: str, launcher: tuple[str, ...] = (), fault: dict[str, object] | None = None) -> Command:
        """Start it as a person does, from scratch."""
        out, err = self._streams()
        words = [sys.executable, "-m", *launcher, "finetune", *self.argv, *more]
        begun = len(self.lines())
        with open(out, "wb") as said, open(err, "wb") as told:
            environment = environment_of(self._settings(fault))
            process = subprocess.Popen(
                words, cwd=self.folder, env=environment, stdout=said, stderr=told, start_new_session=True
            )
        return self._begun(Command(process.pid, out, err, process.wait, begun, self.output, not launcher))

    def run(self, *more: str) -> Command:
        """Do what is left, and wait until it is done."""
        command = self.start(*more)
        command.wait()
        return command

    def lines(self) -> list[str]:
        """Read what its processes have told."""
        return self.events_file.read_text(encoding="utf-8").splitlines() if self.events_file.exists() else []

    def count(self, kind: str = "", since: int = 0) -> int:
        """Count the events of one kind, or those of any that are as many however often checkpoints are written."""
        return sum(f" {kind}" in line and (bool(kind) or not SAVING.search(line)) for line in self.lines()[since:])

    def events(self) -> list[Event]:
        """Read the same, in its parts."""
        found = []
        for line in self.lines():
            at, process, kind, *words = line.split(" ", 3)
            found.append(Event(int(at) / 1e9, int(process), kind, words[0] if words else ""))
        return found

    def note_fault(self, kind: str, at_once: int = 1) -> None:
        """Write among the events that so many faults came now."""
        with open(self.events_file, "a", encoding="utf-8") as file:
            file.write(f"{time.monotonic_ns()} 0 fault {at_once} {kind}\n")

    def wait_for(self, command: Command, events: int, kind: str = "", delay: float = 0.0) -> bool:
        """Wait until the command's events are so many, and a moment more; False where it ends before."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            if self.count(kind, command.begun) >= events:
                time.sleep(delay)
                return not command.over
            if command.over:
                return False
            time.sleep(0.004)
        raise Hangs(f"no event for {PATIENCE:.0f} s")

    def _streams(self) -> tuple[Path, Path]:
        number = len(self.commands)
        return self.folder / f"out-{number}", self.folder / f"err-{number}"

    def _settings(self, fault: dict[str, object] | None) -> dict[str, str]:
        own = {"FINETUNE_EVENTS": str(self.events_file), "FINETUNE_FAULT": json.dumps(fault or {})}
        return {**self.environment, **own}

    def _begun(self, command: Command) -> Command:
        self.commands.append(command)
        return command


def environment_of(settings: dict[str, str]) -> dict[str, str]:
    """The environment of a process from scratch."""
    return {**os.environ, **settings}


@contextmanager
def fork_server(folder: Path) -> Iterator[Warm]:
    """A process from which studies are forked; it knows of faults from inside."""
    os.environ.update(SETTINGS)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(INSIDE), os.environ.get("PYTHONPATH", "")])
    os.environ.setdefault("FINETUNE_CACHE", str(folder / "cache"))
    warm = Warm(folder)
    try:
        yield warm
    finally:
        warm.close()


@dataclass
class Bench:
    """Makes studies, and keeps what they come to without any fault."""

    folder: Path
    warm: Warm
    references: dict[str, Study] = field(default_factory=dict)
    made: int = 0

    def study(self, shape: Shape, *options: str, interval: float = 0.0, **environment: str) -> Study:
        """Make a study of this shape that has not begun."""
        self.made += 1
        place = self.folder / f"study-{self.made}"
        recipes.write(place, self.folder / "models", shape.chat)
        return Study(place, shape, self.warm, list(options), environment, interval)

    def reference(self, shape: Shape, key: str = "", make: Callable[[Study], Command] | None = None) -> Study:
        """Give the study of this shape that nothing has happened to; ``make`` runs it where it is run otherwise, under
        a ``key``."""
        key = f"{shape.name} {key}"
        if key not in self.references:
            study = self.study(shape)
            command = make(study) if make else study.start()
            if command.wait() != 0:
                raise RuntimeError(f"without any fault, {shape.name} ends with {command.code}: {command.said}")
            self.references[key] = study
        return self.references[key]
