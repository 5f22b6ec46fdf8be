"""Which one change to try against a spread, from what causes it (a table of rules, nothing learnt, nothing hidden), and
whether it has helped.

The rules follow Mosbach et al. 2021 (a low rate, warmup and longer training against failed runs), Kumar et al. 2022
(LP-FT, which takes the head's first draw out of full tuning), Izmailov et al. 2018 (averages over steps against what
each step draws), and Du & Nguyen 2023, who find that mitigations help where there is something to cure, and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from finetune import stats
from finetune.stats.components import INTERACTIONS, Decomposition
from finetune.stats.permutation import mcnemar

if TYPE_CHECKING:
    from finetune.recipe import Recipe

FAILURES, NOTHING, TEST_SET = "failures", "nothing", "test set"
"""Causes that are no source of randomness."""

MOST_NOISE = 0.5
"""Share of the variance from which on the test set is what one should change."""

Changes = dict[str, Any]
"""By dotted path, what to write there."""


@dataclass(frozen=True)
class Remedy:
    """One change of a recipe."""

    name: str
    why: str
    """How it is thought to work, as the end of a sentence."""
    changes: Callable[[Recipe], Changes | None]
    """What to write; None where the recipe has it already, or it cannot help."""


@dataclass(frozen=True)
class Cause:
    """The main cause of a spread, and why it is taken to be that."""

    name: str
    """A stream of randomness, `interactions`, `failures`, `test set` or `nothing`."""
    reason: str
    """One sentence."""


def _gentler(recipe: Recipe) -> Changes | None:
    train, strategy = recipe.train, recipe.strategy
    probe = strategy.type == "linear" and strategy.mode == "probe"
    usual = 1e-2 if probe else 1e-3 if strategy.type == "adapter" else 2e-5  # that of Mosbach et al. for full tuning
    if train.optimizer == "prodigy" or (train.warmup >= 0.1 and train.learning_rate <= usual):
        return None  # it finds its rate itself, or is gentle already
    return {"train.learning_rate": train.learning_rate / 2, "train.warmup": max(train.warmup, 0.1)}


def _longer(recipe: Recipe) -> Changes | None:
    train = recipe.train
    limit = {} if train.max_steps is None else {"train.max_steps": 2 * train.max_steps}
    return {"train.epochs": 2 * train.epochs, "train.min_steps": 2 * train.min_steps, **limit}


def _lp_ft(recipe: Recipe) -> Changes | None:
    return {"strategy": {"type": "linear", "mode": "lp-ft"}} if recipe.strategy.type == "full" else None


def _with(name: str, *others: str) -> Callable[[Recipe], Changes | None]:
    """Make a change that adds a mitigation, unless it or one of ``others`` is there."""

    def changes(recipe: Recipe) -> Changes | None:
        there = [options.type for options in recipe.mitigations]
        if any(each in (name, *others) for each in (*there, recipe.train.optimizer)):
            return None
        known = [options.model_dump(mode="json", exclude_defaults=True) for options in recipe.mitigations]
        return {"mitigations": [*known, {"type": name}]}

    return changes


REMEDIES = {
    remedy.name: remedy
    for remedy in (
        Remedy("gentler", "a lower learning rate behind a warmup keeps early steps from breaking the model", _gentler),
        Remedy("longer", "training until the loss no longer falls lets runs that began apart end alike", _longer),
        Remedy("lp-ft", "training the head alone first starts full tuning from the same head under every seed", _lp_ft),
        Remedy(
            "ema", "averaging weights over steps evens out what single steps draw", _with("ema", "swa", "schedule-free")
        ),
        Remedy(
            "layerwise-decay",
            "smaller rates below keep lower blocks near what pretraining has found",
            _with("layerwise-decay"),
        ),
        Remedy("mixout", "mixing with the pretrained weights keeps runs near where all of them start", _with("mixout")),
    )
}

UNSTABLE = ("gentler", "layerwise-decay", "mixout")

RULES: dict[str, tuple[str, ...]] = {
    FAILURES: UNSTABLE,
    "init": ("lp-ft", "longer"),
    "order": ("ema", "longer"),
    "dropout": ("ema", "longer"),
    "noise": ("ema", "longer"),
    INTERACTIONS: UNSTABLE,
    "split": (),
    TEST_SET: (),
    NOTHING: (),
}
"""By cause, the cures in the order in which they are considered: the first that the recipe allows is named."""

ADVICE = {
    "split": "no change to training cures it: give more examples, or average over splits (vary: [split, ...])",
    TEST_SET: "no change to training cures it: hold out more examples (four times as many halve this noise)",
    NOTHING: "there is nothing to cure, and mitigations help where there is (Du & Nguyen 2023)",
}
"""What to do where there is no cure to try."""

NONE_FITS = "the recipe has each change that is known to help already, or does not allow it"


def find_cause(failed: int, runs: int, found: Decomposition | None, point: float | None) -> Cause | None:
    """The first that applies: runs failed; the SD is below one ``point`` of the metric, in its unit (None: it has no
    points); half of the variance or more is the test set's; else the source with most of what is left. None where it
    takes a decomposition to tell, and there is none."""
    if failed:
        return Cause(FAILURES, f"{failed} of {runs} runs failed, which outweighs every other spread")
    if found is None:
        return None
    if found.sd == 0 or (point is not None and found.sd < point):
        less = "every run has the same score" if found.sd == 0 else "the SD of a run's score is below one point"
        return Cause(NOTHING, f"no run failed, and {less}")
    share, largest = found.noise_share, found.largest
    if largest is None or (share is not None and share >= MOST_NOISE):
        part = "all" if largest is None else f"{share:.0%}"
        return Cause(TEST_SET, f"{part} of the variance is what a test set of this size causes alone")
    what = "sources together, and none alone, cause" if largest is found.interactions else f"'{largest.source}' causes"
    low, high = largest.ci or (0.0, 1.0)
    told = f"{largest.share:.0%} of the variance (95 % interval {low:.0%} to {high:.0%})"
    return Cause(largest.source, f"{what} most of what the test set does not: {told}")


def candidates(cause: Cause, recipe: Recipe) -> Iterator[tuple[Remedy, Changes]]:
    """Find cures for a cause that the recipe lacks, with what to write; whether they are allowed, trying shows."""
    for name in RULES[cause.name]:
        changes = REMEDIES[name].changes(recipe)
        if changes is not None:
            yield REMEDIES[name], changes


ALPHA = 0.05
"""Chance of calling a difference where there is none."""


@dataclass(frozen=True)
class TrialArm:
    """A variant's runs in a trial, by seed."""

    scores: stats.VariantScores
    """Of those that have a score."""
    failed: Mapping[int, bool]

    def facts(self) -> dict[str, Any]:
        """Sum it up in a few numbers."""
        found = stats.estimate(self.scores.scores)
        return {"mean": found.mean, "sd": found.sd, "failed": sum(self.failed.values()), "runs": len(self.failed)}


