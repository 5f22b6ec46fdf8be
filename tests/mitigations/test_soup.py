"""Soups: which seeds go into them."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.mitigations.soup import Soup, greedy
from tests.examples import Example

EXAMPLES = {"soup": Example()}


class Runs:
    """Finished runs whose mean scores what ``table`` says; each asked set of seeds is noted."""

    def __init__(self, table):
        self.table, self.asked = {frozenset(seeds): score for seeds, score in table.items()}, []
        self.seeds = sorted({seed for seeds in table for seed in seeds})

    def validated(self, seeds: Sequence[int]) -> float:
        self.asked.append(sorted(seeds))
        return self.table[frozenset(seeds)]


def soup(method):
    return Soup(Soup.Options(type="soup", method=method))


def test_by_hand():
    """Seed 2 is best; 0 with it is worse, and left out; 1 with it is better, and stays."""
    runs = Runs({(0,): 0.8, (1,): 0.7, (2,): 0.9, (2, 0): 0.85, (2, 1): 0.92})
    assert greedy(runs.seeds, runs.validated) == [2, 1]
    assert [0, 1] not in runs.asked and [0, 1, 2] not in runs.asked


def test_a_seed_that_changes_nothing_stays_as_in_the_paper():
    assert greedy([0, 1], Runs({(0,): 0.8, (1,): 0.8, (0, 1): 0.8}).validated) == [0, 1]


def test_one_seed_is_the_soup():
    assert greedy([7], Runs({(7,): 0.1}).validated) == [7]


@given(st.integers(1, 7), st.data())
def test_greedy_is_never_worse_than_the_best_seed(count, data):
    scores = {}

    def validated(seeds):
        return scores.setdefault(frozenset(seeds), data.draw(st.integers(0, 5)))

    kept = greedy(range(count), validated)
    singles = [validated([seed]) for seed in range(count)]
    assert validated(kept) >= max(singles)
    assert [singles[seed] for seed in kept] == sorted((singles[seed] for seed in kept), reverse=True)
    assert len(set(kept)) == len(kept) and singles[kept[0]] == max(singles)
    assert len(scores) <= 2 * count - 1, "each seed is scored once alone and at most once with others"


@pytest.mark.parametrize(
    ("method", "makes"),
    [("uniform", ("soup-uniform",)), ("greedy", ("soup-greedy",)), ("both", ("soup-uniform", "soup-greedy"))],
)
def test_what_each_method_makes(method, makes):
    assert soup(method).makes == makes
    assert soup(method).validates == ("soup-greedy" in makes)


def test_the_uniform_soup_asks_for_no_validation():
    runs = Runs({(0,): 0.1, (1,): 0.9, (1, 0): 0.2})
    assert soup("both").choose("soup-uniform", runs) == [0, 1] and runs.asked == []
    assert soup("both").choose("soup-greedy", runs) == [1]
