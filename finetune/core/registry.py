"""Finds plug-ins: a strategy, task or mitigation is one file in its folder, and is found because it is there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any, Generic, TypeVar

from finetune.core.errors import bad_input, did_you_mean

T = TypeVar("T", bound=Any)


class Registry(Generic[T]):
    """The plug-ins of one kind, by the word a recipe uses for them.

    A plug-in is a class with ``name`` (that word) and ``Options`` (what the recipe may say), whose docstring's
    first line says what it does. Plug-in modules keep heavy imports inside functions, because listing
    strategies and validating a recipe must not wait for torch.
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._found: dict[str, T] = {}
        self._searched = False

    def register(self, plugin: T) -> T:
        """Class decorator; refuses a second plug-in of the same name."""
        name = plugin.name
        if name in self._found and self._found[name] is not plugin:
            raise ValueError(f"two {self.kind} plug-ins are called '{name}': {self.file(name)} and {_file(plugin)}")
        self._found[name] = plugin
        return plugin

    def all(self) -> dict[str, T]:
        """Every plug-in, by name, in alphabetical order."""
        if not self._searched:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._searched = True
        return dict(sorted(self._found.items()))

    def get(self, name: str, path: str | None = None) -> T:
        """The plug-in called ``name``; an :class:`InputError` at recipe ``path`` when there is none."""
        known = self.all()
        if name not in known:
            raise bad_input(path, f"there is no {self.kind} called '{name}'", did_you_mean(name, known))
        return known[name]

    def file(self, name: str) -> Path:
        """The file that defines the plug-in."""
        return _file(self._found[name])


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
