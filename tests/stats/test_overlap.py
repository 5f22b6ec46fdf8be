from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from finetune.stats import fixed_test_overlap, own_test_overlap

sizes = some.integers(1, 5000)


@given(sizes, sizes)
def test_a_draw_of_everything_has_nadeau_and_bengios_factor(train, test):
    assert own_test_overlap(train, test, train + test) == pytest.approx(test / train)


@given(sizes, sizes, sizes)
def test_a_larger_pool_never_adds(train, test, unused):
    pool = train + test
    assert own_test_overlap(train, test, pool + unused) <= own_test_overlap(train, test, pool)
    assert fixed_test_overlap(train, pool + unused) <= fixed_test_overlap(train, pool)


@given(sizes, sizes)
def test_draws_from_an_endless_pool_are_new_data(train, test):
    assert own_test_overlap(train, test, 10**12) < 1e-8
    assert fixed_test_overlap(train, 10**12) < 1e-8


def test_few_of_many_overlap_by_the_larger_share():
    assert own_test_overlap(40, 500, 2225) == pytest.approx(500 / 1725)  # and not 12.5
    assert own_test_overlap(60, 10, 100) == pytest.approx(1 / 6)  # Nadeau and Bengio's is smaller


def test_what_is_not_drawn_at_all_cannot_overlap():
    assert own_test_overlap(0, 10, 100) == 0
    assert fixed_test_overlap(0, 100) == fixed_test_overlap(100, 100) == 0
