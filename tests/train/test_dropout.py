"""Addressed dropout: right in distribution, independent where it has to be, and blind to everything but the run, the
step, the example and the place inside it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, norm
from torch.nn.functional import dropout

from finetune.core.randomness import Streams
from finetune.train.dropout import LEVELS, Dropout, Masks, dropped, masked, scale
from finetune.train.kernels import Kernels
from finetune.train.meters import read_rows
from tests import tiny
from tests.train import workbench
from tests.train.test_processes import came_to, two_processes
from tests.train.workbench import fit, furthest

ROWS, TOKENS, WIDTH, HEADS = 6, 24, 40, 12
SHAPES = {
    "hidden": (ROWS, TOKENS, WIDTH),
    "attention": (ROWS, HEADS, TOKENS, TOKENS),
    "pooled": (ROWS, 4000),
    "flat": (ROWS * TOKENS, WIDTH),
    "shared": (1, HEADS, TOKENS, TOKENS),
    "odd": (ROWS, TOKENS, 3, 7),
}


@pytest.fixture(scope="module")
def decoder_with_dropout(tmp_path_factory):
    """A Llama with dropout on its attention weights."""
    return tiny.save_decoder(tmp_path_factory.mktemp("decoder"), attention_dropout=0.2)


@pytest.fixture(scope="module")
def chat_dropout_bench(decoder_with_dropout):
    """Chat with it, packed."""
    return workbench.chat(decoder_with_dropout)


def seed_of(run=0, step=0, place=0):
    """As training gives them."""
    return Streams(run).seed_of("dropout", step, place)


def masks_of(seeds, tokens=TOKENS):
    """Of one example a row, padded at the right."""
    seeds = torch.tensor(seeds)[:, None].expand(-1, tokens)
    return Masks(seeds, torch.arange(tokens).expand(len(seeds), -1))


def drawn(shape, p, run=0, step=0, calls=1, tokens=TOKENS):
    """The mask of call number ``calls`` of one pass, as zeros and ones."""
    masks = masks_of([seed_of(run, step, place) for place in range(ROWS)], tokens)
    for _ in range(calls):
        keep = masks.keep(torch.Size(shape), p)
    return keep.ne(0).double()


# The right share is kept


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_right_share_is_kept_everywhere(shape, p):
    """Overall, and along each dimension: of every row, position, head, and lane (one of four from one number)."""
    kept = torch.stack([drawn(shape, p, step=step) for step in range(8)])
    share = 1 - dropped(p) / LEVELS
    assert share == pytest.approx(1 - p, abs=1 / LEVELS)
    lanes = torch.arange(kept.shape[-1]) % 4
    slices = [kept.transpose(0, axis).flatten(1) for axis in range(kept.ndim)]
    slices += [torch.stack([kept[..., lanes == lane][..., : kept.shape[-1] // 4].flatten() for lane in range(4)])]
    for part in [kept.flatten()[None], *slices]:
        z = (part.mean(1) - share) * math.sqrt(part.shape[1] / (share * (1 - share)))
        assert z.abs().max() < norm.isf(1e-5 / len(z))
        assert 1e-5 < chi2.cdf(float((z**2).sum()), len(z)) < 1 - 1e-5


def test_fine_shares_are_kept_too():
    """Down to a step of 1 / 32,768."""
    kept = drawn((ROWS, TOKENS, 20_000), 1e-4)
    assert abs(float((1 - kept).sum()) / (kept.numel() * dropped(1e-4) / LEVELS) - 1) < 5 / math.sqrt(280)
    assert bool(drawn((ROWS, TOKENS, WIDTH), 0.0).all()) and not bool(drawn((ROWS, TOKENS, WIDTH), 1.0).any())


# Masks are independent


def assert_independent(kept):
    """The rows of ``kept`` (k, n) are uncorrelated: n r^2 of each pair is chi-square with one degree of freedom."""
    count, n = kept.shape
    r = torch.corrcoef(kept)[torch.triu_indices(count, count, 1).unbind()]
    assert float(r.abs().max()) * math.sqrt(n) < norm.isf(1e-5 / len(r))
    assert 1e-5 < chi2.cdf(float((r**2).sum()) * n, len(r)) < 1 - 1e-5


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("shape", [SHAPES["hidden"], SHAPES["attention"]], ids=["hidden", "attention"])
def test_runs_steps_calls_and_examples_are_independent(shape, p):
    every = [drawn(shape, p, run, step, calls) for run in (0, 1) for step in (0, 1) for calls in (1, 2, 3)]
    assert_independent(torch.stack(every).flatten(2).flatten(0, 1))


@pytest.mark.parametrize("axis", [1, 2, 3], ids=["heads", "queries", "keys"])
def test_heads_queries_and_keys_are_independent(axis):
    kept = torch.stack([drawn(SHAPES["attention"], 0.3, step=step) for step in range(4)])
    assert_independent(kept.transpose(0, axis + 1).flatten(1))


@pytest.mark.parametrize("axis", [1, 2], ids=["positions", "features"])
def test_positions_and_features_are_independent(axis):
    kept = torch.stack([drawn(SHAPES["hidden"], 0.3, step=step) for step in range(60)])
    assert_independent(kept.transpose(0, axis + 1).flatten(1))


def test_a_weight_and_its_mirror_image_are_independent():
    """Query 3 looking at key 5, and query 5 at key 3."""
    kept = drawn(SHAPES["attention"], 0.5)
    upper = torch.triu_indices(TOKENS, TOKENS, 1)
    pair = [kept[..., upper[0], upper[1]], kept[..., upper[1], upper[0]]]
    assert_independent(torch.stack([one.flatten() for one in pair]))


def test_no_call_repeats_another_a_few_places_on():
    """Sums of multiples would, if two of the multipliers were alike."""
    calls = torch.stack([drawn((ROWS, 8000), 0.5, calls=calls) for calls in range(1, 6)])
    for shift in range(-12, 13):
        if shift:
            assert_independent(torch.stack([calls[0], calls[1].roll(4 * shift, -1)]).flatten(1))
            assert_independent(torch.stack([calls[0], calls[0].roll(shift, -1)]).flatten(1))


def test_one_step_never_decides_two_places_by_the_same_number(monkeypatch):
    """All the numbers that are mixed in 30 calls over 4 rows differ, and so stay when they are mixed."""
    from finetune.train import dropout as module

    seen, mix = [], module._lanes
    monkeypatch.setattr(module, "_lanes", lambda words: [seen.append(words.flatten().clone()), mix(words)][1])
    masks = masks_of([seed_of(place=place) for place in range(4)], 64)
    for _ in range(10):
        masks.keep(torch.Size((4, 64, 64)), 0.1)
        masks.keep(torch.Size((4, 12, 64, 64)), 0.1)
        masks.keep(torch.Size((4, 64)), 0.1)
    words = torch.cat(seen)
    assert len(words) > 400_000 and len(words.unique()) == len(words)
    gaps = np.diff(np.sort(words.numpy().view(np.uint64)))
    assert gaps.min() > 1000, "nor do they stand in a line, which mixing would have to hide"


# An example's masks are its own, wherever it stands


@st.composite
def layouts(draw):
    """The same examples laid out twice: (lengths, two layouts), each a list of rows of (example, first column)."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    return lengths, laid_out(draw, lengths), laid_out(draw, lengths)


