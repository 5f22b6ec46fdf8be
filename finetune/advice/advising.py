"""Holds every rule against a recipe that was found valid, and its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.advice.base import Seen
from finetune.core.registry import ADVICE
from finetune.core.run_dir import StudyDir, read_json

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe
    from finetune.results.schema import Results
    from finetune.study.preflight import Preflight


@dataclass(frozen=True)
class Advice:
    """A piece of advice."""

    rule: str
    variants: tuple[str, ...]
    """Those that it is about; empty: all of the study's."""
    found: str
    why: str
    source: str
    instead: str

    def to_json(self) -> dict[str, Any]:
        """Turn it into plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Advice:
        """Read what :meth:`to_json` gives."""
        return cls(**{**said, "variants": tuple(said["variants"])})

    def lines(self) -> Iterator[tuple[str, str]]:
        """Give it in words: lines, each with what stands before it."""
        whose = f"{', '.join(self.variants)}: " if self.variants else ""
        yield f"{self.rule}: ", f"{whose}{self.found}"
        yield "instead: ", self.instead
        yield "why: ", f"{self.why} ({self.source})"


def advise(recipe: ResolvedRecipe, found: Preflight, earlier: Results | None = None) -> list[Advice]:
    """List the advice on a ``recipe`` by rule, but for what it silences; what is said of several variants once.

    ``earlier``: what a study of that name has shown already, on which the rules that ask for it rest.
    """
    silent = set(recipe.variants[0].recipe.silence)
    rules = [rule for name, rule in ADVICE.all().items() if name not in silent]
    said: dict[tuple[str, str, str], list[str]] = {}
    for variant in recipe.variants:
        data, parameters = found.data[variant.name], found.parameters[variant.name]
        seen = Seen(variant.name, variant.recipe, data, parameters, recipe, earlier)
        for rule in rules:
            for saw in rule().look(seen):
                said.setdefault((rule.name, *saw), []).append(variant.name)
    known = {rule.name: rule for rule in rules}
    return [
        Advice(
            name,
            () if len(names) == len(recipe.variants) else tuple(names),
            saw,
            known[name].why,
            known[name].source,
            instead,
        )
        for (name, saw, instead), names in said.items()
    ]


def results_file(recipe: ResolvedRecipe, output: Path) -> Path | None:
    """Find what an earlier study of this recipe's name in ``output`` has shown."""
    folder = StudyDir(output / recipe.name)
    results = folder.report / "results.json"
    return results if results.exists() and folder.data.exists() else None


def earlier_results(recipe: ResolvedRecipe, found: Preflight, output: Path) -> Results | None:
    """Read what a study of this recipe's name in ``output`` has shown; None where there is none, or it was scored on
    other examples."""
    results = results_file(recipe, output)
    if results is None:
        return None
    from finetune.results.schema import from_json

    told = read_json(StudyDir(output / recipe.name).data)
    then = {task["name"]: task["fingerprint"] for task in told.get("tasks", [])}
    splits = found.data[recipe.variants[0].name].facts["splits"]
    now = {name: facts["fingerprint"] for name, facts in splits.items() if name in then}
    return from_json(read_json(results)) if now and now == then else None
