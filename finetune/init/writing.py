"""Writes a proposal as a recipe that a person can read, and change."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune.core.paths import PACKAGE
from finetune.data.addresses import is_remote
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
        lines += _section(key, _placed(value, folder) if key == "data" else value, proposal.why)
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
    if path.startswith((PACKAGE, HUB, "sqlite:")) or is_remote(path):
        return path
    absolute, here = Path(path).expanduser().absolute(), folder.absolute()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else str(absolute)
