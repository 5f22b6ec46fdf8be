"""Hooks know what passes through the model, and only while it does."""

from types import SimpleNamespace

import pytest
import torch

from finetune.core.examples import Batch
from finetune.core.hooks import TrainingHook, TrainingHooks, TrainingState


class Watching(TrainingHook):
    def __init__(self):
        self.seen = []

    def gradients(self):
        self.seen.append(("gradients", self.training_state.step))

    def stepped(self, rate):
        self.seen.append(("stepped", rate))

    def end(self):
        self.seen.append("end")


@pytest.fixture
def state():
    return TrainingState(torch.nn.Linear(1, 1), {}, frozenset(), [], 4, lambda examples: None, [])


def test_all_of_them_are_told_in_order(state):
    first, second = Watching(), Watching()
    hooks = TrainingHooks([first, second])
    hooks.begin(state)
    hooks.begin_step(2)
    hooks.gradients()
    hooks.stepped(0.5)
    hooks.end()
    assert first.seen == second.seen == [("gradients", 2), ("stepped", 0.5), "end"]
    assert first.training_state is second.training_state is state


def test_a_batch_is_there_while_it_passes(state):
    hooks, noise = TrainingHooks([Watching()]), SimpleNamespace()
    hooks.begin(state)
    example = torch.zeros(1, 2, dtype=torch.long)
    with hooks.passing(noise, batch := Batch({}, example, example)):
        assert state.noise is noise and state.batch is batch
    with pytest.raises(ZeroDivisionError), hooks.passing(noise, batch):
        raise ZeroDivisionError
    assert state.noise is None and state.batch is None
