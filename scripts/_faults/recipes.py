"""The recipes of the campaign: tiny models of random weights that learn something in a few dozen steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests import tiny

STEPS = 40
"""Optimizer steps of a run."""


@dataclass(frozen=True)
class Shape:
    """What is trained, and how."""

    name: str
    strategy: str
    chat: bool = False
    options: tuple[str, ...] = ()
    steps: int = STEPS

    @property
    def overrides(self) -> list[str]:
        """What follows the recipe on the command line."""
        return ["variants=null", f"strategy={self.strategy}", f"train.min_steps={self.steps}", *self.options]


LORA = "{type: adapter, method: lora, rank: 4}"
SOUP = "mitigations=[{type: soup}, {type: ensemble}]"
SHAPES = [
    Shape("full", "{type: full}", options=("seeds=1",)),
    Shape("LoRA", LORA, options=("seeds=1", "train.learning_rate=2.0e-2")),
    Shape("partial", "{type: partial, last: 1}", options=("seeds=1",)),
    Shape("linear first", "{type: linear, mode: lp-ft}", options=("seeds=1",)),
    Shape("side by side", LORA, options=("seeds=2", "train.replicas=2", "train.learning_rate=2.0e-2")),
    Shape("one by one", "{type: full}", options=("seeds=2", "train.replicas=1", "baselines.enabled=true")),
    Shape("soup", "{type: full}", options=("seeds=2", "train.replicas=1", SOUP)),
    Shape("long, full", "{type: full}", options=("seeds=1",), steps=100),
    Shape("long, one by one", "{type: full}", options=("seeds=2", "train.replicas=1"), steps=60),
    Shape("chat", "{type: full}", chat=True, options=("seeds=1", "train.learning_rate=2.0e-2")),
]


def by_name(name: str) -> Shape:
    """Give the shape of that name."""
    return next(shape for shape in SHAPES if shape.name == name)


def write(folder: Path, models: Path, chat: bool) -> Path:
    """Write a recipe and its data into ``folder``; the models are made once, in ``models``."""
    place = models / ("decoder" if chat else "encoder")
    if not place.exists():
        (tiny.save_decoder if chat else tiny.save_encoder)(place)
    folder.mkdir(parents=True, exist_ok=True)
    return (tiny.write_chat_study if chat else tiny.write_topics)(folder, place)
