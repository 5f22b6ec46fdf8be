"""Which labels are taken for which: a drawing of few labels, and tables of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from finetune.core.numbers import NONE, count, share
from finetune.report.blocks import Cell, Column, Table
from finetune.report.drawing.plots import fit
from finetune.report.drawing.svg import drawing, tag
from finetune.results.mistakes import Confusion

MOST_PAIRS = 20
"""Pairs of labels listed."""

MOST_ROWS = 50
"""Labels listed."""

FEW = 4
"""Up to so many labels, those above the columns are written across."""

WIDTH, RIGHT, ROW = 360, 30, 30


def taken_for(found: Confusion, label: int) -> str:
    """Name the label that examples of ``label`` are most often mistaken for, with its share; empty where none are."""
    others = np.where(np.arange(len(found.labels)) == label, 0.0, found.counts[label])
    most = int(others.argmax())
    return f"{found.labels[most]} {share(others[most], found.support[label])}" if others[most] else ""


def matrix(found: Confusion, title: str, colour: int) -> Markup:
    """A shaded cell for each pair of labels with the percentage of the row; mistakes in the colour of failures."""
    labels, size = found.labels, len(found.labels)
    left, across = min(130.0, 14 + 7.0 * max(map(len, labels))), size <= FEW
    top, cell = (44 if across else 104), (WIDTH - left - (0 if across else RIGHT)) / size
    parts = [tag("text", tag("title", title), fit(title, 48), x=0, y=14, class_="name")]
    for place, label in enumerate(labels):
        x, y = left + cell * (place + 0.5), top + ROW * (place + 0.5)
        beside: dict[str, Any] = {"x": left - 8, "text_anchor": "end", "class_": "tick"}
        above: dict[str, Any] = {"x": x, "y": top - 8, "class_": "tick", "text_anchor": "middle" if across else "start"}
        turned = None if across else f"rotate(-50 {x:.1f} {top - 8})"
        room = max(2, int(cell / 6.4)) if across else 12
        parts += [
            tag("text", tag("title", label), fit(label, room), transform=turned, **above),
            tag("text", tag("title", label), fit(label, 17), y=y - 1, **beside),
            tag("text", f"({count(found.support[place])})", y=y + 12, **beside),
        ]
        for other, part in enumerate(found.shares[place]):
            parts.append(_cell(part, place == other, left + cell * other, y - ROW / 2, cell))
    spoken = f"Confusion of {title}. {'; '.join(_spoken(found, place) for place in range(size))}"
    return drawing(WIDTH, top + ROW * size + 4, spoken, parts, f"panel c{colour}")


def _spoken(found: Confusion, label: int) -> str:
    right, other = share(found.shares[label, label], 1), taken_for(found, label)
    return f"{found.labels[label]}: {right} right" + (f", taken for {other}" if other else "")


def _cell(part: float, right: bool, x: float, y: float, width: float) -> Markup:
    """A cell with its percentage; nothing where it never happens."""
    shade = tag(
        "rect", x=x + 1, y=y + 1, width=width - 2, height=ROW - 2, rx=2, fill="currentColor",
        fill_opacity=f"{0.04 + 0.5 * part:.2f}", class_=None if right else "bad",
    )  # fmt: skip
    text = f"{100 * part:.0f}"
    text = ("·" if part else "") if text == "0" else text
    middle: dict[str, Any] = {"x": x + width / 2, "y": y + ROW / 2 + 4.5, "text_anchor": "middle", "class_": "number"}
    return tag("g", shade, *([tag("text", text, **middle)] if text else []))


def label_table(found: Sequence[Confusion]) -> Table:
    """Tell for each label how often it is right, and what it is most often taken for; the hardest first."""
    labels, support = found[0].labels, found[0].support
    recall = np.where(support > 0, np.mean([np.diag(each.shares) for each in found], axis=0), np.inf)
    columns = [Column("label", numeric=False), Column("examples")]
    columns += [
        Column(each.variant, "Share that is right with its 95 % interval, and what the label is most taken for")
        for each in found
    ]
    rows = []
    for place in np.argsort(recall, kind="stable")[:MOST_ROWS]:
        others = [taken_for(each, place) for each in found]
        cells = [
            Cell(f"{share(each.shares[place, place], 1)}{_sure(each, place, place)}", f"as {other}" if other else "")
            for each, other in zip(found, others, strict=True)
        ]
        rows.append(
            [
                Cell(labels[place]),
                Cell(count(support[place])),
                *(cells if support[place] else [Cell(NONE)] * len(found)),
            ]
        )
    left = len(labels) - len(rows)
    return Table(columns, rows, [f"{count(left)} more labels are more often right."] if left else [])


def pair_table(found: Sequence[Confusion]) -> Table:
    """The pairs of labels that are most often confused, by examples, mean over variants."""
    labels = found[0].labels
    mean = np.mean([each.counts for each in found], axis=0)
    np.fill_diagonal(mean, 0.0)
    columns = [Column("label", numeric=False), Column("taken for", numeric=False)]
    columns += [
        Column(each.variant, "Share of the label's examples with its 95 % interval, mean over seeds") for each in found
    ]
    rows = []
    for place in np.argsort(-mean, axis=None, kind="stable")[:MOST_PAIRS]:
        true, said = divmod(int(place), len(labels))
        if mean[true, said]:
            shares = [Cell(f"{share(each.shares[true, said], 1)}{_sure(each, true, said)}") for each in found]
            rows.append([Cell(labels[true]), Cell(labels[said]), *shares])
    return Table(columns, rows)


def _sure(found: Confusion, true: int, said: int) -> str:
    """The interval of a share, in percent."""
    ends = found.interval(true, said)
    return "" if ends is None else f" [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]"