def laid_out(draw, lengths):
    """Examples in any order, one a row or packed, with gaps anywhere: padding left, right and between."""
    rows, packed = [], draw(st.booleans())
    for number in draw(st.permutations(range(len(lengths)))):
        gap = draw(st.integers(0, 3))
        if packed and rows and draw(st.booleans()):
            start = rows[-1][-1][1] + lengths[rows[-1][-1][0]] + gap
            rows[-1].append((number, start))
        else:
            rows.append([(number, gap)])
    return rows, draw(st.integers(0, 4))


def places(lengths, layout):
    """Masks of a layout, and by example its row and columns."""
    rows, spare = layout
    width = max(start + lengths[number] for row in rows for number, start in row) + spare
    seeds = torch.full((len(rows), width), seed_of(place=99))
    positions, where = torch.zeros(len(rows), width, dtype=torch.int64), {}
    for line, row in enumerate(rows):
        for number, start in row:
            columns = slice(start, start + lengths[number])
            seeds[line, columns], positions[line, columns] = seed_of(place=number), torch.arange(lengths[number])
            where[number] = line, columns
    return Masks(seeds, positions), where


@settings(max_examples=60)
@given(layouts(), st.integers(1, 13), st.integers(1, 17))
def test_masks_do_not_depend_on_padding_rows_neighbours_or_packing(found, heads, width):
    lengths, *both = found
    seen = []
    for layout in both:
        masks, where = places(lengths, layout)
        rows, columns = masks.seeds.shape
        hidden = masks.keep(torch.Size((rows, columns, width)), 0.5)
        attention = masks.keep(torch.Size((rows, heads, columns, columns)), 0.5)
        flat = masks.keep(torch.Size((rows * columns, width)), 0.5).reshape(rows, columns, width)
        split = masks.keep(torch.Size((rows, columns, 2, width + 2)), 0.5)
        seen.append(
            [
                [hidden[row, at], attention[row, :, at, at], flat[row, at], split[row, at]]
                for row, at in (where[number] for number in range(len(lengths)))
            ]
        )
    for one, other in zip(*seen, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 30))
