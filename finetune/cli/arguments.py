"""Arguments that several verbs share."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path


def add_recipe(parser: ArgumentParser) -> None:
    """A recipe, and overrides of what it says."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe file (YAML)")
    add_overrides(parser, "have the last word over the recipe and its variants, as in train.epochs=1")


def add_overrides(parser: ArgumentParser, about: str) -> None:
    """Add the argument that takes any number of ``key.path=value``."""
    parser.add_argument("overrides", nargs="*", default=[], metavar="key.path=value", help=about)
