"""Token budgets: batches and micro-batches of about equally many tokens, that change no expectation and no loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import Interrupted
from finetune.core.randomness import Streams
from finetune.core.signals import StopRequest
from finetune.replicas.group import ReplicaGroup
from finetune.train.accumulation import Accumulation
from finetune.train.batching import BatchPlan, split_batch
from finetune.train.loop import train
from finetune.train.meters import read_rows
from tests.train.workbench import fit, furthest, make_runtime, options, replica

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=70).map(np.array)


def plan_of(lengths, tokens, window=4, seed=0, weights=None):
    weights = np.ones(len(lengths)) if weights is None else weights
    return BatchPlan(np.asarray(lengths), weights, 4, window, Streams(seed), tokens)


def skewed(count, seed=0):
    """Lengths as text has them: many short, few long."""
    return np.random.default_rng(seed).lognormal(3, 0.8, count).astype(int) + 1


# Batches


@given(LENGTHS, st.integers(1, 300), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_holds_each_example_once_and_no_batch_is_empty(lengths, tokens, window, epoch):
    plan = plan_of(lengths, tokens, window)
    batches = plan.epoch(epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches) and len(batches) == plan.steps_per_epoch


@given(LENGTHS, st.integers(1, 300), st.integers(1, 5))
def test_batches_are_within_an_example_of_their_budget(lengths, tokens, window):
    """The budget is evened out over the epoch's batches, unless examples are longer than that."""
    plan = plan_of(lengths, tokens, window)
    even = lengths.sum() / plan.steps_per_epoch
    assert even <= max(tokens, lengths.mean())
    sums = [lengths[batch].sum() for batch in plan.epoch(0)]
    assert all(found < even + 2 * lengths.max() for found in sums)
    if even > 2 * lengths.max():
        assert all(abs(found - even) <= lengths.max() for found in sums)


def test_batches_are_alike_in_length_inside():
    """A quarter of the padding of plain shuffling, or less."""
    lengths = skewed(2000)

    def padding(window):
        batches = plan_of(lengths, 800, window).epoch(0)
        return 1 - lengths.sum() / sum(lengths[batch].max() * len(batch) for batch in batches)

    assert padding(16) < padding(1) / 4


def test_every_example_counts_the_same_in_each_epoch():
    """The gradients of an epoch's steps sum to what plain shuffling's do: exactly, whatever the lengths."""
    lengths, weights = skewed(90), np.random.default_rng(1).uniform(0.5, 3, 90)
    slopes = np.random.default_rng(2).normal(size=90) * lengths  # long examples pull the other way
    plan = plan_of(lengths, 150, weights=weights)
    for epoch in range(3):
        first = epoch * plan.steps_per_epoch
        steps = range(first, first + plan.steps_per_epoch)
        mean = np.mean([slopes[plan.batch(step)].sum() / plan.total(step) for step in steps])
        assert mean == pytest.approx(slopes.sum() / weights.sum(), rel=1e-12)


def test_any_one_step_has_the_gradient_of_plain_shuffling_in_expectation():
    """Also the first of an epoch, and the last: over many seeds."""
    lengths = skewed(30)
    slopes = lengths - 20.0
    wanted = slopes.mean()
    for step in (0, -1):
        found = []
        for seed in range(1500):
            plan = plan_of(lengths, 120, seed=seed)
            at = step % plan.steps_per_epoch
            found.append(slopes[plan.batch(at)].sum() / plan.total(at))
        assert abs(np.mean(found) - wanted) < 4 * np.std(found) / np.sqrt(len(found))
        assert abs(np.mean([slopes[plan.batch(0)].mean()]) - wanted) > 0  # a batch's own mean is something else


@given(LENGTHS, st.integers(1, 300), st.integers(0, 40))
def test_a_batch_is_a_function_of_seed_and_step_alone(lengths, tokens, step):
    plan, fresh = plan_of(lengths, tokens), plan_of(lengths, tokens)
    for other in range(step):
        fresh.batch(other)
    np.testing.assert_array_equal(plan.batch(step), fresh.batch(step))


