"""Cases, each made from the seed and its number alone: files, and what `finetune` is asked about them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts._fuzz import data, recipes
from scripts._fuzz.material import Material

RECIPES, DATA = "recipes", "data"
MAKERS: dict[str, dict[str, tuple[int, Callable[[random.Random, Material], tuple[dict[str, bytes], list[str]]]]]] = {
    RECIPES: {
        "shipped recipes": (6, recipes.shipped),
        "small recipes, with their data": (3, recipes.small),
        "cluster files": (1, recipes.cluster),
    },
    DATA: {name: (1, maker) for name, maker in data.MAKERS.items()},
}
"""By what is broken and by group: how often it comes, and what makes a case of it."""

TRIES = 20


@dataclass(frozen=True)
class Case:
    """One case."""

    kind: str
    group: str
    number: int
    files: dict[str, bytes]
    """What lies in the folder, by its path there."""
    command: list[str]
    """Arguments of `finetune`, which is called in the folder."""

    @property
    def name(self) -> str:
        """How to ask for it again: `--only`."""
        return f"{self.kind}:{self.number}"

    def write(self, folder: Path) -> None:
        """Lay out the folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def make(kind: str, number: int, seed: int, material: Material) -> Case:
    """The case of a kind with a number."""
    rng = random.Random(f"{seed}:{kind}:{number}")
    makers = MAKERS[kind]
    group = rng.choices(list(makers), [weight for weight, _ in makers.values()])[0]
    for _ in range(TRIES):
        try:
            return Case(kind, group, number, *makers[group][1](rng, material))
        except (ValueError, OverflowError):  # a value that a format cannot hold: another one is drawn
            continue
    raise RuntimeError(f"{group}: nothing that was drawn can be written")
