"""How each number of a report was computed, in words, for its reader."""

from __future__ import annotations

from finetune import stats
from finetune.report.blocks import Bullets, Section
from finetune.report.reading import Study
from finetune.report.units import MINUS

INTERVAL = (
    "Student t interval of the mean over seeds, 95 %. It says where the mean of endless seeds would lie on these "
    "held-out examples; it does not cover the choice of the examples."
)
INTERVAL_OVER_SPLITS = (
    "Student t interval of the mean over seeds, 95 %. Each seed has its own split, so it covers the choice of the "
    "examples too, as far as splits of one data set can: they overlap, so it is somewhat too narrow."
)
SD = (
    f"Standard deviation over seeds, with n {MINUS} 1. “Test-set noise” is the part that a test set of this size "
    "causes alone; “SD without it” is what would remain on endless examples (Jordan, ICLR 2024, Theorem 2). Both need "
    "a metric that is a mean of per-example scores."
)
DIFFERENCE = (
    "Mean of the paired differences over common seeds, with a t interval. Against the untuned base model, which has no "
    "seed: the seeds' differences from its one score."
)
HOLM = (
    "Two-sided t-test, corrected by Holm's procedure over all pairs and tasks on headline metrics. The other metrics "
    "are a family of their own, and exploratory."
)
IMPROVEMENT = "Share of all pairs of seeds in which the left is better; ties count half (Agarwal, NeurIPS 2021)."
FAILED = (
    "Degenerate (at or below the most frequent label, or the untuned base model), diverged, or stopped by an error. "
    "Failed runs that were scored count in every mean. results.json has the rate with its Wilson interval."
)


def method_section(study: Study) -> Section:
    """What varied between seeds, and the method behind every column."""
    varied = ", ".join(study.vary) or "nothing"
    items = [
        ("What varies", f"Between seeds: {varied}. All other random draws are the same in every run."),
        ("Interval", INTERVAL_OVER_SPLITS if "split" in study.vary else INTERVAL),
        ("SD", SD),
        ("Difference", DIFFERENCE),
        ("p (Holm)", HOLM),
        ("P(left wins)", IMPROVEMENT),
        ("Failed", FAILED),
        ("Stability", stats.STABILITY_RULE),
    ]
    return Section("methods", "How each number was computed", [Bullets(items)])
