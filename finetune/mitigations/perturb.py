"""Disturbs a model's input embeddings: the disturbance, its random numbers, and the divergence that it causes between
outputs.

Shapes: rows and T columns of a batch; D features of an embedding; L labels; C classes or tokens to choose from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from finetune.core.hooks import TrainingState


@contextmanager
def perturbed(model: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within the context, apply ``change`` to the input embeddings of the tokens (rows, T, D), in every pass of
    ``model``, before anything else sees them.

    In an encoder-decoder model only what the encoder gets is changed. Where its embeddings are the decoder's too, they
    are called twice in a pass, for the encoder first.
    """
    due = False

    def begun(*_: Any) -> None:
        nonlocal due
        due = True

    def looked_up(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        nonlocal due
        now, due = due, False
        return change(output) if now else output

    hooks = [model.register_forward_pre_hook(begun), input_embeddings(model).register_forward_hook(looked_up)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def input_embeddings(model: torch.nn.Module) -> torch.nn.Module:
    """Find the module that turns tokens into vectors at the bottom of ``model``, or its stand-in in a group of runs."""
    wrapped: Any = model
    inner = wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped
    bottom = inner.get_encoder() if getattr(inner.config, "is_encoder_decoder", False) else inner
    return bottom.get_input_embeddings()


def added(values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Add ``noise`` to ``values`` in their dtype, rounded once: in bfloat16 noise under 1/500 of a value is lost in
    rounding."""
    return (values + noise).to(values.dtype)


def noise_like(training_state: TrainingState, values: torch.Tensor, kind: Literal["uniform", "normal"]) -> torch.Tensor:
    """Draw random numbers (rows, T, ...), float32, that belong to the examples under way: uniform between -1 and 1, or
    normal with standard deviation 1."""
    assert training_state.noise is not None, "there are random numbers within a forward pass of training only"
    drawn = training_state.noise.uniform(values.shape)
    return drawn if kind == "uniform" else drawn.erfinv() * math.sqrt(2)


def over_examples(training_state: TrainingState, values: torch.Tensor, how: Literal["sum", "amax"]) -> torch.Tensor:
    """Reduce ``values`` (rows, T) over each example, by their sum or the largest, and give the result at each of its
    positions. Where an example is a pair of sequences, each of them is reduced by itself. Padding counts nowhere, and
    what stands there means nothing."""
    from finetune.tasks.causal.pairs import apart

    assert training_state.batch is not None, "examples have their places within a forward pass of training only"
    example = apart(training_state.batch).example
    place = example.clamp(min=0)
    real = values.where(example >= 0, 0).flatten()
    return real.new_zeros(len(real)).scatter_reduce(0, place.flatten(), real, how)[place]


def symmetric_kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Compute KL(p || q) + KL(q || p) (L,), nats, of the distributions p and q with logits ``one`` and ``other``
    (L, C).

    As the sum of (p - q) (log p - log q), whose terms are never negative: the two divergences by themselves are small
    differences of large numbers where p and q are nearly the same. The slope reaches both.
    """
    left, right = one.log_softmax(-1), other.log_softmax(-1)
    return ((left.exp() - right.exp()) * (left - right)).sum(-1)
