"""How an export is loaded and asked, in code and commands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Snippet:
    """How an export is loaded and asked."""

    title: str
    """A few words, such as the name of the program."""
    code: str
    """What to type; `{folder}` stands for the export's folder, and `{repo}` for its name on the hub."""
    language: str = "python"
    """`python` or `sh`."""
