"""Entity F1, and how tags are read, by what seqeval's documentation says of its default mode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.metrics import find
from finetune.metrics.entities import counts_by_type, entities, tagged
from tests.metrics.columns import columns, contributions, value


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", []),
        ("B-a I-a O B-a", [(0, 2, "a"), (3, 4, "a")]),
        ("B-a B-a", [(0, 1, "a"), (1, 2, "a")]),
        ("I-a I-a O", [(0, 2, "a")]),  # I- without B- begins an entity
        ("O I-a B-a I-a", [(1, 2, "a"), (2, 4, "a")]),
        ("B-a I-b I-b", [(0, 1, "a"), (1, 3, "b")]),  # another type begins one
        ("B-a O I-a", [(0, 1, "a"), (2, 3, "a")]),
        ("B-a I-a E-a I-a", [(0, 3, "a"), (3, 4, "a")]),  # after an end something begins
        ("S-a I-a S-a S-a", [(0, 1, "a"), (1, 2, "a"), (2, 3, "a"), (3, 4, "a")]),
        ("E-a E-a", [(0, 1, "a"), (1, 2, "a")]),
        ("B-per-son I-per-son", [(0, 2, "per-son")]),
        ("", []),
    ],
)
def test_where_entities_begin_and_end(tags, found):
    assert entities(tags.split()) == found


@given(st.lists(st.sampled_from(["O", *(f"{mark}-{kind}" for mark in "BIES" for kind in "ab")])))
def test_written_again_they_are_the_same(tags):
    found = entities(tags)
    again = tagged(found, len(tags))
    assert entities(again) == found and {tag[0] for tag in again} <= set("BIO")
    assert all(before < after for before, after, _ in found)


def test_by_hand():
    """As in seqeval's own example: one of two entities is right."""
    said = "O O B-MISC I-MISC I-MISC I-MISC O"
    wanted = "O O O B-MISC I-MISC I-MISC O"
    rows = [(said, wanted), ("B-PER I-PER O", "B-PER I-PER O")]
    assert value("entity_f1", rows) == pytest.approx(0.5)
    assert value("sentence_f1", rows) == pytest.approx(0.5)
    assert value("token_accuracy", rows) == pytest.approx(0.8)


def test_type_and_extent_have_to_be_right():
    assert value("entity_f1", [("B-a I-a O", "B-b I-b O")]) == 0
    assert value("entity_f1", [("B-a O O", "B-a I-a O")]) == 0
    assert value("entity_f1", [("I-a I-a O", "B-a I-a O")]) == 1, "which is read the same"


def test_no_entity_anywhere_is_zero():
    assert value("entity_f1", [("O", "O")]) == 0 and value("sentence_f1", [("O", "O")]) == 1
    assert value("sentence_f1", [("B-a", "O"), ("O", "B-a"), ("O", "O")]) == pytest.approx(1 / 3)


def test_counts_by_type_add_up():
    rows = columns([("B-a B-b O", "B-a O B-b"), ("O", "B-b")])
    found = counts_by_type(rows)
    assert {kind: counted.tolist() for kind, counted in found.items()} == {
        "a": [[1, 1, 1], [0, 0, 0]],
        "b": [[0, 1, 1], [0, 0, 1]],
    }


def test_contributions_by_hand():
    # F1 = 2 * 1 / (2 + 2) = 1/2; d/dw of the hit: (2 - 1/2 * 2) / 4 = 1/4, of the miss: (0 - 1/2 * 2) / 4.
    assert contributions("entity_f1", [("B-a", "B-a"), ("B-a", "B-b")]) == pytest.approx([1.0, 0.0])
    assert find("entity_f1").per_example(columns([("O", "O")])) is None
