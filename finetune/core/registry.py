"""Finds plug-ins: a strategy, task, mitigation or metric is one file in its folder, found because it is there; those
of other packages are found by the entry points that these have installed, in a group called like our module."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_args

from finetune.core.errors import bad_input, did_you_mean, first_line

T = TypeVar("T", bound=Any)


class LeftOut(NamedTuple):
    """A plug-in of another package that cannot be used."""

    name: str
    """What its entry point is called."""
    package: str
    """The package that it comes with, and its version."""
    error: str
    """Why, in words."""


class Registry(Generic[T]):
    """The plug-ins of one kind, by the word a recipe uses for them.

    A plug-in is a class with ``name`` (that word) and, but for metrics, ``Options`` (what the recipe may say), whose
    docstring's first line says what it does. Plug-in modules keep heavy imports inside functions, because listing
    strategies and validating a recipe must not wait for torch.
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._found: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._left_out: list[LeftOut] = []
        self._searched = False

    def register(self, plugin: T) -> T:
        """Register a class (a decorator); refuse a second of its name. Ours have their names whoever comes first."""
        name = plugin.name
        if name in self._found and self._found[name] is not plugin:
            found = f"two {self.kind} plug-ins are called '{name}': {self.file(name)} and {_file(plugin)}"
            if not self._ours(plugin) or self._ours(self._found[name]):
                raise ValueError(found)
            self._left_out.append(LeftOut(name, self.origin(name) or "", found))
        self._found[name] = plugin
        return plugin

    def all(self) -> dict[str, T]:
        """Every plug-in, by name, in alphabetical order."""
        if not self._searched:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._searched = True
            for entry in sorted(_entry_points(tuple(sys.path), self.package), key=lambda each: each.name):
                self._load(entry)
        return dict(sorted(self._found.items()))

    def get(self, name: str, path: str | None = None) -> T:
        """The plug-in called ``name``; an :class:`InputError` at recipe ``path`` when there is none."""
        known = self.all()
        if name not in known:
            raise bad_input(path, *self.missing(name, known))
        return known[name]

    def missing(self, name: str, known: Iterable[str]) -> tuple[str, str]:
        """Say why there is no plug-in called ``name`` among those ``known``, and what to do about it."""
        for each in self.left_out:
            if each.name == name:
                found = f"the {self.kind} '{name}' of {each.package} cannot be used: {each.error}"
                return found, f"update {each.package.partition(' ')[0]}, or take it out"
        return f"there is no {self.kind} called '{name}'", did_you_mean(name, known)

    def file(self, name: str) -> Path:
        """The file that defines the plug-in."""
        return _file(self._found[name])

    def origin(self, name: str) -> str | None:
        """The package that the plug-in comes with, and its version; None for our own."""
        plugin = self._found[name]
        return None if self._ours(plugin) else self._origins.get(name, plugin.__module__.partition(".")[0])

    @property
    def left_out(self) -> list[LeftOut]:
        """The plug-ins of other packages that cannot be used."""
        self.all()
        return list(self._left_out)

    def _ours(self, plugin: T) -> bool:
        return bool(plugin.__module__.startswith(f"{self.package}."))

    def _load(self, entry: importlib.metadata.EntryPoint) -> None:
        """Add another package's plug-in, or say why it is left out."""
        before = set(self._found)
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value.partition(".")[0]
        try:
            plugin: Any = entry.load()
            named = inspect.isclass(plugin) and isinstance(getattr(plugin, "name", None), str)
            if not named:
                raise TypeError(f"{plugin!r:.80} is no class with a name")
            self._check(self.register(plugin))
        except (Exception, SystemExit) as error:  # foreign code: anything can come out of it
            reason = first_line(error)
            self._left_out.append(LeftOut(entry.name, package, f"{type(error).__name__}: {reason}"))
            # What it has registered by itself before it failed goes with it.
            self._found = {name: each for name, each in self._found.items() if name in before or self._ours(each)}
        else:
            self._origins[plugin.name] = package

    def _check(self, plugin: Any) -> None:
        """Raise TypeError for what is no plug-in of this kind: it would be noticed too late, and break the others."""
        module = f"{self.package}.base"
        known = importlib.util.find_spec(module) and importlib.import_module(module)
        base = getattr(known, self.kind.capitalize(), object)
        if not issubclass(plugin, base):
            raise TypeError(f"{plugin.__name__} is no subclass of {module}.{base.__name__}")
        said = [item for each in base.__mro__ for item in inspect.get_annotations(each).items()]
        asked = {name for name, kind in said if str(kind).startswith("ClassVar")}
        if missing := sorted(name for name in asked if not hasattr(plugin, name)):
            raise TypeError(f"{plugin.__name__} does not say its {', '.join(missing)}")
        options: Any = getattr(plugin, "Options", None)
        if options is not None and get_args(options.model_fields["type"].annotation) != (plugin.name,):
            raise TypeError(f"the options of {plugin.__name__} have another type than '{plugin.name}'")


@lru_cache(maxsize=8)
def _entry_points(path: tuple[str, ...], group: str) -> importlib.metadata.EntryPoints:
    """Find a group's entry points in all packages on Python's ``path``, which takes some milliseconds to search."""
    return importlib.metadata.entry_points(group=group)


def _file(plugin: type) -> Path:
    return Path(inspect.getfile(plugin))


def summary(plugin: type) -> str:
    """The first line of a plug-in's docstring."""
    return (inspect.getdoc(plugin) or "").partition("\n")[0]


def paragraphs(plugin: type) -> list[str]:
    """The paragraphs of a plug-in's docstring, each in one line."""
    return [" ".join(text.split()) for text in re.split(r"\n\s*\n", inspect.getdoc(plugin) or "")]


STRATEGIES: Registry[Any] = Registry("strategy", "finetune.strategies")
TASKS: Registry[Any] = Registry("task", "finetune.tasks")
MITIGATIONS: Registry[Any] = Registry("mitigation", "finetune.mitigations")
METRICS: Registry[Any] = Registry("metric", "finetune.metrics")
ADVICE: Registry[Any] = Registry("rule", "finetune.advice")
