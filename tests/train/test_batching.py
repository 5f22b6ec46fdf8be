"""Batches: every example once an epoch, nothing but the seed decides, and sorting saves padding without favour."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from finetune.core.randomness import Streams
from finetune.tasks.batching import Batching
from finetune.train.batching import BatchPlan, plan_batches, split_batch, total_steps
from tests.train.workbench import example, options


def plan_of(lengths, batch_size, window, streams):
    """A plan of examples that all count the same."""
    return BatchPlan(lengths, np.ones(len(lengths)), batch_size, window, streams)


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=70).map(np.array)
PLANS = st.builds(
    plan_of,
    lengths=LENGTHS,
    batch_size=st.integers(1, 12),
    window=st.integers(1, 5),
    streams=st.builds(Streams, st.integers(0, 1000)),
)


def skewed(count, seed=0):
    """Lengths as text has them: many short, few long."""
    return np.random.default_rng(seed).lognormal(3, 0.8, count).astype(int) + 1


def padding(plan, epochs=3):
    """Share of the tokens in rectangular batches that are padding."""
    batches = [plan.lengths[batch] for epoch in range(epochs) for batch in plan.epoch(epoch)]
    return 1 - sum(batch.sum() for batch in batches) / sum(batch.max() * len(batch) for batch in batches)


@given(PLANS, st.integers(0, 3))
def test_an_epoch_holds_each_example_once_in_batches_of_the_right_size(plan, epoch):
    batches = plan.epoch(epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(plan.lengths)))
    sizes = sorted(map(len, batches), reverse=True)
    assert sizes[:-1] == [plan.batch_size] * (len(sizes) - 1) and 0 < sizes[-1] <= plan.batch_size
    assert len(batches) == plan.steps_per_epoch


@given(PLANS, st.integers(0, 40))
def test_a_batch_is_a_function_of_seed_and_step_alone(plan, step):
    fresh = plan_of(plan.lengths.copy(), plan.batch_size, plan.window, Streams(plan.streams.seed))
    for other in range(step):
        fresh.batch(other)  # what was asked before does not matter
    np.testing.assert_array_equal(plan.batch(step), fresh.batch(step))
    epoch, position = divmod(step, plan.steps_per_epoch)
    np.testing.assert_array_equal(plan.batch(step), plan.epoch(epoch)[position])


def test_seeds_and_epochs_have_orders_of_their_own():
    lengths = skewed(40)
    orders = {
        tuple(np.concatenate(plan_of(lengths, 8, 2, Streams(seed)).epoch(epoch)))
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


def test_only_the_order_stream_matters():
    fixed = frozenset({"init", "dropout", "noise", "split"})
    first, second = (plan_of(skewed(40), 8, 2, Streams(seed, fixed)).epoch(0) for seed in (0, 1))
    assert [list(batch) for batch in first] == [list(batch) for batch in second]


@pytest.mark.parametrize("window", [1, 2, 16])
def test_every_example_is_as_likely_in_every_batch_of_an_epoch(window):
    """Chi-square over 2,000 epochs of 22 examples in batches of 4: 6 places, one of them in a smaller batch."""
    plan, epochs = plan_of(np.arange(1, 23), 4, window, Streams(0)), 2000
    places, smaller = np.zeros((22, 6)), np.zeros(22)
    for epoch in range(epochs):
        for place, batch in enumerate(plan.epoch(epoch)):
            places[batch, place] += 1
            smaller[batch] += len(batch) == 2
    assert chisquare(places.sum(1)).pvalue == 1
    assert min(chisquare(row).pvalue for row in places) > 1e-4
    # A smaller batch gives its examples more weight, so that too must not depend on their length.
    assert chisquare(smaller).pvalue > 1e-4


def test_sorting_within_windows_saves_padding():
    lengths = skewed(512)
    plain, sorted_ = (padding(plan_of(lengths, 16, window, Streams(0))) for window in (1, 16))
    assert plain > 0.6 and sorted_ < 0.3


def test_sorting_leaves_the_expected_batch_alone():
    """An example's share of an epoch's updates, its part in the mean of each batch, is the same however long it is."""
    lengths = skewed(43)
    for window in (1, 3):
        plan, share = plan_of(lengths, 8, window, Streams(1)), np.zeros(43)
        for epoch in range(3000):
            for batch in plan.epoch(epoch):
                share[batch] += 1 / len(batch) / 3000
        short, long = share[lengths <= np.median(lengths)].mean(), share[lengths > np.median(lengths)].mean()
        assert short == pytest.approx(long, rel=0.02)
        np.testing.assert_allclose(share, 6 / 43, rtol=0.08)


def test_neighbours_in_length_do_not_always_meet():
    plan = plan_of(np.full(64, 10), 8, 16, Streams(0))
    partners = set()
    for epoch in range(30):
        partners |= {tuple(batch) for batch in plan.epoch(epoch)}
    assert len(partners) == 30 * 8


@given(LENGTHS, st.integers(1, 9), st.integers(1, 4))
def test_micro_batches_share_the_batch_out_among_processes(lengths, size, processes):
    batch = np.random.default_rng(0).permutation(len(lengths))
    micro_batches = [split_batch(batch, lengths, size, process, processes) for process in range(processes)]
    assert len({len(mine) for mine in micro_batches}) == 1, (
        "each micro-batch is a pass that all processes take together"
    )
    assert all(len(one) <= size for mine in micro_batches for one in mine)
    places = np.concatenate([one for mine in micro_batches for one in mine])
    assert sorted(places) == list(range(len(batch))), "places in the batch, not examples"
    held = [sum(map(len, mine)) for mine in micro_batches]
    assert max(held) - min(held) <= 1


def test_a_micro_batch_holds_examples_alike_in_length():
    lengths = np.array([9, 1, 8, 2, 7, 3])
    batch = np.array([5, 3, 1, 0, 2, 4])
    micro_batches = split_batch(batch, lengths, 2)
    assert [sorted(lengths[batch[one]]) for one in micro_batches] == [[1, 2], [3, 7], [8, 9]]


def test_a_plan_takes_its_settings_from_the_recipe():
    plan = plan_batches([example(3), example(5, 2.0)], options(batch_size=2, length_window=7), Streams(4))
    assert (plan.lengths.tolist(), plan.weights.tolist()) == ([3, 5], [1.0, 2.0])
    assert (plan.batch_size, plan.window, plan.streams, plan.tokens) == (2, 7, Streams(4), None)


@pytest.mark.parametrize(
    "steps_per_epoch, epochs, floor, ceiling, steps",
    [
        (10, 3.0, 0, None, 30),
        (10, 0.25, 0, None, 3),  # part of a step is a step
        (10, 3.0, 100, None, 100),
        (10, 3.0, 100, 20, 20),  # the ceiling has the last word
        (10, 30.0, 100, None, 300),
        (1, 0.01, 0, None, 1),
    ],
)
def test_steps_of_a_run(steps_per_epoch, epochs, floor, ceiling, steps):
    assert total_steps(steps_per_epoch, epochs, floor, ceiling) == steps


@pytest.mark.parametrize("batching", [Batching.SAME_LENGTH, Batching.SINGLE])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("tokens", [None, 12])
def test_micro_batches_of_one_length_are_shared_out_too(batching, processes, tokens):
    lengths = np.array([4, 9, 4, 4, 9, 2, 9, 4, 20])
    batch = np.arange(len(lengths))
    every = [split_batch(batch, lengths, 3, rank, processes, tokens, batching) for rank in range(processes)]
    assert len({len(own) for own in every}) == 1, "each micro-batch is a synchronised pass"
    micro_batches = [one for own in every for one in own if len(one)]
    assert sorted(np.concatenate(micro_batches)) == batch.tolist()
    assert all(len(set(lengths[one])) == 1 for one in micro_batches)
    assert max(map(len, micro_batches)) == (1 if batching == Batching.SINGLE else 3 if processes == 1 else 2)
    assert all(lengths[one].sum() <= 12 or len(one) == 1 for one in micro_batches) or tokens is None