def judged(
    before: TrialArm, after: TrialArm, cause: str, higher_is_better: bool, clusters: ArrayLike | None = None
) -> dict[str, Any]:
    """Judge whether a change has helped, from runs without and with it under the same seeds.

    What was to be cured decides: failures where runs had failed (McNemar's exact test over seeds), else the spread
    (Brown and Forsythe, and the interval of the ratio of SDs). A mean that has become worse, by the exact test of all
    signs of the paired differences, counts against it whatever it was for. ``clusters`` (examples,): an integer for
    each example, where some belong together. `verdict`: helps, harms, mixed (it did what it was for, and the mean is
    worse), undecided.
    """
    found = stats.compare(after.scores, before.scores, np.random.default_rng(0), clusters)
    seeds = sorted(before.failed.keys() & after.failed.keys())
    p_failures = mcnemar([after.failed[seed] for seed in seeds], [before.failed[seed] for seed in seeds])
    if cause == FAILURES:
        decided = p_failures is not None and p_failures < ALPHA
        good = sum(after.failed.values()) < sum(before.failed.values())
    else:
        steadier = stats.spread_verdict(found.sd_ratio_ci, found.p_spread)
        decided, good = steadier != "undecided", steadier == "more stable"
    worse = (found.difference or 0.0) * (1 if higher_is_better else -1) < 0
    costs = worse and found.p_permutation is not None and found.p_permutation < ALPHA
    harm = costs or (decided and not good)
    verdict = "mixed" if decided and good and costs else "harms" if harm else "helps" if decided else "undecided"
    return {
        "before": before.facts(),
        "after": after.facts(),
        "sd_ratio": found.sd_ratio,
        "sd_ratio_ci": found.sd_ratio_ci,
        "p_spread": found.p_spread,
        "difference": found.difference,
        "difference_ci": found.ci,
        "p_difference": found.p_permutation,
        "p_failures": p_failures,
        "verdict": verdict,
    }
