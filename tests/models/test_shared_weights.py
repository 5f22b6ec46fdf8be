"""A base model's weights are in memory once: runs share what does not learn, and nobody changes it."""

import gc

import pytest
import torch

from finetune import models
from finetune.core.randomness import Streams
from finetune.models.base import BaseModel
from finetune.runner.build import to_device
from finetune.strategies.base import train_only
from tests.train.workbench import make_runtime

HEAD = {"classifier.weight", "classifier.bias"}


def stored(folder, to, dtype):
    """The same model with its weights in another type."""
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(folder).to(dtype).save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


def base_of(folder) -> BaseModel:
    options = models.ModelOptions(source=str(folder))
    return models.load_base(options, "AutoModelForSequenceClassification", True, num_labels=3)


def bits(base):
    return {name: value.detach().clone() for name, value in base.model.named_parameters()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def base(request, encoder_folder, tmp_path):
    return base_of(stored(encoder_folder, tmp_path / "stored", request.param))


def test_weights_stay_in_the_type_that_they_are_stored_in(encoder_folder, tmp_path):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        base = base_of(stored(encoder_folder, tmp_path / str(dtype), dtype))
        assert base.model.get_parameter("bert.embeddings.word_embeddings.weight").dtype == dtype
        assert {value.dtype for value in base.copy(Streams(0)).parameters()} == {torch.float32}


def test_the_digest_is_that_of_the_same_weights_in_float32(encoder_folder, tmp_path):
    half = stored(encoder_folder, tmp_path / "half", torch.bfloat16)
    full = stored(half, tmp_path / "full", torch.float32)
    assert base_of(half).digest == base_of(full).digest != base_of(encoder_folder).digest


def test_a_view_is_the_copy_without_its_memory(base):
    copy, view = base.copy(Streams(3)), base.view(Streams(3))
    for name, value in view.named_parameters():
        assert torch.equal(value.float(), copy.get_parameter(name)), name
        shared = value.data_ptr() == base.model.get_parameter(name).data_ptr()
        assert shared is (name not in HEAD), name


def test_what_learns_gets_weights_of_its_own_and_the_base_stays_as_it_is(base):
    before, view = bits(base), base.view(Streams(0))
    train_only(view, {"bert.encoder.layer.1.output.dense.weight", *HEAD})
    base.own(view)
    with torch.no_grad():
        for value in view.parameters():
            if value.requires_grad:
                assert value.dtype == torch.float32
                value.add_(1)
    assert same(bits(base), before)
    assert not any(value.requires_grad is False for value in base.model.parameters()), "nor is it frozen"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_weights_are_on_the_device_once_for_all_runs(base, tmp_path, dtype):
    def frozen(streams):
        view = base.view(streams)
        train_only(view, HEAD)
        base.own(view)
        return to_device(view, make_runtime(tmp_path, dtype), base=base)

    first, second = frozen(Streams(0)), frozen(Streams(1))
    copy = base.copy(Streams(0))
    train_only(copy, HEAD)
    alone = to_device(copy, make_runtime(tmp_path, dtype))
    for name, value in first.named_parameters():
        assert (value.data_ptr() == second.get_parameter(name).data_ptr()) is (name not in HEAD), name
        assert torch.equal(value, alone.get_parameter(name)) and value.dtype == alone.get_parameter(name).dtype
    kept = first.get_parameter("bert.pooler.dense.weight").data_ptr()
    del first
    gc.collect()
    assert frozen(Streams(2)).get_parameter("bert.pooler.dense.weight").data_ptr() in (
        kept,
        second.get_parameter("bert.pooler.dense.weight").data_ptr(),
    )


def test_weights_that_were_replaced_are_not_given_to_others(base, tmp_path):
    """As adapters do when they are merged."""
    runtime, name = make_runtime(tmp_path, torch.bfloat16), "bert.pooler.dense.weight"
    first = to_device(base.view(Streams(0)).requires_grad_(False), runtime, base=base)
    first.get_parameter(name).data = first.get_parameter(name).data.clone().zero_()
    second = to_device(base.view(Streams(0)).requires_grad_(False), runtime, base=base)
    assert second.get_parameter(name).abs().sum() > 0


# In float32, weight by weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_modules_compute_in_float32_with_weights_of_fewer_bits_and_let_go_of_them(encoder_folder, tmp_path, dtype):
    base = base_of(stored(encoder_folder, tmp_path / "stored", dtype))
    ids, before = torch.tensor([[7, 8, 9, 10]]), bits(base)
    view = base.view(Streams(0)).requires_grad_(False).eval()
    assert models.in_float32(view)
    with torch.no_grad():
        found, wanted = view(ids).logits, base.copy(Streams(0)).eval()(ids).logits
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    assert same(bits(base), before)
    assert {value.dtype for name, value in view.named_parameters() if name not in HEAD} == {dtype}


def test_a_module_that_fails_lets_go_too(encoder_folder, tmp_path):
    base = base_of(stored(encoder_folder, tmp_path / "stored", torch.bfloat16))
    view = base.view(Streams(0)).requires_grad_(False).eval()
    models.in_float32(view)
    with pytest.raises(IndexError):
        view(torch.tensor([[10_000]]))
    assert view.get_parameter("bert.embeddings.word_embeddings.weight").dtype == torch.bfloat16


def test_what_is_in_float32_needs_nothing(encoder_folder):
    assert not models.in_float32(base_of(encoder_folder).model)
