"""The cluster file: what a study's jobs ask of a scheduler, and what comes before their runs. Read as recipes are."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, field_validator

from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.options import Options
from finetune.core.secrets import SECRET
from finetune.recipe.explain import explain
from finetune.recipe.files import read_text
from finetune.recipe.private import private
from finetune.recipe.sections import explaining
from finetune.recipe.tree import Node, Origin, shown
from finetune.recipe.validate import by_place, located
from finetune.recipe.yaml_text import parse

LEAD = 60
"""Seconds before the end of its time at which a run is told to save and leave."""

LEAST_MINUTES = 3
"""A shorter time is refused: SLURM may tell a run a minute early that its last minute begins, and it has to start."""


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


Line = Annotated[str, AfterValidator(_one_line)]


def _object_name(text: str) -> str:
    if len(text) > 253 or not re.fullmatch(r"[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?", text):
        raise ValueError(f"is {text!r}; names in Kubernetes are small letters, digits, - and . alone")
    return text


ObjectName = Annotated[str, AfterValidator(_object_name)]

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

LABEL_KEY = re.compile(r"(?:[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")
"""A key of a label, or of a taint, or the name of a resource: a domain and a slash may come first."""

LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class KubernetesOptions(Options):
    """What Kubernetes alone is told."""

    image: Line
    """Image that has finetune and what the recipe needs."""
    claim: ObjectName
    """Persistent volume claim that holds the recipe, the data and the study's folder."""
    mount: str
    """Folder that is the claim, here as in the pods: each path means the same in both."""
    context: Line | None = None
    """Cluster, as `kubectl config get-contexts` names it; kubectl's own by default."""
    namespace: ObjectName | None = None
    """Namespace; kubectl's own by default."""
    queue: ObjectName | None = None
    """Queue of Kueue's in which the Jobs wait until their quota is free; without one they are placed as nodes are."""
    priority: ObjectName | None = None
    """Priority class of the pods."""
    secrets: dict[str, str] = Field({})
    """Variables whose values Kubernetes keeps, as the names of a Secret and of a key in it: `{HF_TOKEN: hf/token}`."""
    pull_secrets: list[ObjectName] = Field([])
    """Secrets by which the image is pulled."""
    service_account: ObjectName | None = None
    """Service account of the pods; they are given no token of it."""
    node_selector: dict[str, str] = Field({})
    """Labels that a node must have, such as `{nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}`."""
    tolerations: list[Line] = Field([])
    """Taints that a node may have, as `kubectl taint` writes them: `nvidia.com/gpu=present:NoSchedule`, or the key."""
    gpu_resource: Line = "nvidia.com/gpu"
    """What nodes call their GPUs."""
    autoscaling: bool = False
    """Whether nodes with GPUs are added when they are asked for, so that there need be none yet."""
    at_once: int | None = Field(None, ge=1)
    """Groups of runs that are done at once, at most; all of them by default."""
    grace: int = Field(120, ge=30)
    """Seconds that a pod has to save in, when it has to leave."""
    user: int | None = Field(None, ge=0)
    """Number of the user, and of the group, as whom the pods write; the image's own by default."""

    def holds(self, path: str | Path) -> bool:
        """Tell whether a path lies on the claim."""
        return Path(os.path.normpath(path)).is_relative_to(self.mount)

    @field_validator("mount")
    @classmethod
    def _folder(cls, value: str) -> str:
        if not re.fullmatch(r"/[^:\0-\x1f]+", value) or value != os.path.normpath(value):
            raise ValueError(f"is {value!r}; it must be the whole path of a folder, without a colon, as in /mnt/team")
        return value

    @field_validator("secrets")
    @classmethod
    def _references(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"has '{name}', which cannot be the name of a variable")
            secret, _, key = text.partition("/")
            if not re.fullmatch(r"[-._A-Za-z0-9]{1,253}", key):
                raise ValueError(f"has {name}, which names no Secret and key in it; write {name}: NAME/KEY")
            _object_name(secret)
        return value

    @field_validator("node_selector")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(text):
                raise ValueError(f"has '{key}: {text}', which cannot be a label of a node")
        return value

    @field_validator("tolerations")
    @classmethod
    def _taints(cls, value: list[str]) -> list[str]:
        for text in value:
            key, said, effect = taint(text)
            if not (LABEL_KEY.fullmatch(key) and LABEL_VALUE.fullmatch(said or "") and effect in ("", *EFFECTS)):
                raise ValueError(f"has '{text}'; a taint is KEY, KEY:EFFECT or KEY=VALUE:EFFECT, as in gpu:NoSchedule")
        return value

    @field_validator("gpu_resource")
    @classmethod
    def _resource(cls, value: str) -> str:
        if not LABEL_KEY.fullmatch(value) or "/" not in value:
            raise ValueError(f"is {value!r}; it must be a resource of nodes, as in nvidia.com/gpu")
        return value


