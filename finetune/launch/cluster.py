"""The cluster file: what a study's jobs ask of a scheduler, and what comes before their runs. Read as recipes are."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, field_validator

from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.options import Options
from finetune.recipe.explain import explain
from finetune.recipe.files import read_text
from finetune.recipe.sections import explaining
from finetune.recipe.tree import Node, Origin, shown
from finetune.recipe.validate import by_place, located
from finetune.recipe.yaml_text import parse

LEAD = 60
"""Seconds before the end of its time at which a run is told to save and leave."""

LEAST_MINUTES = 3
"""A shorter time is refused: SLURM may tell a run a minute early that its last minute begins, and it has to start."""

SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Names of variables whose values do not belong into a batch script."""


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


Line = Annotated[str, AfterValidator(_one_line)]


class ClusterOptions(Options):
    """What each task of a study's array asks for, and what comes before its runs."""

    partition: Line | None = None
    """Partition, or several with commas; the cluster's own by default."""
    account: Line | None = None
    """Account that is charged."""
    qos: Line | None = None
    """Quality of service."""
    gpus: int | str | None = None
    """GPUs on each node, with their type where it matters: `2`, `a100:2`; launched locally, the devices to use."""
    cpus: int | None = Field(None, ge=1)
    """CPU cores on each node."""
    memory: str | None = None
    """Main memory on each node, as in `32G`."""
    time: int | str | None = None
    """Longest time of a task at once, in minutes or as in `4:00:00` or `1-12:00:00`. A run that needs longer saves
    before, and goes on in another turn."""
    nodes: int = Field(1, ge=1)
    """Nodes that share each run, by torchrun."""
    processes: int = Field(1, ge=1)
    """Processes on each node that share each run, by torchrun. With one, a task lays its runs out over its GPUs."""
    runs_per_task: int = Field(1, ge=1)
    """Runs of a variant that one task does, side by side where that pays."""
    retries: int = Field(1, ge=0, le=100)
    """How often the runs that have ended in an error, or have not been done, are submitted again."""
    modules: list[Line] = Field([])
    """Modules to load, as in `cuda/12.4`."""
    setup: list[Line] = Field([])
    """Lines of shell before a task's runs, such as `source /opt/env.sh`; one that fails ends the task."""
    environment: dict[str, str] = Field({})
    """Variables of the tasks. They also have those of the shell that launches, which is the place for secrets."""
    container: Line | None = None
    """What to put before the command, as in `apptainer exec finetune.sif`."""
    python: Line | None = None
    """Python that has finetune on the nodes or in the container; the one that launches by default."""

    @field_validator("gpus")
    @classmethod
    def _count_or_type(cls, value: int | str | None) -> int | str | None:
        if value is not None and not re.fullmatch(r"(?:[A-Za-z0-9_.-]+:)?[0-9]+", str(value), re.ASCII):
            raise ValueError(f"is {value!r}; it must be a number of GPUs, or their type and number, as in a100:2")
        return value

    @field_validator("memory")
    @classmethod
    def _amount(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9]+[KMGT]?", value):
            raise ValueError(f"is {value!r}; it must be a number with K, M, G or T, as in 32G")
        return value

    @field_validator("time")
    @classmethod
    def _long_enough(cls, value: int | str | None) -> int | str | None:
        if value is not None and (found := _minutes(value)) < LEAST_MINUTES:
            raise ValueError(
                f"is {found:g} minutes, which a task needs to start and to save; it must be at least {LEAST_MINUTES}"
            )
        return value

    @field_validator("container")
    @classmethod
    def _words(cls, value: str | None) -> str | None:
        shlex.split(value or "")  # a quote that is not closed is a ValueError, which says so
        return value

    @field_validator("environment")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"has '{name}', which cannot be the name of a variable")
            if SECRET.search(name):
                raise ValueError(f"has {name}, which would lie in a batch script; export it in the shell that launches")
            if "\0" in text:
                raise ValueError(f"has a NUL character in {name}")
        return value

    @property
    def minutes(self) -> float | None:
        """Give the longest time in minutes."""
        return None if self.time is None else _minutes(self.time)

    @property
    def devices(self) -> int | None:
        """Count the GPUs on a node."""
        return None if self.gpus is None else int(str(self.gpus).rpartition(":")[2])


def _minutes(time: int | str) -> float:
    """Read minutes, `MM:SS`, `H:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`, as SLURM does."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(time), re.ASCII)
    if not found:
        raise ValueError(f"is {time!r}; it must be minutes, or a time as in 4:00:00 or 1-12:00:00")
    days, *rest = found.groups()
    parts = [int(part) for part in rest if part is not None]
    units = (60.0, 1.0, 1 / 60) if days or len(parts) == 3 else (1.0, 1 / 60)
    return int(days or 0) * 1440 + sum(unit * part for unit, part in zip(units, parts, strict=False))


@dataclass(frozen=True)
class Cluster:
    """A cluster file that is valid."""

    options: ClusterOptions
    tree: Node

    def wrong(self, option: str, found: str, advice: str = "") -> InputError:
        """Give an error about an option, with its place in the file."""
        node = self.tree.find((option,))
        return InputError(Problem(found, advice, option, node.origin.where if node else self.tree.origin.where or None))


def read_cluster(path: Path | None) -> Cluster:
    """Read a cluster file; without one, ask for nothing but what the cluster gives by itself. Raises InputError with
    every mistake."""
    if path is None:
        return Cluster(ClusterOptions(), Node({}, Origin("")))
    root, problems = parse(read_text(path), lambda line: Origin(f"{shown(path)}:{line}", path.absolute().parent))
    tree = Node({}, Origin(shown(path))) if root is None or root.content is None else root
    if not tree.is_mapping:
        raise bad_input(
            None, f"{shown(path)} is not a cluster file", "write `key: value` lines, such as partition: gpu"
        )
    try:
        options = ClusterOptions.model_validate(tree.plain())
    except ValidationError as error:
        with explaining(ClusterOptions, "a cluster file"):
            problems += located(tree, explain(error, tree))
    if problems:
        raise InputError(sorted(problems, key=by_place))
    return Cluster(options, tree)
