"""Kernels of attention: every one that can be had gives the same, and the others are refused with the reason."""

import pytest
import torch

from finetune import models
from finetune.core.errors import InputError
from finetune.models.attention import check_attention
from finetune.models.pooling import POOLED
from tests import tiny

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def logits(folder, attention, architecture="AutoModelForSequenceClassification"):
    options = models.ModelOptions(source=str(folder))
    base = models.load_base(options, architecture, True, num_labels=3, **models.attention_config(attention))
    model = base.model.eval()
    torch.manual_seed(0)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    ids = torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 0, 0]])
    with torch.no_grad():
        return model, model(input_ids=ids, attention_mask=(ids != 0).long()).logits


@pytest.mark.parametrize("architecture", ["AutoModelForSequenceClassification", POOLED])
def test_what_is_written_out_gives_the_same_as_torchs_own(encoder_folder, architecture):
    sdpa, fused = logits(encoder_folder, "sdpa", architecture)
    eager, written = logits(encoder_folder, "eager", architecture)
    assert (sdpa.config._attn_implementation, eager.config._attn_implementation) == ("sdpa", "eager")
    torch.testing.assert_close(written, fused, rtol=1e-4, atol=1e-5)


def test_the_kernel_that_is_asked_for_is_the_one_that_runs(encoder_folder, monkeypatch):
    calls, own = [], torch.nn.functional.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(1)
        return own(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    logits(encoder_folder, "eager")
    assert not calls
    logits(encoder_folder, "sdpa")
    assert len(calls) == 2, "one for each block"


@pytest.fixture
def empty(encoder_folder):
    return models.skeleton(models.ModelOptions(source=str(encoder_folder)), "AutoModelForSequenceClassification")


@pytest.mark.parametrize(
    ("attention", "device", "dtype", "reason"),
    [
        ("flash", CPU, torch.bfloat16, "kernels are for GPUs, and this runs on cpu"),
        ("flex", CPU, torch.float32, "kernels are for GPUs, and this runs on cpu"),
        ("flash", CUDA, torch.bfloat16, "flash-attn is not installed"),
    ],
)
def test_what_cannot_be_had_here_is_refused_with_the_reason(empty, attention, device, dtype, reason):
    with pytest.raises(InputError, match=reason):
        check_attention(empty, attention, device, dtype)


def test_flash_has_no_float32(empty, monkeypatch):
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    check_attention(empty, "flash", CUDA, torch.bfloat16)
    with pytest.raises(InputError, match="no float32 kernels"):
        check_attention(empty, "flash", CUDA, torch.float32)


def test_what_a_model_has_not_is_refused_by_its_name(tmp_path):
    options = models.ModelOptions(source=str(tiny.save_t5(tmp_path)))
    without = models.skeleton(options, "AutoModelForSeq2SeqLM")
    check_attention(without, "eager", CPU, torch.float32)
    with pytest.raises(InputError, match="T5ForConditionalGeneration has not"):
        check_attention(without, "flash", CUDA, torch.bfloat16)


def test_every_kernel_that_can_be_had_here_is_accepted(empty):
    for attention in ("auto", "sdpa", "eager"):
        check_attention(empty, attention, CPU, torch.float32)
