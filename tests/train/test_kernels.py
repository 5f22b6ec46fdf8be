"""What stands in for torch's dropout and attention during training: equal to torch's, wherever a model calls them."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from finetune.train import kernels
from finetune.train.dropout import Dropout, Masks, scale
from finetune.train.kernels import Attention, Kernels
from tests import tiny

ROWS, HEADS, TOKENS, SIZE = 3, 4, 10, 8
PLAIN_ATTENTION = functional.scaled_dot_product_attention


def masks_of(rows=ROWS, tokens=TOKENS):
    return Masks(torch.arange(rows)[:, None].expand(rows, tokens) * 1000, torch.arange(tokens).expand(rows, tokens))


def heads_of(count=HEADS, dtype=torch.float32, tokens=TOKENS, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, count, tokens, SIZE, generator=draw).to(dtype).requires_grad_()


def padded(columns=7):
    """(ROWS, 1, TOKENS, TOKENS): columns from there on are padding."""
    return (torch.arange(TOKENS) < columns).expand(ROWS, 1, TOKENS, TOKENS)


def learnable():
    return torch.randn(1, HEADS, TOKENS, TOKENS, generator=torch.Generator().manual_seed(9)).requires_grad_()


CASES = {
    "plain": {},
    "boolean": {"attn_mask": padded()},
    "added": {"attn_mask": torch.where(padded(), 0.0, torch.finfo(torch.float32).min)},
    "added, for all rows": {"attn_mask": torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(3))},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "grouped": {"enable_gqa": True},
    "grouped, causal": {"enable_gqa": True, "is_causal": True},
}


@pytest.fixture
def ours(monkeypatch):
    """How often our attention ran; here it does for every dtype that asks for it."""
    runs = []
    apply = Attention.apply
    monkeypatch.setattr(Attention, "apply", lambda *arguments: [runs.append(1), apply(*arguments)][1])
    return runs


def results(attend, case, dtype, dropout_p=0.0):
    """Output, and gradients of query, key, value, of `attend` under ``case``."""
    arguments = dict(CASES[case])
    if arguments.get("attn_mask") is not None and arguments["attn_mask"].dtype != torch.bool:
        arguments["attn_mask"] = arguments["attn_mask"].to(dtype)
    count = 2 if arguments.get("enable_gqa") else HEADS
    tensors = heads_of(dtype=dtype), heads_of(count, dtype, seed=1), heads_of(count, dtype, seed=2)
    found = attend(*tensors, dropout_p=dropout_p, **arguments)
    found.float().square().sum().backward()
    return [found.detach(), *(tensor.grad for tensor in tensors)]


def in_mode(*arguments, **keywords):
    with Kernels(masks_of()):
        return functional.scaled_dot_product_attention(*arguments, **keywords)


def with_almost_no_dropout(*arguments, dropout_p, **keywords):
    """Ours in float32 too: a share of dropout that rounds to nothing asks for it."""
    return in_mode(*arguments, dropout_p=1e-9, **keywords)


@pytest.mark.parametrize("case", CASES)
def test_attention_is_torchs_in_float32(case, ours):
    wanted = results(PLAIN_ATTENTION, case, torch.float32)
    found = results(with_almost_no_dropout, case, torch.float32)
    assert ours == [1]
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_attention_is_nearly_torchs_in_bfloat16(case, ours):
    """As near to the truth as torch's own is."""
    found, theirs = results(in_mode, case, torch.bfloat16), results(PLAIN_ATTENTION, case, torch.bfloat16)
    assert ours == [1]
    truth = results(lambda *tensors, **more: PLAIN_ATTENTION(*tensors, **more), case, torch.float32)
    for one, other, true in zip(found, theirs, truth, strict=True):
        error = float((one.float() - true).norm() / true.norm())
        assert one.dtype == torch.bfloat16 and error < max(2 * float((other.float() - true).norm() / true.norm()), 1e-2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_on_attention_is_that_of_its_definition(case, dtype, ours):
    """softmax, mask, scale, sum: written out, with the mask that was to be drawn."""
    keep = masks_of().keep(torch.Size((ROWS, HEADS, TOKENS, TOKENS)), 0.5)

    def written_out(query, key, value, dropout_p, attn_mask=None, is_causal=False, scale=None, enable_gqa=False):
        if enable_gqa:
            key, value = (part.repeat_interleave(HEADS // part.shape[1], 1) for part in (key, value))
        scores = query @ key.transpose(-1, -2) * (scale or 1 / math.sqrt(SIZE))
        if is_causal:
            attn_mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        weights = scores.softmax(-1) * keep.bool() * 2
        return weights @ value

    wanted = results(written_out, case, torch.float32, 0.5)
    for one, other in zip(results(in_mode, case, dtype, 0.5), wanted, strict=True):
        rough = dtype == torch.bfloat16
        assert float((one.float() - other).norm() / other.norm()) < (2e-2 if rough else 1e-5)
    assert ours == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [1e-9, 0.3])
@pytest.mark.parametrize("boolean", [True, False])
def test_a_row_that_may_see_nothing_is_no_harm(dtype, p, boolean):
    mask = padded(0) if boolean else torch.full((ROWS, 1, TOKENS, TOKENS), torch.finfo(dtype).min, dtype=dtype)
    tensors = [heads_of(dtype=dtype, seed=seed) for seed in range(3)]
    found = in_mode(*tensors, attn_mask=mask, dropout_p=p)
    found.float().sum().backward()
    assert all(torch.isfinite(value).all() for value in (found, *(tensor.grad for tensor in tensors)))


@pytest.mark.parametrize("mask", [None, padded()], ids=["no mask", "mask"])
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_gradients_of_attention_are_its_slopes(mask, p):
    """The softmax is taken in float32, whose rounding asks for large steps."""
    tensors = [heads_of(dtype=torch.float64, seed=seed) for seed in range(3)]
    keep = masks_of().keep(torch.Size((ROWS, HEADS, TOKENS, TOKENS)), p) if p else None

    def attend(*found):
        return Attention.apply(*found, mask, keep, p, 0.5)

    assert gradcheck(attend, tensors, eps=3e-3, atol=2e-3, rtol=1e-2, fast_mode=False)


def test_gradients_of_dropout_are_its_slopes():
    values = torch.randn(ROWS, TOKENS, 6, dtype=torch.float64, requires_grad=True)
    keep = masks_of().keep(values.shape, 0.4)
    assert gradcheck(lambda found: Dropout.apply(found, keep, scale(0.4)), [values])


def test_a_learnt_bias_gets_its_gradient():
    """As T5 has one: through our dropout as well as without."""
    for p in (0.0, 1e-9):
        gradients = []
        for attend in (PLAIN_ATTENTION, in_mode):
            bias = learnable()
            tensors = [heads_of(seed=seed) for seed in range(3)]
            attend(*tensors, attn_mask=bias, dropout_p=p if attend is in_mode else 0.0).square().sum().backward()
            gradients.append([bias.grad, *(tensor.grad for tensor in tensors)])
        for wanted, found in zip(*gradients, strict=True):
            assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_dropout_with_a_learnt_bias_is_at_work():
    bias, tensors = learnable(), [heads_of(seed=seed) for seed in range(3)]
    one, other = (in_mode(*tensors, attn_mask=bias, dropout_p=p) for p in (0.0, 0.5))
    assert not torch.allclose(one, other, atol=0.05)


def test_long_texts_are_left_to_torchs_kernel(ours, monkeypatch):
    """Whose memory does not grow with the square of their length; but not those with dropout, which it has none of."""
    monkeypatch.setattr(kernels, "LONGEST", TOKENS - 1)
    tensors = [heads_of(dtype=torch.bfloat16, seed=seed) for seed in range(3)]
    in_mode(*tensors)
    assert ours == []
    in_mode(*tensors, dropout_p=0.1)
    assert ours == [1]


def test_under_autocast_attention_computes_in_its_dtype(ours):
    """With float32 inputs and masks, as models with a float32 norm before attention give them."""
    tensors = [heads_of(seed=seed) for seed in range(3)]
    mask = torch.where(padded(), 0.0, torch.finfo(torch.float32).min)
    for longest in (512, 1):
        with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
            patch.setattr(kernels, "LONGEST", longest)
            found = in_mode(*tensors, attn_mask=mask)
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.float(), PLAIN_ATTENTION(*tensors, attn_mask=mask), atol=0.03)
    assert ours == [1]


# Real models


def bert(folder):
    return AutoModel.from_pretrained(tiny.save_encoder(folder))


def llama(folder):
    return AutoModelForCausalLM.from_pretrained(tiny.save_decoder(folder, attention_dropout=0.1))


def gpt2(folder):
    return AutoModelForCausalLM.from_pretrained(tiny.save_gpt2(folder))


def t5(folder):
    return AutoModelForSeq2SeqLM.from_pretrained(tiny.save_t5(folder))


MODELS = {"bert": bert, "llama": llama, "gpt2": gpt2, "t5": t5}


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """A tiny model with dropout, in training mode."""
    return MODELS[request.param](tmp_path_factory.mktemp(request.param)).train()


def outputs(model, kernels=True):
    """Of two texts, one of them padded."""
    ids = torch.arange(2 * TOKENS).reshape(2, TOKENS) + 20
    inputs = {"input_ids": ids, "attention_mask": torch.arange(TOKENS).expand(2, -1) < torch.tensor([[TOKENS], [6]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    if not kernels:
        return model(**inputs)[0]
    with Kernels(masks_of(2)) as mode:
        found = model(**inputs)[0]
    return found, mode.masks.calls


def test_every_draw_of_a_real_model_is_ours(model):
    """Nothing is taken from torch's own generator, whatever state that is in; and every layer of dropout is met."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, calls = outputs(model)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    other, _ = outputs(model)
    assert torch.equal(one, other)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0]
    assert calls >= max(len(layers), 2)
    assert not torch.allclose(one, outputs(model.eval(), kernels=False), atol=1e-3), "dropout was at work"
    model.train()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_dropout_a_real_model_is_what_it_was(model, dtype):
    """Losses and gradients, with our attention where it is in the way."""
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    gradients = []
    for ours in (True, False):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = outputs(model, ours)
        found = (found[0] if ours else found)[0].float()
        found.square().mean().backward()
        gradients.append(torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None]))
    one, other = gradients
    assert float((one - other).norm() / other.norm()) < (1e-4 if dtype == torch.float32 else 0.05)


def test_outside_the_context_nothing_is_changed(ours):
    torch.manual_seed(0)
    values = torch.ones(ROWS, TOKENS, SIZE)
    before = functional.dropout(values, 0.5)
    with Kernels(masks_of()):
        inside = functional.dropout(values, 0.5)
    torch.manual_seed(0)
    assert torch.equal(functional.dropout(values, 0.5), before) and not torch.equal(inside, before)
    tensors = [heads_of(dtype=torch.bfloat16, seed=seed) for seed in range(3)]
    PLAIN_ATTENTION(*tensors)
    assert ours == []