def test_a_pooled_row_has_its_masks_whatever_the_padding_and_the_other_rows(tokens, others, width):
    alone = masks_of([seed_of()], tokens).keep(torch.Size((1, width)), 0.5)
    among = masks_of([seed_of(place=place) for place in range(others)], tokens + 3).keep(
        torch.Size((others, width)), 0.5
    )
    assert torch.equal(alone[0], among[0])


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 5), st.integers(1, 7))
def test_every_shape_gets_a_mask(shape, rows, tokens):
    keep = masks_of([seed_of(place=place) for place in range(rows)], tokens).keep(torch.Size(shape), 0.5)
    assert keep.shape == torch.Size(shape) and keep.dtype == torch.int16
    assert set(keep.unique().tolist()) <= {0, -1}


# In the model


def test_as_many_heads_as_positions_are_heads_all_the_same():
    """Four of each: padded on, the same texts have the same masks."""
    seeds = [seed_of(), seed_of(place=1)]
    square = masks_of(seeds, 4).keep(torch.Size((2, 4, 4, 4)), 0.5)
    wider = masks_of(seeds, 5).keep(torch.Size((2, 4, 5, 5)), 0.5)
    assert torch.equal(square, wider[:, :, :4, :4])


@pytest.mark.parametrize("bench", ["dropout_bench", "chat_dropout_bench"])
def test_cutting_a_batch_into_parts_changes_no_mask(request, bench, tmp_path):
    bench = request.getfixturevalue(bench)
    whole = fit(bench, tmp_path / "whole", seed=3, max_steps=6)
    parts = fit(bench, tmp_path / "parts", seed=3, max_steps=6, micro_batch_size=3)
    assert parts.column("loss") == pytest.approx(whole.column("loss"), rel=1e-4)
    assert furthest(whole.weights, parts.weights) < 1e-4
    assert parts.rows[-1]["tokens"] == whole.rows[-1]["tokens"]


def test_dropout_is_at_work(dropout_bench, topics_bench, tmp_path):
    """What the test above would not show, were there none: losses are other than without."""
    benches = {"with": dropout_bench, "without": topics_bench}
    noisy, plain = (fit(bench, tmp_path / name, max_steps=3).column("loss") for name, bench in benches.items())
    assert all(one != pytest.approx(other, rel=1e-4) for one, other in zip(noisy, plain, strict=True))


def test_whatever_else_a_model_draws_is_the_steps_own(dropout_bench, tmp_path):
    """A layer left out at random, say, is not asked for through dropout; still the run can be repeated and resumed."""
    losses = []
    for attempt in range(2):
        model = dropout_bench.model(0)
        model.classifier.register_forward_hook(lambda module, inputs, output: output * torch.rand(()))
        torch.manual_seed(attempt)
        losses.append(fit(dropout_bench, tmp_path / str(attempt), model=model, max_steps=4).column("loss"))
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_two_processes_have_the_masks_of_one(chat_dropout_bench, decoder_with_dropout, tmp_path):
    """Each has some of the batch's examples, in parts of two."""
    changes = {"batch_size": 5, "micro_batch_size": 2, "max_steps": 5}
    one = fit(chat_dropout_bench, tmp_path / "one", **changes)
    done = two_processes(decoder_with_dropout, tmp_path / "two", chat=True, **changes)
    assert done.returncode == 0, done.stderr
    losses = [row["loss"] for row in read_rows(tmp_path / "two" / "metrics.jsonl")]
    assert losses == pytest.approx(one.column("loss"), rel=1e-4)
    assert furthest(came_to(tmp_path / "two")[1], one.weights) < 1e-4


def test_packing_changes_no_mask(chat_dropout_bench, tmp_path):
    task = chat_dropout_bench.task
    packed = fit(chat_dropout_bench, tmp_path / "packed", max_steps=4)
    assert "packed" in packed.trained.facts["way"]
    task.options = task.options.model_copy(update={"packing": False})
    try:
        apart = fit(chat_dropout_bench, tmp_path / "apart", max_steps=4)
    finally:
        task.options = task.options.model_copy(update={"packing": True})
    assert "packed" not in apart.trained.facts["way"]
    assert apart.column("loss") == pytest.approx(packed.column("loss"), rel=1e-4)
    assert furthest(apart.weights, packed.weights) < 1e-4


# Arithmetic


