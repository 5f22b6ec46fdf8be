"""Every pair of variants held together: how far their means lie apart, and whose seeds scatter more."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.core.numbers import MINUS, NONE, count, p_value
from finetune.metrics import unit
from finetune.report.blocks import Block, Cell, Column, Fold, Section, Table, Text, Tone
from finetune.results.ranking import best_variant
from finetune.results.reading import Study
from finetune.results.schema import PairResult, Results

INTRO = (
    "Left minus right, over new seeds and new examples. A difference counts as decided when its interval excludes zero "
    "and its p-value, corrected for all comparisons of the table, is below 0.05."
)
SPREAD_INTRO = (
    "Whose seeds scatter more: the left's SD over seeds divided by the right's. It counts as decided when its interval "
    "excludes 1 and Brown and Forsythe's test, corrected for all comparisons of the table, is below 0.05."
)
MANY = 20
"""Rows above which a table of differences is divided."""

TONES: dict[str, Tone] = {
    "better": "good",
    "worse": "bad",
    "more stable": "good",
    "less stable": "bad",
    "undecided": "muted",
}


def sections(study: Study, results: Results) -> list[Section]:
    """Write the section on differences: headline metrics open, the other metrics and the spreads folded."""
    headline, other = ([row for row in results.comparisons if row.family == family] for family in ("headline", "other"))
    if not headline:
        return [Section("differences", "Differences", [Text("There is no second variant to compare with.", "muted")])]
    blocks: list[Block] = [Text(INTRO, "muted"), *_open(results, headline)]
    spreads = [row for row in headline if row.p_spread is not None]
    if spreads:
        blocks.append(Fold("Whose seeds scatter more", [Text(SPREAD_INTRO, "muted"), _spreads(spreads)]))
    if other:
        blocks.append(Fold("Differences on the other metrics", [_means(other)]))
    return [Section("differences", "Differences", blocks)]


def _open(results: Results, rows: Sequence[PairResult]) -> list[Block]:
    """Show all differences; where they are many, those of the best-scoring variant, and the others folded."""
    best = best_variant(results)
    if len(rows) <= MANY or best is None:
        return [_means(rows)]
    own = [row for row in rows if best.name in (row.left, row.right)]
    others = [row for row in rows if row not in own]
    return [_means(own), Fold(f"The {len(others)} differences without {best.name}", [_means(others)])]


def _means(rows: Sequence[PairResult]) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("metric", numeric=False),
        Column("difference", "Left minus right, mean over seeds"),
        Column("95 % interval", "Of the mean difference, over new seeds and new examples"),
        Column("p (Holm)", "Two-sided, corrected by Holm for all comparisons of this table"),
        Column("p (signs)", "Exact permutation test of the seeds on these examples, uncorrected; under it its lowest"),
        Column("P(left wins)", "Chance that a random seed of the left beats a random seed of the right; ties half"),
        Column("could see", "Smallest true difference that would have been seen with a chance of 80 %, uncorrected"),
        Column("verdict", numeric=False),
    ]
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            notes.setdefault(row.reason, []).append(_pair(row))
    said = [f"{', '.join(dict.fromkeys(names))}: {reason}." for reason, names in notes.items()]
    return Table(columns, [_mean_row(row) for row in rows], said)


def _mean_row(row: PairResult) -> list[Cell]:
    metric, wins = unit(row.metric), row.probability_of_improvement
    lowest, bounds = row.p_permutation_smallest, row.probability_of_improvement_ci
    seen = metric.gap(row.detectable).removeprefix("+")
    return [
        Cell(_pair(row), about=(row.left, row.right)),
        Cell(f"{metric.label} on {row.task}"),
        Cell(metric.gap(row.difference)),
        Cell(metric.interval(row.ci, signed=True)),
        Cell(p_value(row.p_value_adjusted)),
        Cell(p_value(row.p_permutation), "" if lowest is None else f"lowest {p_value(lowest)}"),
        Cell(NONE if wins is None else f"{wins:.2f}", "" if bounds is None else f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"),
        Cell(seen),
        _verdict(row, row.verdict),
    ]


def _spreads(rows: Sequence[PairResult]) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("metric", numeric=False),
        Column("SD, left to right", "The left's SD over seeds divided by the right's"),
        Column("95 % interval"),
        Column("p (Holm)", "Brown and Forsythe's test, corrected by Holm for all comparisons of this table"),
        Column("seeds"),
        Column("verdict", numeric=False),
    ]
    cells = []
    for row in rows:
        ratio, bounds = row.sd_ratio, row.sd_ratio_ci
        cells.append(
            [
                Cell(_pair(row), about=(row.left, row.right)),
                Cell(f"{unit(row.metric).label} on {row.task}"),
                Cell(NONE if ratio is None else f"{ratio:.2f}"),
                Cell(NONE if bounds is None else f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"),
                Cell(p_value(row.p_spread_adjusted)),
                Cell(count(row.n)),
                _verdict(row, row.spread_verdict),
            ]
        )
    return Table(columns, cells)


def _pair(row: PairResult) -> str:
    return f"{row.left} {MINUS} {row.right}"


def _verdict(row: PairResult, word: str) -> Cell:
    return Cell(word if word == "undecided" else f"{row.left} is {word}", tone=TONES[word])
