"""Writes a proposal as a recipe that a person can read, and change."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune.core.paths import PACKAGE
from finetune.data.addresses import is_remote
from finetune.data.formats.base import place_of
from finetune.data.options import HUB
from finetune.init.proposal import Proposal
from finetune.recipe.yaml_text import one_line

WIDTH = 110


def written(proposal: Proposal, folder: Path) -> str:
    """The text of a recipe that is to lie in ``folder``."""
    lines = [
        *_comment(
            f"Made by finetune init from {_file(proposal)}. Every value is a proposal: change what you know better."
        )
    ]
    for note in proposal.notes:
        lines += _comment(note, hanging=True)
    for key, value in proposal.sections.items():
        if reason := proposal.why.get(key):
            lines += _comment(reason)
        placed = _placed(value, folder) if key == "data" else _model(value, folder) if key == "model" else value
        lines += _section(key, placed, proposal.why)
    return "\n".join(lines) + "\n"


def _file(proposal: Proposal) -> str:
    return Path(str(proposal.sections["data"]["train"]["path"])).name


def _comment(text: str, indent: str = "", hanging: bool = False) -> list[str]:
    begin = f"{indent}# "
    return textwrap.wrap(
        " ".join("".join(each if each.isprintable() else " " for each in text).split()),
        WIDTH,
        initial_indent=begin + ("- " if hanging else ""),
        subsequent_indent=begin + ("  " if hanging else ""),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _section(key: str, value: Any, why: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(value, dict) or key == "model":
        return iter([f"{key}: {one_line(value)}"])
    return iter([f"{key}:", *(line for name, inner in value.items() for line in _entry(key, name, inner, why))])


def _entry(section: str, name: str, value: Any, why: Mapping[str, str]) -> Iterator[str]:
    if reason := why.get(f"{section}.{name}"):
        yield from _comment(reason, "  ")
    yield f"  {one_line(name)}: {one_line(value)}"


def _placed(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same section with paths as the recipe's folder sees them."""
    return {
        key: {**value, "path": _path(value["path"], folder)} if "path" in value else value
        for key, value in data.items()
    }


def _path(path: str, folder: Path) -> str:
    if path.startswith((PACKAGE, HUB)) or is_remote(path):
        return path
    place = place_of(path)
    if place.file.startswith(PACKAGE) or is_remote(place.file):
        return path
    absolute, here = Path(place.file).expanduser().absolute(), folder.absolute()
    file = absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else str(absolute)
    return str(place._replace(file=file))


def _model(model: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same section with a source that is a relative path as the recipe's folder sees it."""
    source = str(model["source"])
    if source.startswith((PACKAGE, "~", "/")) or not os.path.exists(source):
        return model
    absolute, here = Path(source).absolute(), folder.absolute()
    inside = absolute.is_relative_to(here)
    return {**model, "source": f"./{absolute.relative_to(here).as_posix()}" if inside else str(absolute)}
