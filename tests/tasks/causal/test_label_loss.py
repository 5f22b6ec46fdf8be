"""Losses of labels in chunks: the values and gradients of the plain way, without its logits."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.tasks.causal import label_loss
from finetune.tasks.causal.label_loss import label_losses

LABELS, WIDTH, VOCABULARY = 37, 16, 101
UPSTREAM = torch.linspace(-1, 2.1, LABELS)
"""A different gradient from above for every loss."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So small that neither the labels nor the vocabulary are a multiple of a chunk."""
    monkeypatch.setattr(label_loss, "CHUNK_BYTES", 4 * VOCABULARY * 10)


def values(bias=True, scale=1.0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    shapes = [(LABELS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,)]
    hidden, weight, offset = (scale * torch.randn(shape, generator=draw).to(dtype) for shape in shapes)
    return hidden, weight, offset if bias else None, torch.randint(VOCABULARY, (LABELS,), generator=draw)


def plain(hidden, weight, bias, targets):
    return cross_entropy(linear(hidden, weight, bias).float(), targets, reduction="none")


def results(function, tensors, learn, dtype=None):
    """Losses, and the gradients of what ``learn`` names after weighing every loss differently."""
    *parts, targets = tensors
    leaves = [
        None if part is None else part.clone().requires_grad_(number in learn) for number, part in enumerate(parts)
    ]
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        losses = function(*leaves, targets)
    assert losses.dtype == torch.float32 and losses.shape == (LABELS,)
    (losses * UPSTREAM).sum().backward()
    return losses.detach(), [leaf.grad for leaf in leaves if leaf is not None and leaf.requires_grad]


HIDDEN, WEIGHT, BIAS = 0, 1, 2
LEARN = [(HIDDEN,), (HIDDEN, WEIGHT), (HIDDEN, WEIGHT, BIAS), (WEIGHT,), (BIAS,), (HIDDEN, BIAS)]


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_the_plain_ones(learn, bias):
    if not bias and BIAS in learn:
        learn = tuple(part for part in learn if part != BIAS) or (WEIGHT,)
    tensors = values(bias)
    (losses, gradients), (wanted, slopes) = (results(function, tensors, learn) for function in (label_losses, plain))
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    assert len(gradients) == len(learn)
    torch.testing.assert_close(gradients, slopes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("learn", LEARN)
def test_under_autocast_it_is_as_near_to_the_truth_as_the_plain_way(learn):
    tensors = values()
    truth, exact = results(plain, tensors, learn)
    ours, wanted = (results(function, tensors, learn, torch.bfloat16) for function in (label_losses, plain))
    assert [slope.dtype for slope in ours[1]] == [torch.float32] * len(learn)
    for found, other, true in zip([ours[0], *ours[1]], [wanted[0], *wanted[1]], [truth, *exact], strict=True):
        assert (found - true).norm() <= 1.5 * (other - true).norm()


def test_weights_of_another_kind_than_the_hidden_states_are_taken_as_they_are():
    hidden, weight, bias, targets = values(dtype=torch.bfloat16)
    losses, (slope,) = results(label_losses, (hidden.float(), weight, bias, targets), (HIDDEN,))
    wanted, (expected,) = results(plain, (hidden, weight, bias, targets), (HIDDEN,))
    torch.testing.assert_close(losses, wanted, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(slope, expected.float(), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("learn", [(HIDDEN,), (HIDDEN, WEIGHT)])
def test_what_is_known_almost_for_sure_keeps_its_small_gradient(learn):
    """One less the probability, taken after rounding to bfloat16, would be zero."""
    _, weight, _, targets = values(bias=False)
    tensors = 0.9 * weight[targets], weight, None, targets
    losses, (slope, *_) = results(label_losses, tensors, learn, torch.bfloat16)
    _, (wanted, *_) = results(plain, tensors, learn, torch.bfloat16)
    sure = (losses > 1e-4) & (losses < 1e-2)
    assert sure.sum() > 5
    error = (slope - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert error[sure].max() < 2e-2


def test_large_logits_stay_finite():
    tensors = values(scale=30.0)
    for learn in [(HIDDEN,), (HIDDEN, WEIGHT, BIAS)]:
        losses, gradients = results(label_losses, tensors, learn)
        assert all(value.isfinite().all() for value in [losses, *gradients])
        torch.testing.assert_close(losses, plain(*tensors), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("learn", [(HIDDEN,), (HIDDEN, WEIGHT, BIAS)])
def test_the_same_to_the_last_bit_every_time(learn):
    once, again = (results(label_losses, values(), learn) for _ in range(2))
    assert torch.equal(once[0], again[0]) and all(map(torch.equal, once[1], again[1]))


def test_without_labels_there_is_nothing_but_a_graph():
    hidden, weight, bias, targets = values()
    hidden, weight = hidden[:0].requires_grad_(), weight.requires_grad_()
    losses = label_losses(hidden, weight, bias, targets[:0])
    losses.sum().backward()
    assert losses.shape == (0,) and hidden.grad.shape == (0, WIDTH) and not weight.grad.any()


PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.linear)


class Watch(TorchDispatchMode):
    """Sizes of all tensors that come into being, and how many products there are."""

    def __init__(self):
        super().__init__()
        self.sizes, self.products = [0], 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        own = result if isinstance(result, tuple | list) else [result]
        self.sizes += [value.numel() for value in own if isinstance(value, torch.Tensor)]
        self.products += function.overloadpacket in PRODUCTS
        return result


@pytest.mark.parametrize("learn", [(HIDDEN,), (HIDDEN, WEIGHT, BIAS)])
def test_the_logits_of_all_labels_never_exist(learn):
    *parts, targets = values()
    leaves = [part.requires_grad_(number in learn) for number, part in enumerate(parts)]
    with Watch() as watch:
        losses = label_losses(*leaves, targets).sum()
        forward = watch.products
        losses.backward()
    # The weight and its own gradient are not logits.
    assert max(size for size in watch.sizes if size != VOCABULARY * WIDTH) <= VOCABULARY * 10 < LABELS * VOCABULARY
    assert forward > 3  # several chunks
    assert (watch.products == forward) == (learn == (HIDDEN,)), "frozen: the backward pass multiplies nothing again"
    with Watch() as watch:
        plain(*leaves, targets).sum().backward()
    assert max(watch.sizes) >= LABELS * VOCABULARY, "or the watch sees nothing"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_no_work_is_done_for_them(mode):
    *parts, targets = values()
    leaves = [part.requires_grad_() for part in parts[:1]] + parts[1:]
    with Watch() as watch:
        wanted = label_losses(*leaves, targets)
    with mode(), Watch() as quiet:
        losses = label_losses(*leaves, targets)
    assert torch.equal(losses, wanted) and not losses.requires_grad
    assert quiet.products == watch.products / 2
