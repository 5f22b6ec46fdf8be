"""The field's rules of thumb, answered with what the study itself has shown; or with the variant that would show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from finetune.core.numbers import count
from finetune.metrics import unit
from finetune.results.overfitting import Overfitting, overfitting_of
from finetune.results.ranking import best_variant, headline_row
from finetune.results.reading import Study
from finetune.results.schema import PairResult, Results

UNDECIDED = "undecided"


@dataclass(frozen=True)
class Thumb:
    """A rule of thumb, and the study's answer."""

    rule: str
    shown: bool
    """Whether the study has variants that differ in this alone."""
    answer: str
    """What they show, in words for a person; else which variant would show it."""
    variant: str = ""
    """That variant, as a recipe would have it."""


@dataclass(frozen=True)
class Pair:
    """Two variants that differ in one option alone."""

    less: str
    more: str
    values: tuple[float, float]
    """Of the option, the lower one first."""

    def titled(self, form: str = "{:g}") -> str:
        return f"{self.more} ({form.format(self.values[1])}) against {self.less} ({form.format(self.values[0])})"


def rules_of_thumb(study: Study, results: Results) -> list[Thumb]:
    """Answer each rule of thumb, in the order in which they cost least; none where nothing has been scored."""
    best = best_variant(results)
    if best is None or not results.tasks:
        return []
    recipes = {name: entry["recipe"] for name, entry in study.resolved["variants"].items() if "recipe" in entry}
    if best.name not in recipes:
        return []
    recipe = recipes[best.name]
    found = [_more_data(study, results, recipes, recipe, best.name)]
    if recipe.get("train") and _steps(recipe):
        found += [
            _small_batches(study, results, recipes, recipe, best.name),
            _high_rates(results, recipes, recipe, best.name),
            _enough_epochs(results, recipes, recipe, best.name),
        ]
    return found


def _steps(recipe: Mapping[str, Any]) -> bool:
    """Tell whether a variant takes steps: a solved probe does not."""
    strategy = recipe.get("strategy", {})
    probe = strategy.get("type") == "linear" and strategy.get("mode", "probe") == "probe"
    return not probe or strategy.get("solver") == "steps"


