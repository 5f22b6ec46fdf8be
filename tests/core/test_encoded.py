"""Examples in Arrow come back as they were, one by one, in slices and as arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.encoded import Encoded, Examples, renumbered, table_of
from finetune.core.examples import Example, Frame, lengths_of, weights_of
from finetune.data import spool
from finetune.data.spool import Spool

TOKENS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5).map(lambda ids: np.array(ids, np.int32))
TARGETS = {
    "number": st.integers(-100, 100),
    "fraction": st.floats(allow_nan=False),
    "labels": st.lists(st.integers(-100, 9), min_size=1, max_size=5).map(lambda own: np.array(own, np.int64)),
    "several": st.tuples(st.integers(0, 9), st.integers(0, 9)),
}


def examples(kind):
    one = st.builds(
        Example,
        number=st.integers(0, 2**40),
        inputs=TOKENS.map(lambda ids: {"input_ids": ids, "token_type_ids": ids * 0}),
        target=TARGETS[kind],
        weight=st.floats(0, 1e6),
        reference=st.text(max_size=5),
        prompt=st.none() | TOKENS,
        frame=st.builds(Frame, st.text(max_size=3), st.text(max_size=3)),
        rejected=st.none() | st.integers(1, 4),
    )
    return st.lists(one, min_size=1, max_size=8)


def plain(example):
    return {
        name: {key: own.tolist() for key, own in value.items()} if isinstance(value, dict) else np.array(value).tolist()
        for name, value in vars(example).items()
        if name not in ("origin", "frame")
    } | {"frame": example.frame, "kind": type(example.target)}


@pytest.mark.parametrize("kind", TARGETS)
@given(data=st.data(), size=st.integers(1, 4), memory=st.sampled_from([1, 1 << 26]))
def test_they_come_back_as_they_were(kind, data, size, memory):
    given = data.draw(examples(kind))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "IN_MEMORY", memory)
        collected = Spool()
        for start in range(0, len(given), size):
            collected.add(table_of(given[start : start + size]))
        kept = Examples(collected.finish())
    wanted = [plain(example) for example in given]
    assert [plain(example) for example in kept] == [plain(kept[place]) for place in range(len(kept))] == wanted
    assert [plain(example) for example in kept[1::2]] == wanted[1::2] and plain(kept[-1]) == wanted[-1]
    assert kept.lengths.tolist() == lengths_of(given).tolist() == lengths_of(kept).tolist()
    assert kept.weights.tolist() == weights_of(given).tolist() == weights_of(kept).tolist()
    assert kept.numbers.tolist() == [example.number for example in given]
    assert kept.rejected.tolist() == [-1 if each.rejected is None else each.rejected for each in given]
    assert kept.prompts.tolist() == [-1 if each.prompt is None else len(each.prompt) for each in given]
    assert np.concatenate([*kept.tokens()]).tolist() == [t for each in given for t in each.inputs["input_ids"]]
    assert [example.origin for example in kept] == [(kept.number, place) for place in range(len(given))]
    if kind in ("number", "fraction"):
        assert kept.targets.tolist() == [example.target for example in given]


def made(count):
    return [Example(n, {"input_ids": np.arange(n + 1)}, 0, 1.0, "") for n in range(count)]


def test_what_is_out_of_range_is_an_error():
    kept = Examples.of(made(3))
    for place in (3, -4):
        with pytest.raises(IndexError, match="among 3"):
            kept[place]
    assert len(kept) == 3 and Examples.of(kept) is kept


def test_no_examples_are_some_too():
    kept = Encoded([]).examples
    assert len(kept) == 0 and not kept and kept.lengths.tolist() == [] and list(kept) == []


def test_arrays_may_be_written_to():
    kept = Examples.of(made(2))
    kept[1].inputs["input_ids"][0] = 7
    assert kept[1].inputs["input_ids"][0] == 0


def test_two_sets_are_told_apart():
    one, other = Examples.of(made(2)), Examples.of(made(2))
    assert one[0].origin != other[0].origin and one[0].origin == one[0].origin


def test_numbers_follow_each_other():
    assert [example.number for example in Examples(renumbered(table_of(made(3)), 5))] == [5, 6, 7]
    assert not renumbered(table_of([]), 5).num_rows
