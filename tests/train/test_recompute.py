"""Gradient checkpointing: gradients and weights equal in every bit, less memory, and what cannot be computed again."""

import gc
import weakref

import pytest
import torch

from finetune.core.compute import ComputeOptions
from finetune.train.recompute import Recompute
from tests.train.workbench import fit, same, without_seconds

AGAIN = ComputeOptions(gradient_checkpointing=True)


@pytest.fixture(params=["dropout_bench", "chat_bench"])
def bench(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [None, 3])
def test_training_is_equal_in_every_bit(bench, tmp_path, dtype, parts):
    about = {"dtype": dtype, "max_steps": 4, "micro_batch_size": parts}
    plain = fit(bench, tmp_path / "plain", **about)
    again = fit(bench, tmp_path / "again", compute=AGAIN, **about)
    assert same(plain.weights, again.weights)
    assert without_seconds(plain.rows) == without_seconds(again.rows)


def test_every_block_is_computed_twice_and_none_afterwards(dropout_bench, tmp_path):
    model, passes = dropout_bench.model(), []
    for block in model.bert.encoder.layer:
        plain = block.forward
        block.forward = lambda *args, plain=plain, **kwargs: passes.append(1) or plain(*args, **kwargs)
    fit(dropout_bench, tmp_path, model=model, max_steps=3, compute=AGAIN)
    assert len(passes) > 2 * 2 * 3 - 1, "two blocks, three steps, twice"
    before, passes[:] = len(passes), []
    fit(dropout_bench, tmp_path / "plain", model=model, max_steps=3)
    assert len(passes) <= before - 2 * 3, "the blocks are as they were"


def test_what_was_computed_again_is_let_go_of_block_by_block(dropout_bench, tmp_path):
    """Also in the first step, in which operations are counted."""
    model, alive, most = dropout_bench.model(), weakref.WeakSet(), []

    class Token:
        """Lives as long as the graph of a pass through a block."""

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            ctx.token = Token()
            alive.add(ctx.token)
            most.append(len(alive))
            return values.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    for block in model.bert.encoder.layer:
        block.intermediate.register_forward_hook(lambda module, inputs, output: Marked.apply(output))
    gc.collect()
    gc.disable()  # which finds what is held in a circle, but later
    try:
        fitted = fit(dropout_bench, tmp_path, model=model, max_steps=3, micro_batch_size=2, compute=AGAIN)
    finally:
        gc.enable()
    assert len(most) > 2 * 2 * 3, "two blocks, each of them twice, in three steps"
    assert max(most) <= 4, "the graphs of two blocks, and of what is computed again of one, and of the one before"
    assert fitted.trained.facts["flops"] > 0


class Kept:
    """Counts bytes that a forward pass keeps for the backward pass."""

    def __init__(self):
        self.bytes = 0

    def __enter__(self):
        def pack(tensor):
            self.bytes += tensor.nbytes
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


def test_a_pass_keeps_less(topics_bench):
    model, kept = topics_bench.model(), {}
    batch = topics_bench.task.collate(topics_bench.examples[:8])
    for name in ("plain", "again"):
        recompute = Recompute(model)
        with Kept() as counted:
            if name == "again":
                with recompute.passing(None):
                    topics_bench.task.losses(model, batch).sum().backward()
            else:
                topics_bench.task.losses(model, batch).sum().backward()
        recompute.close()
        kept[name] = counted.bytes
    assert kept["again"] < kept["plain"] / 2


def test_what_stood_in_a_blocks_place_before_stands_there_again(topics_bench):
    model = topics_bench.model()
    block = model.bert.encoder.layer[0]
    own = block.forward = lambda *args, **kwargs: None
    recompute = Recompute(model)
    assert block.forward is not own
    recompute.close()
    assert block.forward is own and "forward" not in vars(model.bert.encoder.layer[1])


def test_a_filled_cache_is_refused_rather_than_filled_again(chat_bench):
    from transformers import DynamicCache

    model = chat_bench.model()
    ids = torch.tensor([[5, 6, 7]])
    filled = model(ids, use_cache=True).past_key_values
    recompute = Recompute(model)
    with recompute.passing(None):
        wanted = model(ids).logits.detach()
        found = model(ids, past_key_values=DynamicCache(), use_cache=True).logits
        found.sum().backward()
        torch.testing.assert_close(found.detach(), wanted)
        with pytest.raises(ValueError, match="cannot be computed again"):
            model(ids, past_key_values=filled, use_cache=True)
    recompute.close()