def test_seeds_have_orders_of_their_own():
    lengths = skewed(60)
    assert not np.array_equal(plan_of(lengths, 200).batch(0), plan_of(lengths, 200, seed=1).batch(0))


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(chat_bench, tmp_path):
    settings = {"batch_tokens": 150, "max_steps": 8}
    whole = fit(chat_bench, tmp_path / "whole", **settings)
    asked = []

    class AfterThree(StopRequest):
        requested = property(lambda self: asked.append(1) or len(asked) == 3, lambda self, value: None)

    with pytest.raises(Interrupted):
        fit(chat_bench, tmp_path / "parts", stop=AfterThree(), **settings)
    found = fit(chat_bench, tmp_path / "parts", **settings)
    assert found.trained.facts["resumed"] == 1 and furthest(found.weights, whole.weights) == 0
    assert found.column("loss") == whole.column("loss") and found.column("tokens") == whole.column("tokens")


# Parts


@given(
    LENGTHS, st.integers(1, 200), st.integers(1, 70), st.integers(1, 3), st.data()
)  # of a whole batch, cut for one of some processes
def test_micro_batches_stay_within_their_budget(lengths, tokens, size, processes, data):
    batch = np.array(data.draw(st.permutations(range(len(lengths)))))
    every = [split_batch(batch, lengths, size, rank, processes, tokens) for rank in range(processes)]
    assert len({len(parts) for parts in every}) == 1, "all processes take part in every pass"
    places = np.concatenate([part for parts in every for part in parts])
    assert sorted(places) == list(range(len(batch)))
    for part in (part for parts in every for part in parts if len(part)):
        own = lengths[batch[part]]
        assert len(part) <= size and (len(part) * own.max() <= tokens or len(part) == 1)


@pytest.fixture
def micro_batches(monkeypatch):
    """Shapes of all micro-batches that pass through the model."""
    shapes, plain = [], Accumulation._shares

    def watched(self, micro_batch, stack):
        shapes.append(tuple(micro_batch.batch.inputs["input_ids"].shape))
        return plain(self, micro_batch, stack)

    monkeypatch.setattr(Accumulation, "_shares", watched)
    return shapes


@pytest.mark.parametrize("name", ["dropout_bench", "topics_bench", "chat_bench"])
@pytest.mark.parametrize("tokens", [30, 70])
def test_cutting_by_tokens_changes_neither_loss_nor_weights(request, tmp_path, micro_batches, name, tokens):
    bench = request.getfixturevalue(name)
    whole = fit(bench, tmp_path / "whole", max_steps=5)
    assert len(micro_batches) == 5
    micro_batches.clear()
    cut = fit(bench, tmp_path / "cut", max_steps=5, micro_batch_tokens=tokens)
    assert len(micro_batches) > 5
    longest = max(example.length for example in bench.examples)
    assert all(rows * columns <= tokens or (rows == 1 and columns <= longest) for rows, columns in micro_batches)
    assert cut.column("loss") == pytest.approx(whole.column("loss"), rel=1e-4)
    assert cut.column("gradient_norm") == pytest.approx(whole.column("gradient_norm"), rel=1e-3)
    assert furthest(cut.weights, whole.weights) < 1e-4


def test_runs_side_by_side_share_the_budget(topics_bench, tmp_path, micro_batches):
    """A micro-batch has rows of all runs that are alike in length: a run of short batches beside one of long ones is
    padded no more than it is alone."""
    bench = topics_bench
    seeds, tokens = (0, 1, 2), 100
    models = [bench.model(seed) for seed in seeds]
    weights = [dict(model.named_parameters()) for model in models]
    group = ReplicaGroup.stack(models[0], [{name: value.detach() for name, value in own.items()} for own in weights])
    replicas = [replica(tmp_path / str(seed), seed) for seed in seeds]
    chosen = options(max_steps=6, micro_batch_tokens=tokens, batch_tokens=80)
    trained = train(group, bench.task, bench.examples, chosen, replicas, make_runtime(tmp_path), None)
    longest = max(example.length for example in bench.examples)
    assert micro_batches and all(
        rows * columns <= tokens or (rows == 1 and columns <= longest) for rows, columns in micro_batches
    )
    padding: list[float] = []
    for seed, each in zip(seeds, replicas, strict=True):
        alone = fit(bench, tmp_path / f"alone-{seed}", seed, max_steps=6, batch_tokens=80, micro_batch_tokens=tokens)
        padding.append(alone.trained.facts["padding"])
        found = [row["loss"] for row in read_rows(each.folder.metrics)]
        assert found == pytest.approx(alone.column("loss"), rel=1e-4)
    assert torch.isfinite(next(group.model.parameters())).all()
    assert np.mean([one.facts["padding"] for one in trained]) < np.mean(padding) + 0.05
