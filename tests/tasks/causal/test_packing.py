"""Examples in rows: each once, no row overfull, replicas apart, and back again."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.tasks.causal.packing import fill_rows, lay_out, packed_rows, unpacked, with_mask
from finetune.tasks.conversation import IGNORED

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=24)


@st.composite
def replicas(draw):
    """Lengths of examples of one to four replicas, and how many each has."""
    counts = draw(st.lists(st.integers(0, 8), min_size=1, max_size=4).filter(any))
    return draw(st.lists(st.integers(1, 40), min_size=sum(counts), max_size=sum(counts))), counts


def examples(lengths):
    """Tokens that tell which example they belong to and where; every second one is a label."""
    ids = [100 * number + np.arange(1, length + 1) for number, length in enumerate(lengths)]
    return ids, [np.where(np.arange(len(own)) % 2, own, IGNORED) for own in ids]


@given(LENGTHS, st.integers(0, 30))
def test_every_example_stands_in_one_row_and_no_row_is_overfull(lengths, spare):
    width = max(lengths) + spare
    rows = fill_rows(lengths, width)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert max(filled) <= width
    assert all(one + other > width for number, one in enumerate(filled) for other in filled[:number]), "two fit in one"


def test_rows_are_filled_the_longest_first():
    assert fill_rows([3, 7, 2, 5, 3], 10) == [[1, 0], [3, 4, 2]]


@given(replicas())
def test_replicas_have_rows_of_their_own(drawn):
    lengths, counts = drawn
    rows = packed_rows(lengths, counts)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    replica = [number for number, count in enumerate(counts) for _ in range(count)]
    owners = [{replica[index] for index in row} for row in rows]
    assert all(len(own) == 1 for own in owners), "a row that is empty, or mixes replicas"
    assert [min(own) for own in owners] == sorted(min(own) for own in owners)
    assert all(sum(lengths[index] for index in row) <= max(lengths) for row in rows)


@given(replicas())
def test_what_is_laid_out_is_all_there_and_comes_apart_again(drawn):
    lengths, counts = drawn
    ids, targets = examples(lengths)
    batch = lay_out(packed_rows(lengths, counts), ids, targets, filler=7)
    assert batch.inputs["input_ids"].shape[1] == max(lengths)
    for index, (own, labels) in enumerate(zip(ids, targets, strict=True)):
        place = batch.example == index
        assert place.any(1).sum() == 1, "an example stands in one row"
        assert batch.inputs["input_ids"][place].tolist() == own.tolist()
        assert batch.targets[place].tolist() == labels.tolist()
        assert batch.inputs["position_ids"][place].tolist() == list(range(len(own)))
    padding = batch.example == -1
    assert (batch.inputs["input_ids"][padding] == 7).all() and (batch.targets[padding] == IGNORED).all()
    assert ((batch.inputs["position_ids"] >= 0) & (batch.inputs["position_ids"] < max(lengths))).all()
    apart, wanted = unpacked(batch), with_mask(lay_out([[index] for index in range(len(ids))], ids, targets, filler=0))
    pairs = [(value, wanted.inputs[name]) for name, value in apart.inputs.items()]
    pairs += [(apart.targets, wanted.targets), (apart.example, wanted.example)]
    assert apart.inputs.keys() == wanted.inputs.keys() and apart.place is wanted.place is None
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in pairs)
    assert unpacked(apart) is apart
    assert apart.inputs["attention_mask"].sum(1).tolist() == lengths