@pytest.mark.parametrize("p", [0.1, 1 / 3, 0.5, 0.9, 1e-3])
def test_the_mean_is_kept_exactly(p):
    assert (LEVELS - dropped(p)) / LEVELS * scale(p) == pytest.approx(1, abs=1e-15)


def test_with_everything_dropped_nothing_is_left():
    values = torch.randn(ROWS, TOKENS, WIDTH)
    with Kernels(masks_of(range(ROWS))):
        assert not dropout(values, 1.0).any()
    assert scale(1.0) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_kept_values_are_scaled_others_are_zero_and_gradients_alike(dtype):
    values = torch.randn(ROWS, TOKENS, WIDTH).to(dtype).requires_grad_()
    keep = masks_of(range(ROWS)).keep(values.shape, 0.25)
    with Kernels(masks_of(range(ROWS))):
        found = dropout(values, 0.25, True)
    upstream = torch.randn(values.shape).to(dtype)
    found.backward(upstream)
    for one, plain in ((found, values), (values.grad, upstream)):
        wanted = torch.where(keep.bool(), plain * scale(0.25), 0)
        assert one.dtype == dtype and torch.allclose(one, wanted, rtol=1e-6 if dtype != torch.bfloat16 else 1e-2)
        assert torch.equal(one != 0, keep.bool())


def test_a_slice_or_a_transposed_tensor_is_masked_like_any_other():
    values = torch.randn(TOKENS, ROWS, 2 * WIDTH, dtype=torch.bfloat16)[..., ::2].transpose(0, 1)
    keep = masks_of(range(ROWS)).keep(values.shape, 0.5)
    assert torch.equal(masked(values.contiguous(), keep), torch.where(keep.bool(), values, 0))
    assert torch.equal(Dropout.apply(values, keep, 2.0), torch.where(keep.bool(), values * 2, 0))


def test_what_is_not_a_number_is_dropped_like_any_value():
    keep = torch.tensor([0, -1], dtype=torch.int16)
    for dtype in (torch.float32, torch.bfloat16):
        assert masked(torch.tensor([math.inf, 1.0], dtype=dtype), keep).tolist() == [0, 1]


def test_nothing_happens_at_zero_or_in_evaluation():
    values, masks = torch.randn(ROWS, TOKENS, WIDTH), masks_of(range(ROWS))
    with Kernels(masks):
        assert dropout(values, 0.0, True) is values and dropout(values, 0.5, False) is values
        assert torch.nn.Dropout(0.5).eval()(values) is values
    assert masks.calls == 0


LAYOUTS = {
    "plain": lambda: torch.randn(ROWS, TOKENS, WIDTH),
    "heads first": lambda: torch.randn(ROWS, TOKENS, 4, 8).transpose(1, 2),
    "few heads": lambda: torch.randn(ROWS, 2, TOKENS, TOKENS),
    "one head": lambda: torch.randn(ROWS, 1, TOKENS, TOKENS),
    "heads last": lambda: torch.randn(ROWS, TOKENS, TOKENS, 3).permute(0, 3, 1, 2),
    "tokens first": lambda: torch.randn(TOKENS, ROWS, WIDTH).transpose(0, 1),
    "repeated": lambda: torch.randn(1, TOKENS, WIDTH).expand(ROWS, -1, -1),
    "every second": lambda: torch.randn(ROWS, TOKENS, 2 * WIDTH)[..., ::2],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_comes_out_lies_in_memory_as_after_torchs_dropout(layout, dtype):
    """A model may look at it through a view that no other layout allows."""
    values = LAYOUTS[layout]().to(dtype).requires_grad_()
    with Kernels(masks_of(range(ROWS))):
        ours = dropout(values, 0.5)
    assert ours.stride() == dropout(values, 0.5).stride()
    ours.backward(torch.ones(()).expand(ours.shape).to(dtype))  # a gradient of no layout of its own
    assert torch.equal(values.grad != 0, ours != 0)


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 8])
def test_a_model_that_views_its_attention_weights_can_be_trained(heads):
    """DeBERTa multiplies them as (rows * heads, T, T)."""
    from transformers import DebertaV2Config, DebertaV2Model

    shape = {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 16, "vocab_size": 50}
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
    config = DebertaV2Config(**shape, **relative, num_attention_heads=heads)
    model, ids = DebertaV2Model(config).train(), torch.arange(ROWS * 8).view(ROWS, 8)
    with Kernels(masks_of(range(ROWS), 8)):
        model(ids).last_hidden_state.sum().backward()
    assert all(value.grad is not None for name, value in model.named_parameters() if "query" in name)
