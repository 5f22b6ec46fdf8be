"""Finds the file of a task of the harness, and what it would run: before anything of it is run."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from finetune.core.errors import bad_input, did_you_mean, first_line
from finetune.core.progress import phase
from finetune.tasks.harness.options import HarnessOptions

PACKAGE = "lm_eval"
INSTALL = "pip install 'finetune[lm-eval]'"
FUNCTION = "!function"
"""The tag of a YAML value that names a Python function."""
REACHES = re.compile(r"__[a-z]+__")
"""What a template has that reaches for Python's own objects: the harness's templates are not sandboxed."""


@dataclass(frozen=True)
class TaskFile:
    """A task that the harness knows, and nothing of it run."""

    name: str
    path: Path | None
    """Its YAML file; None for a task without one."""
    own: bool
    """Whether it is one of the user's, and did not come with the harness."""
    config: dict[str, Any]
    """What the file says with what it includes; functions are their paths."""
    sources: tuple[Path, ...] = ()
    """The file and those that it includes, itself last."""


@contextmanager
def quiet() -> Iterator[None]:
    """Within the context, let the harness log nothing, and `datasets` draw nothing: what a person has to know is said
    by us."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger, drawn = logging.getLogger(PACKAGE), not are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if drawn:
            enable_progress_bars()


def require_package(at: str) -> None:
    """Raise InputError at recipe path ``at`` where the harness is not installed."""
    if find_spec(PACKAGE) is None:
        raise bad_input(at, "needs the package lm-eval, which is not installed", INSTALL)


def find(options: HarnessOptions, at: str) -> TaskFile:
    """Find the task that ``options`` name. Raises InputError under recipe path ``at`` for one that there is not, for a
    group of tasks, and for code that the recipe does not let it run."""
    require_package(at)
    index: dict[str, Any] = {}
    if options.include is not None:
        folder = Path(options.include)
        if not folder.is_dir():
            raise bad_input(f"{at}.include", f"there is no folder '{options.include}'", "name a folder of task files")
        _refuse_broken(folder, at)
        index = _index(folder)
    own = options.task in index
    if not own:
        index = {**_installed(), **index}
    if options.task not in index:
        found = f"lm-evaluation-harness has no task '{options.task}'"
        raise bad_input(f"{at}.task", found, did_you_mean(options.task, index))
    entry = index[options.task]
    if entry.kind.name in ("GROUP", "TAG"):
        found = f"'{options.task}' is a group of tasks, and each set is one task"
        raise bad_input(f"{at}.task", found, f"name those that are to be scored: {_members(entry)}")
    sources = tuple(_included(entry.yaml_path)) if entry.yaml_path else ()
    task = TaskFile(options.task, entry.yaml_path, own, dict(entry.cfg or {}), sources)
    if not options.run_code and (reason := next(code_of(task), None)):
        raise bad_input(f"{at}.task", f"'{options.task}' {reason}", f"read it, and write {at}.run_code: true")
    return task


def _index(folder: Path) -> dict[str, Any]:
    """Read the names of all task files in ``folder``, without running anything of them."""
    from lm_eval.tasks import TaskManager

    with quiet():
        return dict(TaskManager(include_path=folder, include_defaults=False).task_index)


def _refuse_broken(folder: Path, at: str) -> None:
    """Refuse a task file of the user's that cannot be read: the harness would leave it out without a word."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(folder.rglob("*.yaml")):
        try:
            load_yaml(path, resolve_func=False)
        except (yaml.YAMLError, ValueError, OSError) as error:
            raise bad_input(f"{at}.include", f"'{path}' cannot be read: {first_line(error)}", "correct it") from error


@cache
def _installed() -> dict[str, Any]:
    """Read the names of the harness's own tasks, once in a process: there are thousands of files."""
    from lm_eval.tasks import TaskManager

    with phase("reading the names of lm-evaluation-harness's tasks"), quiet():
        return dict(TaskManager().task_index)


def _members(entry: Any) -> str:
    """List what is in a group, as far as its own file names it."""
    listed = sorted(entry.tags) if entry.kind.name == "TAG" else (entry.cfg or {}).get("task", [])
    names = [str(each.get("task") or each.get("group")) if isinstance(each, dict) else str(each) for each in listed]
    return ", ".join([*names[:8], *([f"… ({len(names)} in all)"] if len(names) > 8 else [])])


def _included(path: Path) -> Iterator[Path]:
    """Yield the files that the task file ``path`` includes, and then itself."""
    said = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    pairs = said.value if isinstance(said, yaml.MappingNode) else []
    for key, value in pairs:
        if key.value == "include":
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _included((path.parent / each.value).resolve())
    yield path


def code_of(task: TaskFile) -> Iterator[str]:
    """Yield, in words, each kind of code that a task would run and that did not come with an installed package."""
    config = task.config
    if task.own:
        for path in task.sources:
            for node in _nodes(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)):
                if node.tag == FUNCTION:
                    yield f"runs Python: {path.name} names the function {node.value}"
                elif isinstance(node, yaml.ScalarNode) and (match := REACHES.search(node.value)):
                    yield f"has a template that reaches into Python: {path.name} says {match.group()}"
    if config.get("unsafe_code"):
        yield "runs programs that the model has written"
    yield from (f"fetches its metric '{name}' from the hub, as code" for name in _fetched(config))


def _nodes(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield all values in a YAML document, keys among them."""
    if node is None:
        return
    yield node
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for each in pair:
                yield from _nodes(each)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _nodes(each)


def _fetched(config: dict[str, Any]) -> Iterator[str]:
    """Yield the names of metrics that the harness has not, and would take from the hub of `evaluate`."""
    import lm_eval.api.metrics  # noqa: F401  # which fills the registry
    from lm_eval.api.registry import metric_registry

    if config.get("process_results") is not None:
        return
    for each in config.get("metric_list") or []:
        name = each.get("metric")
        unknown = isinstance(name, str) and "/" not in name and name not in metric_registry  # functions are paths
        if each.get("hf_evaluate") is True or unknown:
            yield str(name)
