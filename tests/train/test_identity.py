"""Two seeds that are secretly the same run are found out, and two that differ in anything at all are not accused."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from finetune.core.errors import SameRun
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base
from finetune.train.batching import plan_batches
from finetune.train.identity import check_distinct, identity
from tests.train.workbench import fit, options, same


def of(bench, seed, vary, model=None):
    streams = Streams(seed, frozenset(vary))
    return identity(model or bench.model(streams=streams), first_batch(bench.examples, streams), streams)


def first_batch(examples, streams):
    return [examples[index] for index in plan_batches(examples, options(), streams).batch(0)]


def collide(bench, vary):
    """Whether seed 2 is refused beside seed 1, whose identity was read from its result."""
    other_seeds = {1: {"identity": json.loads(json.dumps(of(bench, 1, vary)))}}
    try:
        check_distinct(of(bench, 2, vary), other_seeds)
    except SameRun:
        return True
    return False


@pytest.mark.parametrize("vary", [["init"], ["order"], ["dropout"], ["init", "order", "dropout", "noise"]], ids=str)
def test_seeds_that_vary_in_a_stream_are_two_runs(dropout_bench, vary):
    assert not collide(dropout_bench, vary)


@pytest.mark.parametrize("vary", [[], ["noise"]], ids=str)
def test_seeds_that_vary_in_nothing_are_one_run(dropout_bench, vary):
    assert collide(dropout_bench, vary)


def test_dropout_does_not_vary_where_there_is_none(topics_bench):
    assert collide(topics_bench, ["dropout"]) and not collide(topics_bench, ["dropout", "order"])


def test_init_does_not_vary_where_nothing_is_new(chat_bench):
    assert collide(chat_bench, ["init", "dropout"]) and not collide(chat_bench, ["order"])


def test_dropout_in_frozen_parts_does_not_count(dropout_bench):
    """It is turned off there, so runs that differ in nothing else are the same run."""
    vary, models = ["dropout"], [dropout_bench.model(streams=Streams(0)) for _ in range(2)]
    for model in models:
        model.requires_grad_(False)
        model.classifier.requires_grad_(True)
        model.dropout.p = 0.0
    starts = [of(dropout_bench, seed, vary, model) for seed, model in enumerate(models)]
    assert starts[0] == starts[1] and starts[0]["dropout"] is None


def test_dropout_inside_attention_counts(chat_bench, decoder_folder):
    base = load_base(ModelOptions(source=str(decoder_folder)), "AutoModelForCausalLM", attention_dropout=0.1)
    assert of(chat_bench, 1, ["dropout"], base.copy(Streams(1)))["dropout"] is not None
    assert of(chat_bench, 1, ["dropout"])["dropout"] is None


def test_what_is_said_to_be_the_same_trains_the_same(topics_bench, tmp_path):
    """The check is about runs, so hold it against runs: equal identities, equal weights."""
    runs = [Streams(seed, frozenset({"dropout"})) for seed in (1, 2)]
    first, second = (fit(topics_bench, tmp_path / str(run.seed), streams=run, max_steps=3) for run in runs)
    assert same(first.weights, second.weights)


def test_the_message_says_which_seed_and_what_to_do(topics_bench):
    start = of(topics_bench, 1, [])
    with pytest.raises(SameRun, match=r"as seed 4: .* Let more streams vary"):
        check_distinct(start, {3: {"identity": None}, 4: {"identity": start}, 5: {}})


def test_frozen_weights_do_not_tell_runs_apart(topics_bench):
    """Only what learns counts: two probes over different features are not hidden by the features' hash."""
    model = topics_bench.model()
    before = of(topics_bench, 1, [], model)
    model.bert.requires_grad_(False)
    model.classifier.requires_grad_(True)
    assert of(topics_bench, 1, [], model)["initial_weights"] != before["initial_weights"]
    assert len(before["initial_weights"]) == len(before["first_batch"]) == 16


def test_the_first_batch_is_known_by_what_is_in_it(topics_bench):
    """With another split, other examples have the same numbers."""
    streams, model = Streams(0), topics_bench.model(streams=Streams(0))
    before = identity(model, first_batch(topics_bench.examples, streams), streams)
    circle = pairwise([*topics_bench.examples, topics_bench.examples[0]])
    moved = [replace(one, inputs=other.inputs) for one, other in circle]
    after = identity(model, first_batch(moved, streams), streams)
    assert before["initial_weights"] == after["initial_weights"]
    assert before["first_batch"] != after["first_batch"]
