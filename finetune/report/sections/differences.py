"""Every pair of variants held together: how far their means lie apart, and whose seeds scatter more."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.core.numbers import MINUS, NONE, count, p_value
from finetune.metrics import unit
from finetune.report.blocks import Block, Cell, Column, Fold, Section, Table, Text, Tone
from finetune.results.ranking import best_variant
from finetune.results.reading import Study
from finetune.results.schema import PairResult, Results
from finetune.results.verdict import WHEN_IT_WORKS

INTRO = (
    "Left minus right, of the seeds that work, over new seeds and new examples. Intervals hold for all pairs at once: "
    "a difference is decided when its interval leaves zero out, which is when its p-value is below 0.05. “When it "
    "works” stands where more failures than were seen could turn it round."
)
SPREAD_INTRO = (
    "Whose seeds scatter more: the left's SD over seeds divided by the right's. It counts as decided when its interval "
    "excludes 1 and Brown and Forsythe's test, corrected for all pairs that are judged together, is below 0.05."
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
        Column("verdict", numeric=False),
        Column(
            "difference",
            "Left minus right, of the means of the seeds that work; under it the 95 % interval over new seeds and new "
            "examples, for all pairs that are judged together",
        ),
        Column("p", "Two-sided, for all pairs that are judged together"),
        Column("pairs", "Seeds that work on both sides, and under it the seeds of either where they are not the same"),
        Column("p (signs)", "Exact permutation test of the seeds on these examples, uncorrected; under it its lowest"),
        Column("P(left wins)", "Chance that a random seed of the left beats a random seed of the right; ties half"),
        Column("could see", "Smallest true difference for which this interval leaves zero out with a chance of 80 %"),
        Column("metric", numeric=False),
    ]
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            notes.setdefault(row.reason, []).append(_pair(row))
    told = [f"{', '.join(dict.fromkeys(names))}: {reason}." for reason, names in notes.items()]
    return Table(columns, [_mean_row(row) for row in rows], told)


def _mean_row(row: PairResult) -> list[Cell]:
    metric, wins = unit(row.metric), row.probability_of_improvement
    lowest, bounds = row.p_permutation_smallest, row.probability_of_improvement_ci
    seen = metric.gap(row.could_see).removeprefix("+")
    return [
        Cell(_pair(row), about=(row.left, row.right)),
        _verdict(row, word_of(row)),
        Cell(metric.gap(row.difference), metric.interval(row.ci, signed=True) if row.ci else ""),
        Cell(p_value(row.p_value_adjusted)),
        Cell(str(row.pairs) if row.pairs else NONE, f"of {row.n}" if row.pairs and row.pairs != row.n else ""),
        Cell(p_value(row.p_permutation), "" if lowest is None else f"lowest {p_value(lowest)}"),
        Cell(NONE if wins is None else f"{wins:.2f}", "" if bounds is None else f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"),
        Cell(seen),
        Cell(f"{metric.label} on {row.task}"),
    ]


def _spreads(rows: Sequence[PairResult]) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("metric", numeric=False),
        Column("SD, left to right", "The left's SD over seeds divided by the right's"),
        Column("95 % interval"),
        Column("p (Holm)", "Brown and Forsythe's test, corrected by Holm for all pairs that are judged together"),
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
    return Cell(
        word if word == "undecided" else f"{row.left} is {word}", tone=TONES[word.removesuffix(f" {WHEN_IT_WORKS}")]
    )


def word_of(row: PairResult) -> str:
    """Say the verdict of a pair in a word, and whether it is one of the runs that work only."""
    return row.verdict if row.verdict == row.verdict_overall else f"{row.verdict} {WHEN_IT_WORKS}"
