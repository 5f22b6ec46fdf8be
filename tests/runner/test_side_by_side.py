"""Runs side by side, and on remembered activations, give what each gives alone, or are not trained so."""

from contextlib import nullcontext

import pytest
import torch

from finetune.replicas.prefix import Activations
from finetune.replicas.stacked import CannotStack, Stacked
from finetune.runner import session
from finetune.runner.side_by_side import check_group
from tests import tiny
from tests.replicas.groups import Variant


def test_runs_that_get_each_others_weights_are_not_trained_side_by_side(tmp_path, encoder_folder, monkeypatch):
    this = Variant.of(tmp_path / "study", encoder_folder, "classification", {"type": "full"})
    assert this.assembled([0, 1]).count == 2
    monkeypatch.setattr(Stacked, "own", lambda self, key, number: self.get_parameter(key).detach()[1 - number])
    with pytest.raises(CannotStack, match="others than of each run alone"):
        this.like().assembled([0, 1])


@pytest.mark.parametrize("strategy", [{"type": "full"}, {"type": "adapter", "rank": 2}], ids=["full", "lora"])
def test_also_of_weights_that_are_alike_at_the_start(tmp_path, encoder_folder, monkeypatch, strategy):
    """Those of the base model, and LoRA's second factor: all but the head's."""
    this = Variant.of(tmp_path / "study", encoder_folder, "classification", strategy)
    before = {name: value.clone() for name, value in this.assembled([0, 1]).model.named_parameters()}
    own = Stacked.own

    def swapped(self, key, number):
        head = len(self.get_parameter(key)[0]) == len(this.data.task.labels)
        return own(self, key, number if head else 1 - number)

    with monkeypatch.context() as patched, pytest.raises(CannotStack, match="others than of each run alone"):
        patched.setattr(Stacked, "own", swapped)
        this.like().assembled([0, 1])
    after = dict(this.like().assembled([0, 1]).model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the check leaves no trace"


@pytest.mark.parametrize("dtype, off, found", [(torch.bfloat16, 1.01, False), (torch.bfloat16, 2, True)])
def test_rounding_is_no_difference(tmp_path, encoder_folder, monkeypatch, dtype, off, found):
    """Of a tenth of the spread, in bfloat16; the same in float32 is one."""
    this = Variant.of(tmp_path / "study", encoder_folder, "classification", {"type": "full"})
    group, runtime = this.assembled([0, 1]), this.runtime()
    own = Stacked.own
    monkeypatch.setattr(Stacked, "own", lambda self, key, number: own(self, key, number) * off)
    with nullcontext() if not found else pytest.raises(CannotStack):
        check_group(group, this.data.task, this.data.train.examples, runtime.at("", dtype))
    with pytest.raises(CannotStack):
        check_group(group, this.data.task, this.data.train.examples, runtime.at("", torch.float32))


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_activations_that_are_anothers_are_not_used(tmp_path, encoder_folder, monkeypatch, seeds):
    this = Variant.of(tmp_path / "study", encoder_folder, "classification", {"type": "partial", "last": 1})
    assert this.assembled(seeds).prefix is not None
    read, said = Activations.read, []
    monkeypatch.setattr(session.Prefix, "holds", lambda *arguments: True)  # it looks for dropout, not for this
    monkeypatch.setattr(
        Activations, "read", lambda *known: {name: value.flip(0) + 1 for name, value in read(*known).items()}
    )
    monkeypatch.setattr("finetune.core.progress.Progress.say", lambda self, text: said.append(text))
    group = this.like().assembled(seeds)
    assert group.prefix is None and ["remembered" in text for text in said] == [True]
    assert torch.isfinite(torch.tensor(this.like().run(seeds, "run")[0].losses)).all()


def test_what_is_looked_up_by_position_is_not_taken_for_rows(tmp_path):
    """Where there are as many positions as rows, nothing fails, and every run gets parts of the others' weights."""
    tiny.save_encoder_decoder(tmp_path / "model")
    this = Variant.of(tmp_path / "study", tmp_path / "model", "classification", {"type": "full"})
    this.recipe = this.recipe.model_copy(update={"task": this.recipe.task.model_copy(update={"max_length": 12})})
    positions = max(example.length for example in this.data.train.examples)
    assert positions == 12, "two examples of each run are shown"
    with pytest.raises(CannotStack, match="others than of each run alone"):
        this.assembled(list(range(positions // 2)))
    with pytest.raises(CannotStack, match="side by side the model fails"):
        this.like().assembled([0, 1])
