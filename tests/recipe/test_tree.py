from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.recipe.tree import Node, Origin, assign, merge

HERE, THERE = Origin("here:1"), Origin("there:2")


def tree(content, origin=HERE) -> Node:
    if isinstance(content, dict):
        return Node({key: tree(value, origin) for key, value in content.items()}, origin)
    if isinstance(content, list):
        return Node(tuple(tree(item, origin) for item in content), origin)
    return Node(content, origin)


keys = st.sampled_from(["a", "b", "c", "columns"])
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3))
mappings = st.recursive(
    st.dictionaries(keys, st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=3),
    lambda inner: st.dictionaries(keys, st.one_of(scalars, inner), max_size=3),
    max_leaves=8,
)


@given(mappings, mappings, mappings)
def test_merging_is_associative(a, b, c):
    x, y, z = tree(a, Origin("x")), tree(b, Origin("y")), tree(c, Origin("z"))
    left, right = merge(merge(x, y), z), merge(x, merge(y, z))
    assert left.plain() == right.plain()


@given(mappings)
def test_merging_with_itself_or_nothing_changes_nothing(a):
    assert merge(tree(a), tree(a)) == tree(a)
    assert merge(tree({}), tree(a)).plain() == a
    assert merge(tree(a), tree({})).plain() == a


def test_mappings_merge_lists_and_scalars_are_replaced():
    below = tree({"train": {"epochs": 3, "clip": 1.0}, "metrics": ["a", "b"]})
    merged = merge(below, tree({"train": {"epochs": 5}, "metrics": ["c"]}, THERE))
    assert merged.plain() == {"train": {"epochs": 5, "clip": 1.0}, "metrics": ["c"]}
    assert merged.find(("train", "epochs")).origin == THERE
    assert merged.find(("train", "clip")).origin == HERE


def test_a_mapping_whose_type_changes_is_replaced():
    below = tree({"strategy": {"type": "adapter", "rank": 8}})
    assert merge(below, tree({"strategy": {"type": "linear"}})).plain() == {"strategy": {"type": "linear"}}
    kept = merge(below, tree({"strategy": {"type": "adapter", "alpha": 1}})).plain()
    assert kept == {"strategy": {"type": "adapter", "rank": 8, "alpha": 1}}


def test_a_column_called_type_is_not_a_plugin():
    below = tree({"columns": {"type": "kind", "text": "body"}})
    merged = merge(below, tree({"columns": {"type": "genre"}}))
    assert merged.plain() == {"columns": {"type": "genre", "text": "body"}}


def test_null_replaces_a_section_and_a_section_replaces_null():
    assert merge(tree({"clip": {"a": 1}}), tree({"clip": None})).plain() == {"clip": None}
    assert merge(tree({"clip": None}), tree({"clip": {"a": 1}})).plain() == {"clip": {"a": 1}}


def test_assign_reaches_list_items_and_makes_sections():
    before = tree({"evaluate": [{"name": "a"}, {"name": "b"}]})
    after = assign(before, ["evaluate", "1", "name"], Node("x", THERE))
    assert after.plain() == {"evaluate": [{"name": "a"}, {"name": "x"}]}
    assert assign(before, ["train", "early_stopping", "patience"], Node(2, THERE)).find(("train",)).plain() == {
        "early_stopping": {"patience": 2}
    }


@pytest.mark.parametrize("index", ["2", "-1", "name", "0.5"])
def test_assign_refuses_an_item_that_is_not_there(index):
    with pytest.raises(InputError, match="has no item"):
        assign(tree({"evaluate": [1, 2]}), ["evaluate", index], Node(1, THERE))
