"""A metric that is a Python function in a file of the user's, which the recipe names as `./my_metric.py:score`."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Collection
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.errors import FinetuneError, bad_input, message_of
from finetune.metrics.base import Columns, Metric, Values
from finetune.metrics.jackknife import pseudo_values
from finetune.metrics.unit import Unit

MARK = ".py:"
GIVEN = {"predictions": "prediction", "references": "reference"}
"""What a function may ask for, by the column that it is; others are called as their columns are."""
MORE = ("loss", "weight", "margin", "probabilities", "labels", "extracted", "extracted_reference")
ALWAYS = frozenset(("reference", "weight", "labels"))
"""Columns that every prediction store has; those that a task fills are the others."""
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def is_function(name: str) -> bool:
    """Tell whether a recipe's word for a metric names a function in a file."""
    return MARK in name


def parts_of(name: str) -> tuple[str, str]:
    """Give the file and the function that a recipe's word names."""
    file, _, function = name.rpartition(":")
    return file, function


def key_of(name: str | Metric) -> str:
    """Give the word under which a metric's scores stand: of a function its file's name and its own, as in
    `my_metric.score`; of others the recipe's word."""
    if isinstance(name, Metric):
        return name.name
    if not is_function(name):
        return name
    file, function = parts_of(name)
    return f"{Path(file).stem}.{function}"


class NoNumber(FinetuneError):
    """A function returned what is infinite or undefined, as a share of none is."""


class FunctionMetric(Metric):
    """What a user's function returns: a number for each example, whose mean is the score; or one number for all.

    What each example contributes to one number for all is found by leaving examples out (the jackknife; Efron and
    Stein 1981), group by group where there are many.
    """

    def __init__(self, name: str, function: Callable[..., Any], wanted: tuple[str, ...]):
        self.name, self.unit, self.function = key_of(name), Unit(key_of(name)), function
        self.higher_is_better = bool(getattr(function, "higher_is_better", True))
        self.wanted = wanted
        """What it asks for, as its parameters are called."""
        self.columns = tuple(GIVEN.get(each, each) for each in wanted)

    def value(self, columns: Columns) -> float:
        """Compute the score. Raises FinetuneError where the function fails, or returns something else than numbers."""
        found = self._call(columns)
        return found if isinstance(found, float) else float(found.mean())

    def contributions(self, columns: Columns) -> Values:
        """Compute what each example adds, (examples,): its own number, or the jackknife's pseudo-value."""
        found = self._call(columns)
        if not isinstance(found, float):
            return found
        n = len(columns["prediction"])
        return pseudo_values(found, n, lambda kept: self.value(_rows(columns, kept)))

    def _call(self, columns: Columns) -> float | Values:
        count = len(columns["prediction"])
        # Copies, which it may change as it likes: others read the columns after it.
        given = {each: copy(columns[name]) for each, name in zip(self.wanted, self.columns, strict=True)}
        try:
            found = self.function(**given)
        except (Exception, SystemExit) as error:  # foreign code: anything can come out of it
            raise FinetuneError(f"{self.name} failed on {count} predictions: {_in_words(error)}") from error
        try:
            if found is None or isinstance(found, str):
                raise TypeError("numpy would make a number of it")
            numbers = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise FinetuneError(f"{self.name} returned no number, but: {found!r:.60}") from error
        if numbers.ndim and numbers.shape != (count,):
            wanted = f"one number, or one for each of {count} examples"
            raise FinetuneError(f"{self.name} returned numbers of shape {numbers.shape}; it must be {wanted}")
        if len(odd := numbers[~np.isfinite(numbers)].ravel()):
            said = f"{odd[0]:g}{f' for {len(odd)} of them' if numbers.ndim else ''}, given {count} predictions"
            raise NoNumber(f"{self.name} returned {said}: it must be a number")
        return numbers if numbers.ndim else float(numbers)


def _in_words(error: BaseException) -> str:
    """Say what foreign code raised: many exceptions name no more than a key, or nothing."""
    return type(error).__name__ if message_of(error) == type(error).__name__ else f"{type(error).__name__}: {error}"


def _rows(columns: Columns, kept: Any) -> dict[str, Any]:
    """Keep some examples of all columns."""
    places = np.flatnonzero(kept)

    def chosen(name: str, column: Any) -> Any:
        if column is None or name == "labels":
            return column
        return column[places] if isinstance(column, np.ndarray) else [column[place] for place in places]

    return {name: chosen(name, column) for name, column in columns.items() if name in (*GIVEN.values(), *MORE)}


def load(name: str, at: str) -> FunctionMetric:
    """Run the file that ``name`` names, and take its function. Raises InputError at recipe path ``at`` where there is
    no such file or function, where the file fails, or where the function asks for what no store has."""
    file, word = parts_of(name)
    path = Path(file)
    if not os.path.isfile(path):
        raise bad_input(at, f"there is no file {file}", "a function is written ./my_metric.py:score")
    # As of a script, what it imports may lie beside it; but nothing that is there already comes from there.
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"finetune_metric_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "the name ends in .py"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # foreign code
        raise bad_input(at, f"{path.name} fails: {_in_words(error).splitlines()[0]}", "correct the file") from error
    function = getattr(module, word, None)
    if not callable(function):
        known = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise bad_input(at, f"{path.name} has no function '{word}'", f"it has: {', '.join(known) or 'none'}")
    wanted, unknown = _asked_by(function)
    if unknown or not wanted:
        found = f"{word} asks for {', '.join(unknown)}" if unknown else f"{word} asks for nothing"
        raise bad_input(at, found, f"its parameters may be: {', '.join((*GIVEN, *MORE))}")
    return FunctionMetric(name, function, wanted)


def _asked_by(function: Callable[..., Any]) -> tuple[tuple[str, ...], list[str]]:
    """Tell what a function asks for: what it can be given, and what nobody knows. What it can do without is left to
    it."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of some that are written in C nobody knows
        return (), []
    known = [each.name for each in parameters if each.name in (*GIVEN, *MORE) and each.kind in _BY_NAME]
    others = [each for each in parameters if each.name not in known and each.kind not in _ANY]
    return tuple(known), [each.name for each in others if each.default is inspect.Parameter.empty]


def refuse_unfilled(metric: FunctionMetric, fills: Collection[str], at: str) -> None:
    """Refuse, at recipe path ``at``, a function that asks for columns which a task does not fill."""
    there = {*ALWAYS, *fills, *(["extracted_reference"] if "extracted" in fills else [])}
    lacking = [each for each, column in zip(metric.wanted, metric.columns, strict=True) if column not in there]
    if lacking:
        known = [each for each in (*GIVEN, *MORE) if GIVEN.get(each, each) in there]
        found = f"{metric.name} asks for {', '.join(lacking)}, and this task has none"
        raise bad_input(at, found, f"its parameters may be: {', '.join(known)}")
