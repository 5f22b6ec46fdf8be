"""Every pair of variants held together: how far their means lie apart, and whose seeds scatter more."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.core.numbers import MINUS, NONE, count, p_value
from finetune.metrics import unit
from finetune.report.blocks import Block, Bullets, Cell, Column, Fold, Section, Table, Text, Tone
from finetune.report.sections.cells import legend, was_asked
from finetune.results.ranking import best_variant
from finetune.results.reading import Study
from finetune.results.schema import PairResult, Results
from finetune.results.verdict import WHEN_IT_WORKS

INTRO = "Left variant minus right{where}; failed runs are left out."
READING = [
    (
        "better, worse",
        "The 95 % interval of the difference leaves zero out (p below 0.05), so it is not explained by which seeds and "
        "examples there were. Intervals are wider where many pairs are looked at: they allow for that.",
    ),
    (
        "undecided",
        "The interval contains zero, or a note below says what else is in the way. This does not mean equal: the true "
        "difference may lie anywhere in the interval.",
    ),
    (
        WHEN_IT_WORKS,
        "The verdict leaves failed runs out. With as many failures as these runs do not rule out, it might not hold.",
    ),
]
"""What a verdict says, and what it does not."""

TESTS_INTRO = "For those who want them: tests that decide nothing here. “How each number was computed” explains them."
SPREAD_INTRO = (
    "Whose seeds scatter more: the left's SD over seeds divided by the right's, so that below 1 the left's scatter "
    "less. It is decided where the interval leaves 1 out and p is below 0.05."
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
    compared = [row for row in results.comparisons if _has_two_sides(results, row)]
    headline, other = ([row for row in compared if row.family == family] for family in ("headline", "other"))
    if not headline:
        return [Section("differences", "Differences", [Text("There is no second variant to compare with.", "muted")])]
    shown = list(dict.fromkeys(_metric(row) for row in headline))
    where = f", in {shown[0]}" if len(shown) == 1 else ""
    blocks: list[Block] = [Text(INTRO.format(where=where), "muted"), Bullets(READING), *_open(results, headline)]
    spreads = [row for row in headline if row.p_spread is not None]
    if spreads:
        blocks.append(Fold("Whose seeds scatter more", [Text(SPREAD_INTRO, "muted"), _spreads(spreads)]))
    if other:
        blocks.append(Fold("Differences on the other metrics", [_means(other)]))
    blocks.append(Fold("Further tests of these differences", [Text(TESTS_INTRO, "muted"), _tests([*headline, *other])]))
    return [Section("differences", "Differences", blocks)]


def _open(results: Results, rows: Sequence[PairResult]) -> list[Block]:
    """Show all differences; where they are many, those of the best-scoring variant, and the others folded."""
    best = best_variant(results)
    if len(rows) <= MANY or best is None:
        return [table := _means(rows), legend(table.columns)]
    own = [row for row in rows if best.name in (row.left, row.right)]
    others = [row for row in rows if row not in own]
    table = _means(own)
    return [table, legend(table.columns), Fold(f"The {len(others)} differences without {best.name}", [_means(others)])]


def _means(rows: Sequence[PairResult]) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("verdict", "Of the left", numeric=False),
        Column("difference", "Left minus right; under it the 95 % interval, over other seeds and other examples"),
        Column(
            "p",
            "How often chance alone would bring such a difference or a larger one, in any of the pairs judged together",
        ),
        Column("could see", "How large a true difference has to be for such a study to find it 4 times in 5"),
    ]
    several = len({_metric(row) for row in rows}) > 1
    columns += [Column("metric", numeric=False)] if several else []
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            notes.setdefault(row.reason, []).append(_pair(row))
    told = [f"{', '.join(dict.fromkeys(names))}: {reason}." for reason, names in notes.items()]
    return Table(columns, [_mean_row(row)[: len(columns)] for row in rows], told)


def _mean_row(row: PairResult) -> list[Cell]:
    metric = unit(row.metric)
    return [
        Cell(_pair(row), about=(row.left, row.right)),
        _verdict(row, row.verdict, "" if row.verdict == row.verdict_overall else WHEN_IT_WORKS),
        Cell(metric.gap(row.difference), metric.interval(row.ci, signed=True) if row.ci else ""),
        Cell(p_value(row.p_value_adjusted)),
        Cell(metric.gap(row.could_see).removeprefix("+")),
        Cell(_metric(row)),
    ]


def _tests(rows: Sequence[PairResult]) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("metric", numeric=False),
        Column("pairs", "Seeds that work on both sides, and under it the seeds of either where they are not the same"),
        Column("p (signs)", "Exact permutation test of the seeds on these examples, uncorrected; under it its lowest"),
        Column("P(left wins)", "Chance that a random seed of the left beats a random seed of the right; ties half"),
    ]
    return Table(columns, [_test_row(row) for row in rows])


def _test_row(row: PairResult) -> list[Cell]:
    wins, lowest, bounds = row.probability_of_improvement, row.p_permutation_smallest, row.probability_of_improvement_ci
    return [
        Cell(_pair(row), about=(row.left, row.right)),
        Cell(_metric(row)),
        Cell(str(row.pairs) if row.pairs else NONE, f"of {row.n}" if row.pairs and row.pairs != row.n else ""),
        Cell(p_value(row.p_permutation), "" if lowest is None else f"lowest {p_value(lowest)}"),
        Cell(NONE if wins is None else f"{wins:.2f}", "" if bounds is None else f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"),
    ]


def _spreads(rows: Sequence[PairResult]) -> Table:
    columns = [
        Column("left against right", numeric=False),
        Column("metric", numeric=False),
        Column("SD, left to right", "The left's SD over seeds divided by the right's"),
        Column("95 % interval"),
        Column("p", "Brown and Forsythe's test, corrected by Holm for all pairs that are judged together"),
        Column("seeds"),
        Column("verdict", numeric=False),
    ]
    cells = []
    for row in rows:
        ratio, bounds = row.sd_ratio, row.sd_ratio_ci
        cells.append(
            [
                Cell(_pair(row), about=(row.left, row.right)),
                Cell(_metric(row)),
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


def _metric(row: PairResult) -> str:
    return f"{unit(row.metric).label} on {row.task}"


def _has_two_sides(results: Results, row: PairResult) -> bool:
    """Tell whether both sides of a pair were asked: of cheap baselines not all answer all sets."""
    key = f"{row.task}/{row.metric}"
    return not any(each.name in (row.left, row.right) and not was_asked(each, key) for each in results.baselines)


def _verdict(row: PairResult, word: str, when: str = "") -> Cell:
    """The verdict of a pair in words, and under it whether it is one of the runs that work only."""
    if row.difference is None:
        return Cell("not compared", tone="muted")
    return Cell(word if word == "undecided" else f"{row.left} is {word}", when, tone=TONES[word])
