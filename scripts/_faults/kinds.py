"""The kinds of faults, and what they have in common: a study, a seeded moment, and going on until all is there."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from scripts._faults import recipes
from scripts._faults.judging import Outcome, clear_error, differences, steps_lost
from scripts._faults.recipes import Shape
from scripts._faults.studies import Bench, Command, Study

MOST_TIMES = 4
"""How often a command is given again before that is called wrong."""


@dataclass
class Trial:
    """One study under one kind of fault."""

    bench: Bench
    rng: random.Random
    outcome: Outcome
    shape: Shape
    studies: list[Study] = field(default_factory=list)

    def study(self, *options: str, **environment: str) -> Study:
        """Make the study, with a checkpoint after each step or every fifth of a second."""
        assert self.reference  # before the study, with which it would compete
        made = self.bench.study(self.shape, *options, interval=self.rng.choice([0.0, 0.0, 0.2]), **environment)
        self.studies.append(made)
        return made

    @property
    def reference(self) -> Study:
        """The same without any fault."""
        return self.bench.reference(self.shape)

    def moment(self, kind: str = "") -> tuple[int, float]:
        """Draw a moment of a whole study: so many events, of one kind or any, and some milliseconds more."""
        return self.rng.randint(1, max(self.reference.count(kind) - 1, 1)), self.rng.uniform(0, 0.04)

    def hit(self, study: Study, command: Command, act: Callable[[], object], kind: str = "", at_once: int = 1) -> bool:
        """At a drawn moment of ``command`` let ``act`` do its harm; False where the command ended before, or it says
        so."""
        events, delay = self.moment(kind)
        if not study.wait_for(command, events, kind, delay):
            return False
        if act() is False:
            return False
        study.note_fault(self.outcome.kind, at_once)
        self.outcome.faults += at_once
        return True

    def expect(self, command: Command, *codes: int) -> None:
        """Wait for a command that has to end with one of these codes, or in a clear error where they have 1 or 2."""
        code = command.wait()
        if code not in codes:
            self.outcome.wrong.append(f"ended with {code}: {command.said[-300:]}")
        elif code in (1, 2):
            self.error(command)

    def error(self, command: Command) -> None:
        """Count a clear error; note one that is not clear."""
        if problem := clear_error(command):
            self.outcome.wrong.append(problem)
        else:
            self.outcome.errors += 1

    def finish(self, study: Study, rounded: bool = False, reference: Study | None = None) -> None:
        """Give the command again until all is there, and hold it against the study without any fault."""
        last = study.commands[-1]
        for _ in range(MOST_TIMES):
            if last.wait() == 0 and last.output == study.output:
                break
            self.outcome.resumed += 1
            last = study.run()
            if last.code not in (0, 130):
                self.error(last)
        if last.code != 0:
            self.outcome.wrong.append(f"given again, it still ends with {last.code}: {last.said[-300:]}")
            return
        self.judge(study, rounded, reference)

    def judge(self, study: Study, rounded: bool = False, reference: Study | None = None) -> None:
        """Hold a study that has ended against the one without any fault, and count the steps that it lost."""
        for command in study.commands:
            if command.alone and "Traceback" in command.said:
                self.outcome.wrong.append(f"a traceback: {command.said[-400:]}")
        whole = (reference or self.reference).study
        self.outcome.wrong += differences(study.study, whole, rounded)
        lost, wrong = steps_lost(study)
        self.outcome.lost += lost
        self.outcome.wrong += wrong


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    name: str
    about: str
    """What it is, and what the tool does about it, for the page."""
    inflict: Callable[[Trial], None]
    shapes: tuple[str, ...]
    """Those of which one is drawn; empty: any."""
    needs: str
    """`root`, `slurm` or nothing."""
    cold: bool
    """True where each study takes tens of seconds, because its processes load the libraries themselves."""

    def draw(self, rng: random.Random) -> Shape:
        """Choose the shape of a study."""
        short = [shape.name for shape in recipes.SHAPES if shape.steps == recipes.STEPS]
        return recipes.by_name(rng.choice(self.shapes or short))


KINDS: dict[str, Kind] = {}


def kind(
    name: str, about: str, shapes: tuple[str, ...] = (), needs: str = "", cold: bool = False
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Enter a kind of fault under its name."""

    def enter(inflict: Callable[[Trial], None]) -> Callable[[Trial], None]:
        KINDS[name] = Kind(name, about, inflict, shapes, needs, cold)
        return inflict

    return enter
