"""The methods behind the numbers of a report, in words, for its reader."""

from __future__ import annotations

from finetune import stats
from finetune.core.numbers import MINUS
from finetune.report.blocks import Bullets, Section
from finetune.report.sections import calibration, choosing, domains, entities, forgetting, overfitting, scores
from finetune.results.reading import Study
from finetune.results.schema import Results

INTERVAL = (
    "Of the mean of the seeds that work, 95 %: where it would lie with endless seeds and endless examples like these, "
    "with the same variance as differences (Student's t of both sources). Where examples have no scores of their own, "
    "and in the line under it, it is over new seeds on these examples. Two right and two wrong examples are counted in "
    "for the interval of a share (Agresti and Coull 1998), so that a score without a mistake gets one too."
)
INTERVAL_UNTIL = (
    "Seeds were added until the mean was known well enough, so intervals are confidence sequences, which hold all the "
    "same (t-mixture; Lai 1976, Wang and Ramdas 2025), and p-values are one over e-values. They are for scores without "
    "collapses: they speak of the runs that work."
)
INTERVAL_OVER_SPLITS = (
    " Each seed has its own split of the same data, so the seeds are less new than new data: the variance over seeds "
    "is enlarged for it (Nadeau and Bengio 2003; by less where they leave much of the data unused)."
)
WITH_FAILURES = (
    "Share of the runs that work times their mean, and share of those that fail times theirs; a run without a score "
    "counts with what needs no training scores. Its interval joins that of the mean and that of the failure rate, each "
    "at half the error. “Up to” beside the failures is the one-sided 95 % limit (Clopper and Pearson 1934)."
)
OVERALL = (
    "A variant is better “when it works” where the runs that work say so. It is better without that word where even "
    "the most failures that its runs allow, times what a failed run loses, cost less than the lower end of the "
    "difference. A run without a score has to be counted at what needs no training scores, or nothing is decided."
)
SD = (
    f"Standard deviation over seeds, with n {MINUS} 1. “Test-set noise” is the part that a test set of this size "
    "causes alone; “SD without noise” is what would remain on endless examples (Jordan, ICLR 2024, Theorem 2). A "
    "metric that is no mean over examples is taken apart by its influence values (Efron 1982). In brackets: 95 % "
    "intervals."
)
DIFFERENCE = (
    "Difference of the means in the tables; seeds in common are pairs. Its interval and p-value speak of new seeds "
    "and new examples, drawn as in the multi-bootstrap (Sellam et al., ICLR 2022), whose variance is computed here and "
    "not drawn; examples that belong together are drawn together. Metrics that examples do not add up to: new seeds "
    "only. The base model has no seed and is the same each time."
)
TOGETHER = (
    "All pairs of variants on one evaluation set and metric are judged together: intervals and p-values are those of "
    "the studentized range (Tukey 1953), with the variance over seeds pooled over the variants, and larger for pairs "
    "that scatter more. A leader that beats every other one, each tested by itself, is best (Berger 1982; Stefansson, "
    "Kim and Hsu 1988); the two tests share the error. Few seeds do not show that a leader scatters more than all "
    "others, and then up to one verdict in six on who leads may be wrong. Comparisons with what needs no tuning are a "
    "family of their own (Šidák 1967). Metrics other than the headline are exploratory."
)
SIGNS = (
    "Exact permutation test: signs of paired differences are flipped in every way. It assumes that a difference is as "
    "often too high as too low by as much, speaks of these examples only, and cannot go below the p-value written "
    "under it, 0.0625 with five seeds."
)
IMPROVEMENT = "Share of all pairs of seeds in which the left is better; ties count half (Agarwal, NeurIPS 2021)."
COULD_SEE = "The true difference at which this interval leaves zero out with a chance of 80 %."
SCATTER = "Ratio of SDs over seeds, and Brown and Forsythe's test around the medians, with Holm's correction."
FAILED = (
    "Degenerate (not shown to be better than always giving the most frequent label, by a binomial test at 5 %; or the "
    "mean number, by a paired t test of squared errors at 5 %; or not better than the untuned base model), diverged, "
    "or stopped by an error. Means are of the runs that work; “with failures” counts the others."
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
        ("With failures", WITH_FAILURES),
        ("Better", OVERALL),
        ("Judged together", TOGETHER),
        ("Could see", COULD_SEE),
        ("p (signs)", SIGNS),
        ("P(left wins)", IMPROVEMENT),
        ("Scatter", SCATTER),
        ("Failed", FAILED),
        ("Stability", stats.STABILITY_RULE),
        *scores.METHODS,
        *choosing.METHODS,
        *calibration.METHODS,
        *domains.METHODS,
        *forgetting.METHODS,
        *entities.METHODS,
        *overfitting.METHODS,
    ]
    return [Section("methods", "How each number was computed", [Bullets(items)])]
