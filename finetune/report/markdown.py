"""A report as Markdown, for pull requests and terminals; the drawings stay in the HTML page."""

from __future__ import annotations

import re

from finetune.report.blocks import Block, Bullets, Cell, Code, Document, Figure, Fold, Panels, Table, Text

_SPECIAL = re.compile(r"([\\`*<>|#~])|(?<!\w)(_)|(_)(?!\w)|(\](?=\())")
_FENCE = re.compile(r"`{3,}")


def render(document: Document) -> str:
    """The report's text."""
    verdict = document.verdict
    lines = [f"# {escape(document.title)}", f"**{escape(verdict.word)}.** {escape(verdict.sentence)}"]
    lines += [escape(remark) for remark in verdict.remarks]
    lines.append(" · ".join(f"{escape(name)}: {escape(value)}" for name, value in document.facts))
    for section in document.sections:
        lines.append(f"## {escape(section.title)}")
        lines += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split("\n"))).replace("&", "&amp;")


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
            fence = max((*_FENCE.findall(block.text), "``"), key=len) + "`"
            return f"{fence}{block.language}\n{block.text.rstrip()}\n{fence}"
        case Fold():
            return "\n\n".join([f"### {escape(block.title)}", *(_block(inner) for inner in block.blocks)])


def _table(table: Table) -> str:
    heading = [escape(column.title) or " " for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in (heading, rule, *rows)]
    return "\n".join(lines) + "".join(f"\n\n{escape(note)}" for note in table.notes)


def _cell(cell: Cell) -> str:
    text = f"**{escape(cell.text)}**" if cell.tone in ("good", "bad") else escape(cell.text)
    small = escape(cell.small)
    return f"{text} {small}" if small.startswith("[") else f"{text} ({small})" if small else text
