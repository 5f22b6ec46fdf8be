"""A report as one HTML file: nothing is fetched, nothing leaves it, and everything from the data is escaped.

The page's own script sorts and filters its tables. It is the only one that may run: the content security policy names
its hash, and the style's.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from finetune.core.numbers import MINUS
from finetune.core.screen import seen
from finetune.report.blocks import Block, Cell, Document, Fold, Table

Variants = dict[str, int]
"""Colour by variant, in order of appearance."""

_NUMBER = re.compile(rf"([<>]?)[\s\[(±~]*([+\-{MINUS}]?\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([^\W\d_]*)")
_DURATIONS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_MULTIPLE = re.compile(r"([kMGBTPE]?)(?:B|FLOPs?|J|Wh?)?")


def render(document: Document) -> str:
    """The page. Escaping is on, and the drawings are Markup that `svg.py` has escaped."""
    environment = Environment(
        loader=PackageLoader("finetune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = template("drawing.css") + template("report.css"), template("report.js")
    variants = variants_of(document)
    page = environment.get_template("report.html").render(
        document=document,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
        variants=list(variants.items()),
        numbers_of=lambda row: numbers_of(row, variants),
        sort_value=sort_value,
    )
    return seen(page)


def template(name: str) -> str:
    """Read a file of `templates/`."""
    return (files("finetune.report") / "templates" / name).read_text(encoding="utf-8")


def policy(style: str, script: str) -> str:
    """A content security policy under which this style and this script work, and nothing else does."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def variants_of(document: Document) -> Variants:
    """Every variant that a coloured cell names."""
    tables = (table for section in document.sections for table in _tables(section.blocks))
    cells = (cell for table in tables for row in table.rows for cell in row)
    return {cell.text: cell.colour for cell in cells if cell.colour is not None}


def _tables(blocks: list[Block]) -> Iterator[Table]:
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Fold):
            yield from _tables(block.blocks)


def numbers_of(row: list[Cell], variants: Variants) -> str:
    """Join the places among ``variants`` of those that a row is about by spaces; such rows hide with their variant."""
    about = {name for cell in row for name in (cell.about or ([cell.text] if cell.colour is not None else []))}
    return " ".join(str(number) for number, name in enumerate(variants) if name in about)


def sort_value(cell: Cell) -> str:
    """The number by which a cell is sorted, as text; empty where there is none.

    It is read from the written number: with its sign, its thousands, and its unit of time or multiple (75 s come
    before 12 min, 93.2 k before 22.7 M); of an interval, its low end. `< 0.001` comes before 0.001.
    """
    if cell.value is not None:
        return repr(cell.value)
    match = _NUMBER.match(cell.text.strip())
    if match is None:
        return ""
    bound, digits, word = match.groups()
    value = float(digits.replace(",", "").replace(MINUS, "-")) * _factor(word)
    nudge = {"<": -1e-9, ">": 1e-9, "": 0.0}[bound]
    return f"{value + nudge * abs(value):.12g}"


def _factor(word: str) -> float:
    """Give the factor that the word behind a number stands for: 1 for words that are no multiple."""
    if word in _DURATIONS:
        return _DURATIONS[word]
    multiple = _MULTIPLE.fullmatch(word)
    return _PREFIXES[multiple[1]] if multiple else 1.0
