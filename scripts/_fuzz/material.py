"""What is broken: the recipes that come with finetune, and a small study of every task with its rows and its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ROWS = 24


@dataclass(frozen=True)
class Study:
    """A small complete recipe, without where its data lies, and its data."""

    recipe: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Material:
    """All of it."""

    shipped: list[str]
    """Recipes as text."""
    studies: dict[str, Study]
    """By task."""
    keys: list[str]
    """Every key that a recipe may have somewhere."""
    words: list[str]
    """Every word that may be chosen somewhere."""


def gather(models: Path) -> Material:
    """Read it, with small models that lie in ``models``."""
    from finetune.recipe.schema import json_schema

    keys, words = set[str](), set[str]()
    _collect(json_schema(), keys, words)
    shipped = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "recipes").glob("*.yaml"))]
    return Material(shipped, studies(models), sorted(keys), sorted(words))


def studies(models: Path) -> dict[str, Study]:
    """The example of every task, which its test has too."""
    from finetune.core.registry import TASKS
    from tests.examples import examples_of

    found = {}
    for name, example in examples_of(TASKS).items():
        model = next((each for each in example.models if (models / each).is_dir()), None)
        if model is None:
            continue
        folder = models / "rows" / name
        folder.mkdir(parents=True, exist_ok=True)
        recipe = {
            "name": "small",
            "seeds": 1,
            "model": {"source": str(models / model), "dtype": "float32"},
            "data": {"split": {"test": 6}},
            "task": {"type": name.partition("/")[0], **example.options},
            "strategy": {"type": "full"},
            "train": {"epochs": 1, "batch_size": 4},
            "baselines": {"enabled": False},
        }
        found[name] = Study(recipe, _rows(example.data(folder, ROWS)))
    return found


def save_models(folder: Path) -> None:
    """Draw the small models."""
    from tests import tiny

    tiny.save_encoder(folder / "encoder")
    tiny.save_decoder(folder / "decoder")
    tiny.save_masked(folder / "masked")
    tiny.save_t5(folder / "encoder-decoder")


def _rows(path: Path) -> list[dict[str, Any]]:
    from finetune.data.options import Source
    from finetune.data.sources import EXAMPLE, read

    return read(Source(path=str(path)), "data.train", 0).remove_columns(EXAMPLE).to_list()


def _collect(schema: Any, keys: set[str], words: set[str]) -> None:
    """The names of all properties and the choices in a JSON schema."""
    if isinstance(schema, dict):
        keys.update(schema.get("properties") or ())
        words.update(map(str, [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]))
        schema = list(schema.values())
    for each in schema if isinstance(schema, list) else ():
        _collect(each, keys, words)


def as_yaml(tree: Any) -> str:
    """A recipe as a person would write it."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
