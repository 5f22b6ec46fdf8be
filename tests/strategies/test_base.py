"""What all strategies share: which parameters learn, and which parts of the model are in training mode."""

import pytest
import torch

from finetune.strategies.base import set_trained, set_training_mode, trained_parameters


def test_training_mode_is_for_parts_that_learn(prepare):
    model = prepare("bert", "partial", last=1).model
    model.eval()
    set_training_mode(model)
    blocks = model.bert.encoder.layer
    assert blocks[1].attention.self.dropout.training and blocks[1].output.dropout.training
    assert model.dropout.training and model.classifier.training
    frozen = [model.bert.embeddings, blocks[0]]
    assert not any(module.training for part in frozen for module in part.modules())


def test_a_probe_drops_nothing_out_of_its_frozen_features(prepare, logits):
    model = prepare("bert", "linear").model
    set_training_mode(model)
    assert not any(module.training for module in model.bert.modules())
    assert model.dropout.training  # the head's own


def test_everything_that_learns_is_in_training_mode(prepare):
    for strategy in ("full", "adapter"):
        model = prepare("bert", strategy).model.eval()
        set_training_mode(model)
        assert all(module.training for module in model.modules() if isinstance(module, torch.nn.Dropout)) == (
            strategy == "full"
        )
        parts = {name.rpartition(".")[0] for name in trained_parameters(model)}
        assert all(model.get_submodule(part).training for part in parts)


def test_weights_of_another_set_of_parameters_are_refused(prepare):
    one, other = prepare("bert", "partial", last=1), prepare("bert", "linear")
    weights = dict(trained_parameters(one.model))
    with pytest.raises(ValueError, match=r"differ, for instance in \['bert"):
        set_trained(other.model, weights)
    set_trained(one.model, {name: torch.zeros_like(value) for name, value in weights.items()})
    assert not any(value.any() for value in trained_parameters(one.model).values())
