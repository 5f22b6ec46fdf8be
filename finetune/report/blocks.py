"""Blocks of a report, which HTML and Markdown both show, with every number already written out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from markupsafe import Markup

from finetune.results.verdict import Verdict

Tone = Literal["", "good", "bad", "muted"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table; ``small`` stands under the text."""

    text: str
    small: str = ""
    tone: Tone = ""
    colour: int | None = None
    """Number of the variant's colour in the plots; the text is then the variant's name."""
    about: tuple[str, ...] = ()
    """Names of the variants that its row is about, where no coloured cell says so."""
    marked: tuple[tuple[str, str], ...] = ()
    """The text in pieces, some of them marked as what the second word of each says; empty: no marks. The text itself
    then says the same in brackets."""
    value: float | None = None
    """What the page sorts by, where the number at the start of the text would not do."""


@dataclass(frozen=True)
class Column:
    """A column's heading, what hovering over it explains, and whether its cells are numbers."""

    title: str
    help: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences; the part before the colon is a term where ``terms`` gives one for each."""

    kind: ClassVar[str] = "bullets"
    items: list[tuple[str, str]]
    """(term, sentence) pairs."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    kind: ClassVar[str] = "table"
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    caption: str = ""
    """What a screen reader calls it; the heading above and the first column's, where this is empty."""
    below: list[list[Cell]] = field(default_factory=list)
    """Rows that stand below a rule, whatever the others are sorted by."""


@dataclass(frozen=True)
class Figure:
    """One drawing in two widths, for screens and for phones."""

    kind: ClassVar[str] = "figure"
    wide: Markup
    narrow: Markup
    caption: str


@dataclass(frozen=True)
class Panels:
    """Small drawings side by side."""

    kind: ClassVar[str] = "panels"
    drawings: list[Markup]
    caption: str


@dataclass(frozen=True)
class Code:
    """Text as it stands in a file."""

    kind: ClassVar[str] = "code"
    text: str
    language: str = "yaml"


@dataclass(frozen=True)
class Fold:
    """Blocks that are closed until asked for."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: list[Block]


Block = Text | Bullets | Table | Figure | Panels | Code | Fold


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    id: str
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    verdict: Verdict
    facts: list[tuple[str, str]]
    sections: list[Section]
