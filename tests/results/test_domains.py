"""In-domain against shifted: drops paired by seed."""

from dataclasses import replace

import pytest

from finetune.results.domains import domains_of, shifts_of
from tests.results.stores import SCORES


def test_the_drop_is_paired_by_seed(shifted):
    results = shifted()[1]
    [found], (inside, others) = shifts_of(results), domains_of(results)
    assert (found.variant, inside.name, found.shifted) == ("full", "test", "tweets")
    assert [task.name for task in others] == ["tweets"]
    # .1, .2 and .3: mean .2, SD .1, t(0.975, 2) = 4.302653, half width 4.302653 * .1 / sqrt(3)
    assert found.drop.mean == pytest.approx(0.2) and found.drop.sd == pytest.approx(0.1)
    assert found.drop.ci == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-6)


def test_a_drop_is_a_loss_where_lower_is_better_too(shifted):
    [found] = shifts_of(shifted(higher=False)[1])
    assert found.drop.mean == pytest.approx(-0.2)


def test_seeds_without_both_scores_are_not_in_the_drop(shifted):
    [found] = shifts_of(shifted(scores={**SCORES, 3: (0.92, None)})[1])
    assert found.drop.n == 2 and found.drop.mean == pytest.approx(0.15)


@pytest.mark.parametrize("tasks", [("test",), ("tweets", "reviews")])
def test_one_kind_of_data_has_no_drop(shifted, tasks):
    _, results = shifted(tasks=tasks, scores={seed: pair[: len(tasks)] for seed, pair in SCORES.items()})
    assert shifts_of(results) == []


def test_a_set_with_another_headline_is_not_compared(shifted):
    _, results = shifted()
    inside, other = results.tasks
    assert shifts_of(replace(results, tasks=[inside, replace(other, metric="nll")])) == []
