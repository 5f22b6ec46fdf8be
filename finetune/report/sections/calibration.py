"""Calibration: whether a classifier that is 80 % sure is right in 80 % of cases, by variant and evaluation set."""

from __future__ import annotations

from markupsafe import Markup

from finetune.core.numbers import share
from finetune.metrics.unit import Unit
from finetune.report.blocks import Block, Cell, Column, Fold, Panels, Section, Table, Text
from finetune.report.drawing.panels import BOTTOM, LEFT, RIGHT, TOP, Axis, band, frame
from finetune.report.drawing.plots import COLOURS
from finetune.report.drawing.svg import Scale, polyline, tag
from finetune.report.sections.cells import legend
from finetune.results.calibration import FEWEST
from finetune.results.reading import Study
from finetune.results.schema import CalibrationResult, ReliabilityBin, Results, VariantResult
from finetune.stats.calibration import BINS
from finetune.stats.estimates import Estimate


def _error(label: str) -> Unit:
    return Unit(label, scale=100, decimals=1, suffix="%")


MEASURES = {
    "nll": (Unit("NLL"), "Mean negative log-likelihood of the right label (cross-entropy), in nats"),
    "brier": (Unit("Brier"), "Brier score: squared error of the probabilities, summed over labels; 0 to 2"),
    "ece": (
        _error("ECE"),
        f"Expected calibration error: mean gap between confidence and accuracy, in {BINS} bins of equal width",
    ),
    "ece_noise": (_error("by chance"), "The ECE that a perfectly calibrated model would show on so many examples"),
    "ece_equal_mass": (_error("ECE, equal mass"), f"The same in {BINS} bins with equally many examples"),
    "ece_equal_mass_noise": (_error("by chance"), "That ECE of a perfectly calibrated model"),
    "temperature": (
        Unit("temperature", decimals=2),
        "What the logits have to be divided by to calibrate the model; above 1 it is too sure, below 1 not sure enough",
    ),
    "nll_scaled": (
        Unit("NLL, scaled"),
        "The NLL after that, each half of the examples at the temperature of the other half",
    ),
}
"""Unit and explanation of each measure, by its name in results.json; proper scores first."""

METHODS = [
    (
        "Calibration",
        "Each measure is computed for each seed, then estimated over seeds, with an interval like a score's. NLL and "
        "Brier score (Brier 1950) come first because they are proper: no model can improve them by saying what it does "
        f"not believe. ECE (Guo et al. 2017) takes {BINS} bins of equal width of the largest probability, and beside "
        "it as many with equally many examples (Nixon et al. 2019). It depends on the bins and is biased upwards; “by "
        "chance” is what a perfectly calibrated model with these confidences would show on average.",
    ),
    (
        "Temperature",
        "One number by which all logits are divided, fitted to the NLL (Guo et al. 2017). Validation probabilities are "
        "not stored, so it is cross-fitted on the held-out set: each random half is scored at the temperature that "
        "suits the other. The temperature shown is the geometric mean of the two.",
    ),
]
"""(term, sentence) pairs for the section on methods."""

INTRO = (
    "Is a model that is 80 % sure right in 80 % of such cases? If not, its probabilities are no guide to when to "
    "trust it. Means over seeds with 95 % intervals; lower is better in all columns but the temperature's, where 1 "
    "is best. An ECE no higher than “by chance” beside it is no sign of bad calibration."
)


def sections(study: Study, results: Results) -> list[Section]:
    """Write every variant's calibration on the first evaluation set that has it, the others folded; else nothing."""
    found = {
        task.name: {
            index: variant for index, variant in enumerate(results.variants) if task.name in variant.calibration
        }
        for task in results.tasks
    }
    shown = {task: variants for task, variants in found.items() if variants}
    if not shown:
        return []
    first, *others = shown
    blocks: list[Block] = [Text(INTRO, "muted"), *_blocks(first, shown[first])]
    blocks += [Fold(f"Calibration on {task}", _blocks(task, shown[task])) for task in others]
    return [Section("calibration", f"Calibration on {first}", blocks)]


