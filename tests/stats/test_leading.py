"""The leader's test against Dunnett's distribution as it is drawn, and against the tests that it is made of."""

import numpy as np
import pytest
from scipy import stats

from finetune.stats.families import AllPairs, Part, Several
from finetune.stats.judging import family_share
from finetune.stats.leading import LEADER_SHARE, Lead, Leader
from finetune.stats.multibootstrap import Uncertainty


def lead(variants, df, examples=0.0):
    noise = Uncertainty(1.0 - examples, examples, df, 499)
    family = Part(AllPairs(variants), family_share(variants))
    return Lead(noise, Leader(variants), noise, family)


def drawn(found, difference, draws=200_000):
    """How often the first of all others is told from the leader, by either test."""
    rng, noise, others = np.random.default_rng(0), found.alone, found.leader.variants - 1
    z = (rng.normal(size=(draws, 1)) + rng.normal(size=(draws, others))) / 2**0.5
    t = (difference + z) / np.sqrt(rng.chisquare(noise.df_seeds, (draws, 1)) / noise.df_seeds)
    own, of_all = (noise.half_width(0.95, family) for family in (found.leader, found.family))
    return np.mean((t > own).all(axis=1) | (t[:, 0] > of_all))


@pytest.mark.parametrize(("variants", "df"), [(3, 4), (3, 18), (6, 20), (15, 56)])
def test_its_power_is_how_often_such_draws_pass(variants, df):
    found = lead(variants, df)
    for difference in (2.0, 3.0, 4.0):
        assert found.power(difference) == pytest.approx(drawn(found, difference), abs=0.004)


def test_what_is_detectable_has_the_power_asked_for():
    for found in (lead(3, 8), lead(6, 45, examples=0.4)):
        for wanted in (0.5, 0.8, 0.95):
            assert found.power(found.detectable(wanted)) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("variants", [3, 6, 15])
def test_it_sees_less_than_one_comparison_and_more_than_the_family(variants):
    found = lead(variants, 20)
    alone, of_all = (found.alone.detectable(0.95, 0.8, family) for family in (found.leader, found.family))
    assert alone < found.detectable(0.8) < of_all


def test_a_leader_is_held_against_each_on_its_own_share():
    assert (
        Leader(5).tail(2.5, 8)
        == pytest.approx(2 * stats.t.sf(2.5, 8) / LEADER_SHARE)
        == Part(Several(), LEADER_SHARE).tail(2.5, 8)
    )
    assert Leader(5).tail(0.0, 8) == 1 and "leader of 5 variants" in str(Leader(5))


def test_a_test_that_no_difference_passes_sees_nothing():
    found = lead(3, 0.1)
    assert not np.isfinite(found.alone.half_width(0.95, found.leader)) and found.detectable(0.8) == float("inf")
