"""Finds the file of a task of the harness, and what it would run: before anything of it is run."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from finetune.core.errors import InputError, bad_input, did_you_mean, first_line
from finetune.tasks.harness.options import HarnessOptions

PACKAGE = "lm_eval"
INSTALL = "pip install 'finetune[lm-eval]'"
TASK, GROUP = (
    re.compile(rf"^{key}:" + r"""[ \t]*(['"]?)([^\s'"\[#][^'"#\n]*?)\1[ \t]*(?:#.*)?$""", re.MULTILINE)
    for key in ("task", "group")
)
"""The lines in which task files have the name of a task, or of a group of tasks."""
MOST_NAMED = 8
"""Tasks of a group that are named."""
FUNCTION = "!function"
"""The tag of a YAML value that names a Python function."""
REACHES = re.compile(r"__[a-z]+__")
"""What a template has that reaches for Python's own objects: the harness's templates are not sandboxed."""


@dataclass(frozen=True)
class TaskFile:
    """A task that the harness knows, and nothing of it run."""

    name: str
    path: Path
    """Its YAML file."""
    own: bool
    """Whether it is one of the user's, and did not come with the harness."""
    config: dict[str, Any]
    """What the file says with what it includes; functions are their paths."""
    sources: tuple[Path, ...]
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
    from lm_eval.tasks._yaml_loader import load_yaml

    if options.include is not None:
        _refuse_broken(Path(options.include), at)
    for folder in _folders(options):
        path = _named(options.task, folder)
        if path is not None:
            break
    else:
        raise _not_there(options, at)
    own = options.include is not None and folder == Path(options.include)
    task = TaskFile(options.task, path, own, load_yaml(path, resolve_func=False), tuple(_included(path)))
    if not options.run_code and (reason := next(code_of(task), None)):
        raise bad_input(f"{at}.task", f"'{options.task}' {reason}", f"read it, and write {at}.run_code: true")
    return task


def _folders(options: HarnessOptions) -> list[Path]:
    """List the folders where tasks are looked for, the user's first."""
    import lm_eval.tasks

    own = [] if options.include is None else [Path(options.include)]
    return [*own, Path(lm_eval.tasks.__file__).parent]


def _named(name: str, folder: Path) -> Path | None:
    """Find the file in ``folder`` of the task called ``name``: by their texts, as to parse thousands of files takes ten
    times as long."""
    for path in sorted(folder.rglob("*.yaml")):
        if any(found[2] == name for found in TASK.finditer(path.read_text(encoding="utf-8"))):
            return path
    return None


def _refuse_broken(folder: Path, at: str) -> None:
    """Refuse a folder of the user's that is not there, and a task file in it that cannot be read: the harness would
    leave it out without a word."""
    from lm_eval.tasks._yaml_loader import load_yaml

    if not os.path.isdir(folder):
        raise bad_input(f"{at}.include", f"there is no folder '{folder}'", "name a folder of task files")
    for path in sorted(folder.rglob("*.yaml")):
        try:
            load_yaml(path, resolve_func=False)
        except (yaml.YAMLError, ValueError, OSError) as error:
            raise bad_input(f"{at}.include", f"'{path}' cannot be read: {first_line(error)}", "correct it") from error


def _not_there(options: HarnessOptions, at: str) -> InputError:
    """Say that there is no such task, or that it is a group of some, or a tag of theirs."""
    from lm_eval.tasks._yaml_loader import load_yaml

    name, tasks, members = options.task, set[str](), list[str]()
    tag = re.compile(rf"^(?:tag:|[ \t]*-)[ \t]*{re.escape(name)}[ \t]*$", re.MULTILINE)
    for path in (path for folder in _folders(options) for path in sorted(folder.rglob("*.yaml"))):
        text = path.read_text(encoding="utf-8")
        own, groups = ({found[2] for found in kind.finditer(text)} for kind in (TASK, GROUP))
        tasks |= own
        if name in groups:
            listed = load_yaml(path, resolve_func=False).get("task") or []
            members += [str(each.get("task", each.get("group")) if isinstance(each, dict) else each) for each in listed]
        elif own and tag.search(text):
            members += sorted(own)
    if not members:
        found = f"lm-evaluation-harness has no task '{name}'"
        return bad_input(f"{at}.task", found, did_you_mean(name, tasks))
    found = f"'{name}' is a group of tasks, and each set is one task"
    advice = f"name those that are to be scored, such as {', '.join(members[:MOST_NAMED])}"
    return bad_input(f"{at}.task", found, advice)


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
