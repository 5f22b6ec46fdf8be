"""Named streams: unrelated, addressed by position, and invisible to whoever draws outside them."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.randomness import STREAMS, Streams, seed_everything, to_digits

ADDRESSES = st.tuples(st.integers(0, 2**40), st.sampled_from(STREAMS), st.lists(st.integers(0, 10**6), max_size=3))


@given(ADDRESSES, ADDRESSES)
def test_different_addresses_have_different_seeds(left, right):
    seeds = [Streams(seed, frozenset(STREAMS)).seed_of(name, *at) for seed, name, at in (left, right)]
    assert (seeds[0] == seeds[1]) == (left == right)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_in_every_process():
    """Python's own hash is not; these numbers must never change, or every study changes with them."""
    program = "from finetune.core.randomness import Streams; print(Streams(3).seed_of('order', 7))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(printed) == Streams(3).seed_of("order", 7) == 7247607103098079522


@pytest.mark.parametrize("stream", STREAMS)
def test_only_streams_that_vary_follow_the_seed(stream):
    varying, fixed = frozenset({stream}), frozenset(STREAMS) - {stream}
    assert Streams(1, varying).seed_of(stream) != Streams(2, varying).seed_of(stream)
    assert Streams(1, fixed).seed_of(stream) == Streams(2, fixed).seed_of(stream) == Streams(0).seed_of(stream)


def test_the_split_is_the_same_in_every_run_unless_told_otherwise():
    assert Streams(1).seed_of("split") == Streams(2).seed_of("split")
    assert all(Streams(1).seed_of(name) != Streams(2).seed_of(name) for name in STREAMS if name != "split")


def test_a_stream_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="unknown stream 'ordr'; there are split, init, order, dropout, noise"):
        Streams(0).seed_of("ordr")


def test_numpy_generators_are_fresh_at_every_position():
    streams = Streams(5)
    again = [streams.numpy("order", 1).random(3).tolist() for _ in range(2)]
    assert again[0] == again[1] != streams.numpy("order", 2).random(3).tolist()


def draws():
    return [random.random(), float(np.random.random()), float(torch.rand(()))]


def test_library_code_draws_from_the_stream_inside_the_block():
    def inside(seed):
        with Streams(seed).globally("init", 3):
            return draws()

    torch.manual_seed(1)
    first = inside(0)
    torch.manual_seed(2)
    assert inside(0) == first
    assert all(left != right for left, right in zip(first, inside(1), strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_the_block_leaves_no_trace(fails):
    seed_everything(11)
    undisturbed = draws()
    seed_everything(11)
    try:
        with Streams(0).globally("init"):
            draws()
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert draws() == undisturbed


def test_blocks_nest():
    with Streams(0).globally("init"):
        alone = draws()
    with Streams(0).globally("init"):
        with Streams(0).globally("noise"):
            draws()
        assert draws() == alone


def test_seeding_everything_accepts_every_seed():
    for seed in (0, 2**32, 2**63 - 1):
        seed_everything(seed)
        first = draws()
        seed_everything(seed)
        assert draws() == first


def test_facts_say_which_seed_drives_what():
    assert Streams(7, frozenset({"order"})).facts() == {"split": 0, "init": 0, "order": 7, "dropout": 0, "noise": 0}
    assert Streams(7).facts(["init"]) == {"init": 7}


def test_a_stream_may_have_a_seed_of_its_own():
    """It is the one that a run of this seed would have, and the others stay as they are."""
    streams = Streams(7, frozenset({"order"}), {"init": 3})
    assert streams.facts() == {"split": 0, "init": 3, "order": 7, "dropout": 0, "noise": 0}
    assert streams.seed_of("init", 5) == Streams(3).seed_of("init", 5)
    assert streams.seed_of("order", 5) == Streams(7).seed_of("order", 5)


@given(st.dictionaries(st.sampled_from(STREAMS), st.integers(0, 9)))
def test_a_number_spells_the_seeds_of_all_streams(seeds):
    streams = Streams.spelled(to_digits(seeds))
    assert streams.facts() == {name: seeds.get(name, 0) for name in STREAMS}
    assert streams.vary == {name for name, seed in seeds.items() if seed}
    assert streams.seed == to_digits(seeds)


def test_spelling_by_hand():
    assert to_digits({"init": 1, "order": 3, "dropout": 2}) == 1320
    assert Streams.spelled(1320).facts() == {"split": 0, "init": 1, "order": 3, "dropout": 2, "noise": 0}
    with pytest.raises(AssertionError, match="one digit"):
        to_digits({"init": 10})