def _blocks(task: str, variants: dict[int, VariantResult]) -> list[Block]:
    columns = [Column("variant", numeric=False), *(Column(shown.heading, text) for shown, text in MEASURES.values())]
    rows = [_row(variant, index, variant.calibration[task]) for index, variant in variants.items()]
    notes = [
        f"{variant.name}: {number} of {len(variant.runs)} runs gave probabilities that are not finite: left out."
        for variant in variants.values()
        if (number := variant.calibration[task].left_out)
    ]
    caption = (
        "How often answers are right, by how sure the model is of them. On the dashed line it is as good as it "
        "believes; below, it is too sure; above, not sure enough. Dots: mean over seeds; band: their range; columns at "
        f"the bottom: share of the examples. A seed counts where it has {FEWEST} examples or more; a hollow dot is of "
        "fewer seeds than others."
    )
    panels = [_panel(variant, index, task) for index, variant in variants.items()]
    return [Table(columns, rows, notes), legend(columns), Panels(panels, caption)]


def _row(variant: VariantResult, index: int, found: CalibrationResult) -> list[Cell]:
    cells = [Cell(variant.name, colour=None if variant.is_base else index % COLOURS)]
    for name, (shown, _) in MEASURES.items():
        measure: Estimate = getattr(found, name)
        interval = None if name.endswith("_noise") else measure.ci
        cells.append(Cell(shown.number(measure.mean), shown.interval(interval) if interval else ""))
    return cells


def _panel(variant: VariantResult, index: int, task: str) -> Markup:
    """Draw accuracy by confidence: above the diagonal the variant is better than it believes."""
    marks = [(value / 4, f"{25 * value}") for value in range(5)]
    x, y = Axis(Scale(0, 1, LEFT, RIGHT), marks, "confidence, %"), Axis(Scale(0, 1, BOTTOM, TOP), marks, "accuracy, %")
    every = variant.calibration[task].reliability
    parts = [_column(row, x, y) for row in every if row.share]
    parts.append(tag("line", x1=x(0), x2=x(1), y1=y(0), y2=y(1), class_="baseline"))
    drawn = [
        (row, (x(row.confidence), y(row.accuracy)), (y(row.range[0]), y(row.range[1])))
        for row in every
        if row.confidence is not None and row.accuracy is not None and row.range is not None
    ]
    lows, highs = ([ends[side] for _, _, ends in drawn] for side in (0, 1))
    if len(drawn) > 1 and lows != highs:
        parts.append(band([place for _, (place, _), _ in drawn], lows, highs))
    if drawn:
        parts.append(polyline([point for _, point, _ in drawn], "curve median"))
    most = max((row.seeds for row in every), default=0)
    parts += [_bin(row, point, row.seeds < most) for row, point, _ in drawn]
    label = f"Reliability of {variant.name} on {task}: accuracy by confidence"
    colour = "" if variant.is_base else f"c{index % COLOURS}"
    return frame(variant.name, label, x, y, parts, colour)


def _column(row: ReliabilityBin, x: Axis, y: Axis) -> Markup:
    """Draw the share of examples in a bin as a column, a quarter of the panel high at most."""
    height = 0.25 * row.share * (BOTTOM - TOP)
    left, right = x(row.low), x(row.high)
    return tag("rect", x=left + 1, y=y(0) - height, width=right - left - 2, height=height, class_="band")


def _bin(row: ReliabilityBin, at: tuple[float, float], few: bool) -> Markup:
    assert row.confidence is not None and row.accuracy is not None and row.range is not None, "bins with seeds only"
    low, high = row.range
    text = (
        f"{share(row.confidence, 1)} sure, right in {share(row.accuracy, 1)} "
        f"({share(low, 1)} to {share(high, 1)} over {row.seeds} seeds); {share(row.share, 1)} of the examples"
    )
    return tag("circle", tag("title", text), cx=at[0], cy=at[1], r=3, class_="dot few" if few else "dot")
