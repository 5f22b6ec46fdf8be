"""Each cause has its rule, each cure what it writes, and a trial its verdict."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from finetune import recipe as recipes
from finetune.core.randomness import STREAMS
from finetune.diagnose.remedies import ADVICE, REMEDIES, RULES, TrialArm, candidates, find_cause, judged
from finetune.stats import VariantScores
from finetune.stats.components import INTERACTIONS, Component, Decomposition


def part(source, variance, noise=None, total=1.0):
    return Component(source, 3, variance, max(0.0, variance), max(0.0, variance) / (total or 1.0), (0.1, 0.9), noise)


def decomposition(noise=None, rest=0.0, **variances):
    total = sum(variances.values()) + rest
    sources = tuple(part(name, variance, None, total) for name, variance in variances.items())
    return Decomposition(
        16, 0.8, sources, part(INTERACTIONS, rest, None, total), total**0.5, (0.0, 1.0), noise, 0.95, "", None
    )


@pytest.mark.parametrize(
    ("failed", "found", "point", "cause", "said"),
    [
        (1, decomposition(init=9.0), 0.01, "failures", "1 of 16 runs failed"),
        (2, None, 0.01, "failures", "2 of 16 runs failed"),
        (0, decomposition(init=1e-6, order=0.0), 0.01, "nothing", "below one point"),
        (0, decomposition(init=0.0, order=0.0), None, "nothing", "the same score"),
        (0, decomposition(noise=6e-4, init=1e-3), 0.01, "test set", "60% of the variance"),
        (0, decomposition(noise=4e-4, init=7e-4, order=3e-4), 0.01, "init", "70% of the variance (95 % interval 10%"),
        (0, decomposition(init=1e-4, order=5e-4, rest=4e-4), 0.01, "order", "'order' causes most"),
        (0, decomposition(init=1e-4, split=5e-4), 0.01, "split", "'split' causes most"),
        (0, decomposition(init=1e-4, rest=5e-4), 0.01, "interactions", "sources together, and none alone, cause"),
        (0, decomposition(init=1e-6), None, "init", "100%"),  # a loss has no points
    ],
)
def test_what_causes_most(failed, found, point, cause, said):
    named = find_cause(failed, 16, found, point)
    assert named.name == cause and said in named.reason


def test_without_scores_or_failures_nothing_is_said():
    assert find_cause(0, 16, None, 0.01) is None


def test_every_cause_has_its_cures_or_its_advice():
    assert set(RULES) == {*STREAMS, INTERACTIONS, "failures", "test set", "nothing"}
    for cause, remedies in RULES.items():
        assert set(remedies) <= set(REMEDIES) and bool(remedies) != (cause in ADVICE)
    assert {name for remedies in RULES.values() for name in remedies} == set(REMEDIES)


@pytest.fixture
def recipe_of(topics):
    """recipe_of("full", "train.warmup=0") -> that variant's recipe."""

    def load(name, *overrides):
        found = recipes.load(topics, overrides)
        return next(variant.recipe for variant in found.variants if variant.name == name)

    return load


def named(cause, recipe):
    return [(remedy.name, changes) for remedy, changes in candidates(SimpleNamespace(name=cause), recipe)]


def test_what_is_written_against_a_drawn_head(recipe_of):
    first, second = named("init", recipe_of("full"))
    assert first == ("lp-ft", {"strategy": {"type": "linear", "mode": "lp-ft"}})
    assert second == ("longer", {"train.epochs": 2.0, "train.min_steps": 48})
    [only] = named("init", recipe_of("linear", "train.max_steps=30"))  # a probe is what LP-FT begins with
    assert only[1]["train.max_steps"] == 60


def test_what_is_written_against_what_steps_draw(recipe_of):
    assert named("order", recipe_of("full"))[0] == ("ema", {"mitigations": [{"type": "ema"}]})
    known = recipe_of("full", "mitigations=[{type: mixout, p: 0.3}]")
    assert named("dropout", known)[0][1] == {"mitigations": [{"type": "mixout", "p": 0.3}, {"type": "ema"}]}
    assert [name for name, _ in named("noise", recipe_of("full", "mitigations=[{type: swa}]"))] == ["longer"]


def test_what_is_written_against_failures(recipe_of):
    fast = recipe_of("full", "train.learning_rate=1.0e-3", "train.warmup=0")
    assert named("failures", fast)[0] == ("gentler", {"train.learning_rate": 5e-4, "train.warmup": 0.1})
    assert [name for name, _ in named("failures", fast)] == ["gentler", "layerwise-decay", "mixout"]
    slow = recipe_of("full", "train.learning_rate=2.0e-5")
    assert [name for name, _ in named("interactions", slow)] == ["layerwise-decay", "mixout"]
    assert named("failures", recipe_of("linear", "train.learning_rate=0.01"))[0][0] != "gentler"
    prodigy = recipe_of("full", "train.optimizer=prodigy", "train.learning_rate=1")
    assert named("failures", prodigy)[0][0] == "layerwise-decay"
    assert named("split", slow) == named("nothing", slow) == named("test set", slow) == []


def tried(scores, failed=()):
    return TrialArm(VariantScores.of(dict(enumerate(scores))), {seed: seed in failed for seed in range(len(scores))})


WIDE, NARROW = np.array([0.5, 0.9, 0.6, 0.95, 0.55, 0.85, 0.52, 0.91]), np.linspace(0.80, 0.81, 8)


def test_a_spread_that_falls_is_a_help():
    found = judged(tried(WIDE), tried(NARROW), "init", True)
    assert found["verdict"] == "helps" and found["sd_ratio"] < 0.05 and found["p_spread"] < 0.05
    assert found["before"] == {
        "mean": pytest.approx(WIDE.mean()),
        "sd": pytest.approx(WIDE.std(ddof=1)),
        "failed": 0,
        "runs": 8,
    }
    assert judged(tried(NARROW), tried(WIDE), "init", True)["verdict"] == "harms"
    assert judged(tried(WIDE), tried(WIDE + 0.001), "init", True)["verdict"] == "undecided"


def test_a_mean_that_gets_worse_counts_against_it():
    low = NARROW - 0.4
    found = judged(tried(WIDE), tried(low), "init", True)
    assert found["verdict"] == "mixed" and found["difference"] < 0 and found["p_difference"] < 0.01
    assert judged(tried(WIDE), tried(low), "init", False)["verdict"] == "helps"  # of a loss
    assert judged(tried(WIDE), tried(WIDE - 0.1), "order", True)["verdict"] == "harms"


def test_failures_are_judged_by_pairs_of_seeds():
    """Six seeds that fail without the change alone: 2 / 2^6."""
    found = judged(tried(WIDE, range(6)), tried(WIDE), "failures", True)
    assert found["p_failures"] == pytest.approx(2 / 2**6) and found["verdict"] == "helps"
    assert judged(tried(WIDE), tried(WIDE, range(6)), "failures", True)["verdict"] == "harms"
    assert judged(tried(WIDE, range(5)), tried(WIDE), "failures", True)["verdict"] == "undecided"
    assert judged(tried(WIDE, range(8)), tried(NARROW, range(8)), "failures", True)["verdict"] == "undecided"


def test_runs_without_a_score_are_counted_as_failed():
    found = judged(
        TrialArm(VariantScores.of({}), {seed: True for seed in range(6)}), tried(NARROW[:6]), "failures", True
    )
    assert found["verdict"] == "helps" and found["before"] == {"mean": None, "sd": None, "failed": 6, "runs": 6}
    assert found["sd_ratio"] is None and found["difference"] is None
