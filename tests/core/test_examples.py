"""A batch knows where its examples stand, and moves as a whole."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from finetune.core.examples import Batch

EXAMPLE = torch.tensor([[0, 0, 1, -1], [2, 2, 2, 2]])


def batch(**inputs):
    return Batch({"input_ids": torch.zeros_like(EXAMPLE), **inputs}, torch.tensor([4, 5, 6]), EXAMPLE)


def test_it_counts_its_examples_and_their_positions():
    assert batch().count == 3
    assert batch().positions.tolist() == [[0, 1, 2, 3]] * 2
    own = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]])
    assert batch(position_ids=own).positions.equal(own)


def test_all_of_it_moves():
    moved = Batch({"input_ids": EXAMPLE}, EXAMPLE, EXAMPLE, place=EXAMPLE).to(torch.device("meta"))
    assert {value.device.type for value in (*moved.inputs.values(), moved.targets, moved.example, moved.place)} == {
        "meta"
    }
    assert batch().to(torch.device("cpu")).place is None


def test_it_stays_as_it_was_made():
    with pytest.raises(FrozenInstanceError):
        batch().targets = EXAMPLE