def _more_data(
    study: Study, results: Results, recipes: Mapping[str, Any], recipe: Mapping[str, Any], name: str
) -> Thumb:
    rule = "More data make a better model."
    examples = study.data.get("splits", {}).get("train", {}).get("examples")
    # Without a number it is all that there is.
    if pair := _pair(recipes, ("data", "split", "train"), study.data.get("pool", examples)):
        return Thumb(rule, True, _score(results, pair, "more training examples", "{:g} examples"))
    half = max(1, (examples or 2) // 2)
    return _would(rule, f"{name}-half", name, f"data: {{split: {{train: {half}}}}}", recipe)


def _small_batches(
    study: Study, results: Results, recipes: Mapping[str, Any], recipe: Mapping[str, Any], name: str
) -> Thumb:
    rule = "Small batches keep a model from overfitting."
    size = recipe["train"].get("batch_size", 16)
    pair = _pair(recipes, ("train", "batch_size"))
    if pair is None:
        return _would(rule, f"{name}-small-batch", name, f"train: {{batch_size: {max(1, size // 4)}}}", recipe)
    small, large = (overfitting_of(study.variants.get(each, []), results.level) for each in (pair.less, pair.more))
    gaps = "How much either overfits is not known, without validation examples."
    if small and large:
        gaps = f"{_gap(pair.less, pair.values[0], small)}; {_gap(pair.more, pair.values[1], large)}."
    return Thumb(rule, True, f"{_score(results, pair, 'a larger batch', 'batches of {:g}')} {gaps}")


def _gap(name: str, size: float, found: Overfitting) -> str:
    shown = unit("loss")
    interval = f" {shown.interval(found.end.ci, signed=True)}" if found.end.ci else ""
    apart = f"{shown.number(found.end.mean, signed=True)}{interval}"
    return f"Batches of {size:g} ({name}): the validation loss ends {apart} from the training loss"


def _high_rates(results: Results, recipes: Mapping[str, Any], recipe: Mapping[str, Any], name: str) -> Thumb:
    rule = "High learning rates make runs scatter."
    rate = recipe["train"].get("learning_rate", 5e-5)
    pair = _pair(recipes, ("train", "learning_rate"))
    if pair is None:
        return _would(rule, f"{name}-high-rate", name, f"train: {{learning_rate: {5 * rate:g}}}", recipe)
    row, sign = _row(results, pair)
    parts = []
    for each, value in ((pair.more, pair.values[1]), (pair.less, pair.values[0])):
        variant = results.variant(each)
        estimate = variant.estimates[results.tasks[0].key]
        spread = "no SD" if estimate.sd is None else f"SD {unit(results.tasks[0].metric).gap(estimate.sd).lstrip('+')}"
        parts.append(f"{value:g} ({each}): {spread}, {variant.failures.count} of {variant.failures.n} failed")
    said = "these seeds do not show that one scatters more"
    if row is not None and row.spread_verdict != UNDECIDED:
        wider = (row.spread_verdict == "less stable") == (sign > 0)
        said = f"the {'higher' if wider else 'lower'} rate scatters more"
    return Thumb(rule, True, f"{'; '.join(parts)}: {said}.")


def _enough_epochs(results: Results, recipes: Mapping[str, Any], recipe: Mapping[str, Any], name: str) -> Thumb:
    rule = "Train for enough epochs."
    for option in ("epochs", "min_steps", "max_steps"):
        if pair := _pair(recipes, ("train", option)):
            return Thumb(rule, True, _score(results, pair, "longer training", f"{option} {{:g}}"))
    train = recipe["train"]
    said = {"epochs": f"{2 * train.get('epochs', 3.0):g}", "min_steps": f"{2 * train.get('min_steps', 100):g}"}
    if train.get("max_steps"):
        said["max_steps"] = f"{2 * train['max_steps']:g}"
    twice = ", ".join(f"{key}: {value}" for key, value in said.items())
    return _would(rule, f"{name}-twice", name, f"train: {{{twice}}}", recipe)


def _would(rule: str, called: str, name: str, change: str, recipe: Mapping[str, Any]) -> Thumb:
    """Say which variant would show it."""
    answer = f"No two variants differ in this alone. To see it, run {name} beside a variant that changes only this:"
    return Thumb(rule, False, answer, f"{called}: {{{change}}}   # and what {name} says")


def _pair(recipes: Mapping[str, Any], path: tuple[str, ...], absent: float | None = None) -> Pair | None:
    """Find two variants that differ in the number at ``path`` alone: those whose numbers are farthest apart. ``absent``
    is what null stands for."""
    flat = {name: dict(_leaves(recipe)) for name, recipe in recipes.items()}
    found = []
    for less, more in permutations(flat, 2):
        keys = {key for key in {**flat[less], **flat[more]} if flat[less].get(key) != flat[more].get(key)}
        low, high = (absent if (value := flat[each].get(path)) is None else value for each in (less, more))
        if keys - {("train", "chosen_by")} == {path} and isinstance(low, int | float) and isinstance(high, int | float):
            found += [Pair(less, more, (low, high))] if low < high else []
    return max(found, key=lambda pair: pair.values[1] / max(pair.values[0], 1e-12), default=None)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path, value


def _row(results: Results, pair: Pair) -> tuple[PairResult | None, int]:
    """Find the comparison of a pair, and the sign that makes it one of more against less."""
    row = headline_row(results, pair.more, pair.less)
    return (row, 1) if row is not None else (headline_row(results, pair.less, pair.more), -1)


def _score(results: Results, pair: Pair, what: str, form: str) -> str:
    """Say what more of something did to the score."""
    row, sign = _row(results, pair)
    if row is None or row.difference is None:
        return f"{pair.titled(form)}: there is no difference of scores to tell, since too few runs work."
    shown = unit(row.metric)
    ends = sorted(sign * end for end in row.ci) if row.ci else []
    interval = f" {shown.interval((ends[0], ends[1]), signed=True)}" if ends else ""
    word = row.verdict if sign > 0 else {"better": "worse", "worse": "better"}.get(row.verdict, row.verdict)
    said = {"better": f"{what} did better", "worse": f"{what} did worse"}.get(word, f"{what} is not shown to matter")
    seeds = count(len(results.seeds))
    return f"{pair.titled(form)}: {shown.gap(sign * row.difference)} {row.metric}{interval}, {seeds} seeds: {said}."
