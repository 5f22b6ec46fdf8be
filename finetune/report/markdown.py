"""A report as Markdown, for pull requests and terminals: the verdict and the headline table open, the rest folded.

The drawings stay in the HTML page.
"""

from __future__ import annotations

import html
import re

from finetune.core.screen import seen
from finetune.report.blocks import Block, Bullets, Cell, Code, Document, Figure, Fold, Panels, Table, Text

MOST_ROWS, MOST_LINES = 50, 150
"""Rows of a table and lines of a file that are written; GitHub takes comments of at most 65,536 characters."""

_SPECIAL = re.compile(r"([\\`*<>|#~])|(?<!\w)(_)|(_)(?!\w)|(\](?=\())")
_FENCE = re.compile(r"`{3,}")
_MENTION = re.compile(r"(?<!\w)@(?=\w)")


def render(document: Document) -> str:
    """The report's text."""
    verdict = document.verdict
    lines = [f"# {escape(document.title)}", f"**{escape(verdict.word)}.** {escape(verdict.sentence)}"]
    lines += [escape(remark) for remark in verdict.remarks]
    lines.append(" · ".join(f"{escape(name)}: {escape(value)}" for name, value in document.facts))
    for section in document.sections[:1]:
        lines += [f"## {escape(section.title)}", *blocks(section.blocks)]
    lines += [_folded(section.title, section.blocks) for section in document.sections[1:]]
    return "\n\n".join(lines) + "\n"


def blocks(given: list[Block]) -> list[str]:
    """The paragraphs that show ``given``; a paragraph may have several lines."""
    return [text for block in given if (text := _block(block))]


def escape(text: str) -> str:
    """Escape ``text`` so that Markdown shows it as it is, on one line, and calls nobody: a @name may be somebody's."""
    plain = _SPECIAL.sub(r"\\\g<0>", seen(" ".join(text.splitlines()))).replace("&", "&amp;")
    return _MENTION.sub("@\N{WORD JOINER}", plain)


def _block(block: Block) -> str:
    match block:
        case Text():
            return escape(block.text)
        case Bullets():
            return "\n".join(f"- **{escape(term)}:** {escape(sentence)}" for term, sentence in block.items)
        case Table():
            return _table(block)
        case Figure() | Panels():
            return f"*{escape(block.caption)} The drawing is in [index.html](index.html).*"
        case Code():
            return _code(block)
        case Fold():
            return _folded(block.title, block.blocks)


def _folded(title: str, inside: list[Block]) -> str:
    # Up to the empty line it is HTML, from there on Markdown again.
    summary = f"<details><summary>{html.escape(' '.join(seen(title).split()))}</summary>"
    return "\n\n".join([summary, *blocks(inside), "</details>"])


def _code(code: Code) -> str:
    lines = seen(code.text).rstrip().split("\n")
    fence = max((*_FENCE.findall(code.text), "``"), key=len) + "`"
    return "\n".join([f"{fence}{code.language}", *lines[:MOST_LINES], fence]) + _rest("line", len(lines) - MOST_LINES)


def _rest(what: str, more: int) -> str:
    return f"\n\n*{more} more {what}{'' if more == 1 else 's'} in [index.html](index.html).*" if more > 0 else ""


def _table(table: Table) -> str:
    heading = [escape(column.title) or " " for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [[_cell(cell) for cell in row] for row in [*table.rows[:MOST_ROWS], *table.below]]
    lines = [f"| {' | '.join(row)} |" for row in (heading, rule, *rows)]
    return (
        "\n".join(lines)
        + _rest("row", len(table.rows) - MOST_ROWS)
        + "".join(f"\n\n{escape(note)}" for note in table.notes)
    )


def _cell(cell: Cell) -> str:
    text = f"**{escape(cell.text)}**" if cell.tone in ("good", "bad") else escape(cell.text)
    if cell.marked:
        text = "".join(
            f"**{escape(piece)}** ({escape(kind)})" if kind else escape(piece) for piece, kind in cell.marked
        )
    small = escape(cell.small)
    return f"{text} {small}" if small.startswith("[") else f"{text} ({small})" if small else text