def taint(text: str) -> tuple[str, str | None, str]:
    """Take a taint apart: its key, its value (None: any) and its effect (empty: any)."""
    rest, _, effect = text.partition(":")
    key, equals, value = rest.partition("=")
    return key, value if equals else None, effect


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
    """Main memory on each node, as in `32G` or `32Gi`, which are the same: G is 2^30 bytes; a number alone is M."""
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
    """Variables of the tasks. They also have those of the shell that launches, which is the place for secrets; in pods
    that is `kubernetes.secrets`."""
    container: Line | None = None
    """What to put before the command, as in `apptainer exec finetune.sif`."""
    python: Line | None = None
    """Python that has finetune on the nodes or in the container; the one that launches by default, or an image's
    `python`."""
    kubernetes: KubernetesOptions | None = None
    """What Kubernetes alone is told; see below."""

    @field_validator("gpus")
    @classmethod
    def _count_or_type(cls, value: int | str | None) -> int | str | None:
        if value is not None and not re.fullmatch(r"(?:[A-Za-z0-9_.-]+:)?[0-9]+", str(value), re.ASCII):
            raise ValueError(f"is {value!r}; it must be a number of GPUs, or their type and number, as in a100:2")
        return value

    @field_validator("memory")
    @classmethod
    def _amount(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9]+(?:[KMGT]i?)?", value):
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
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"has '{name}', which cannot be the name of a variable")
            if SECRET.search(name):
                found = f"has {name}, which would lie in a batch script"
                raise ValueError(f"{found}; export it in the shell that launches, or name it in kubernetes.secrets")
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


def torchrun_settings(seconds: int) -> dict[str, str]:
    """Give the variables by which torchrun hands signals on instead of dying of them, which would leave its workers
    without it, and gives these so many seconds to save in; by itself it kills them after 30."""
    signals = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"
    return {"PET_SIGNALS_TO_HANDLE": signals, "PET_SHUTDOWN_TIMEOUT": str(seconds)}


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
        return InputError(self.problem(option, found, advice))

    def problem(self, option: str, found: str, advice: str = "") -> Problem:
        """Say what is wrong with an option, with its place in the file, or that of the section that lacks it."""
        return Problem(found, advice, option, self.tree.nearest(option.split(".")).origin.where or None)

    def says(self, option: str) -> bool:
        """Tell whether an option is written there."""
        return self.tree.find(option.split(".")) is not None


def read_cluster(path: Path | None) -> Cluster:
    """Read a cluster file; without one, ask for nothing but what the cluster gives by itself. Raises InputError with
    every mistake."""
    if path is None:
        return Cluster(ClusterOptions(), Node({}, Origin("")))
    name, folder = shown(path), path.absolute().parent
    root, problems = parse(read_text(path), lambda line: Origin(f"{name}:{line}", folder))
    tree = Node({}, Origin(name)) if root is None or root.content is None else root
    if not tree.is_mapping:
        raise bad_input(
            None, f"{shown(path)} is not a cluster file", "write `key: value` lines, such as partition: gpu"
        )
    try:
        options = ClusterOptions.model_validate(tree.plain())
    except ValidationError as error:
        with explaining(ClusterOptions, "a cluster file"):
            problems += located(tree, explain(error, tree))
    problems += private([tree], shell=True)
    if problems:
        raise InputError(sorted(problems, key=by_place))
    return Cluster(options, tree)
