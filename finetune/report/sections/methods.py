"""The methods behind the numbers of a report, in words, for its reader."""

from __future__ import annotations

from finetune import stats
from finetune.core.numbers import MINUS
from finetune.report.blocks import Bullets, Section
from finetune.report.sections import calibration, domains, overfitting
from finetune.results.reading import Study
from finetune.results.schema import Results

INTERVAL = (
    "Interval of the mean over seeds, 95 %: Student's t below ten seeds, an expanded BCa bootstrap from ten on. It "
    "says where the mean of endless seeds would lie on these held-out examples; it does not cover the choice of the "
    "examples, which differences do."
)
INTERVAL_UNTIL = (
    "Confidence sequence of the mean over seeds, 95 % (t-mixture; Lai 1976, Wang and Ramdas 2025). Seeds were added "
    "until it was narrow enough, and it holds all the same; differences are computed as if their number had been "
    "fixed, at the price of up to 6 % false positives instead of 5 %."
)
INTERVAL_OVER_SPLITS = (
    " Each seed has its own split, so it covers the choice of the examples too, as far as splits of one data set can: "
    "they overlap, so it is somewhat too narrow."
)
SD = (
    f"Standard deviation over seeds, with n {MINUS} 1. “Test-set noise” is the part that a test set of this size "
    "causes alone; “SD without it” is what would remain on endless examples (Jordan, ICLR 2024, Theorem 2). A metric "
    "that is no mean over examples is taken apart by leaving out each in turn (jackknife). In brackets: 95 % intervals."
)
DIFFERENCE = (
    "Mean difference over common seeds, or over all where few are common. Its interval and p-value speak of new seeds "
    "and new examples, drawn as in the multi-bootstrap (Sellam et al., ICLR 2022), whose variance is computed here and "
    "not drawn; examples that belong together are drawn together. Metrics that examples do not add up to: new seeds "
    "only. The base model has no seed and is the same each time."
)
HOLM = (
    "Two-sided, corrected by Holm's procedure over all pairs and tasks on headline metrics. The other metrics are a "
    "family of their own, and exploratory."
)
SIGNS = (
    "Exact permutation test: signs of paired differences are flipped in every way. It assumes next to nothing, speaks "
    "of these examples only, and cannot go below the p-value written under it, 0.0625 with five seeds."
)
IMPROVEMENT = "Share of all pairs of seeds in which the left is better; ties count half (Agarwal, NeurIPS 2021)."
SCATTER = "Ratio of SDs over seeds, and Brown and Forsythe's test around the medians, with Holm's correction."
FAILED = (
    "Degenerate (at or below the most frequent label, or the untuned base model), diverged, or stopped by an error. "
    "Failed runs that were scored count in every mean. results.json has the rate with its Wilson interval."
)


def sections(study: Study, results: Results) -> list[Section]:
    """Describe what varied between seeds, and the method behind every column."""
    varied = ", ".join(study.vary) or "nothing"
    interval = INTERVAL if study.until is None else INTERVAL_UNTIL
    items = [
        ("What varies", f"Between seeds: {varied}. All other random draws are the same in every run."),
        ("Interval", interval + (INTERVAL_OVER_SPLITS if "split" in study.vary else "")),
        ("SD", SD),
        ("Difference", DIFFERENCE),
        ("p (Holm)", HOLM),
        ("p (signs)", SIGNS),
        ("P(left wins)", IMPROVEMENT),
        ("Scatter", SCATTER),
        ("Failed", FAILED),
        ("Stability", stats.STABILITY_RULE),
        *calibration.METHODS,
        *domains.METHODS,
        *overfitting.METHODS,
    ]
    return [Section("methods", "How each number was computed", [Bullets(items)])]
