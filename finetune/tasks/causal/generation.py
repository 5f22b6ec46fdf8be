"""Greedy answers to prompts, as many at once as a model can take. They can be stopped between two tokens: whoever asks
for answers has to look whether that was asked for, and throw them away.

Shapes: N prompts; S new tokens; V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from finetune.core.examples import pad
from finetune.core.progress import phase
from finetune.core.signals import stop_here, stop_requested
from finetune.tasks.batching import Batching, cut
from finetune.tasks.causal.loss_paths import bare, without_adapter

Tokens = list[int]


def answers(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    filler: int,
    ends: Sequence[int],
    most: int,
    batching: Batching,
    **settings: Any,
) -> list[Tokens]:
    """Answer each of ``prompts`` with at most ``most`` tokens, up to one of ``ends``; ``filler`` may stand after it.
    ``settings`` are others of transformers' for generation."""
    found: dict[int, Tokens] = {}
    for batch in _batches(prompts, batching):
        generated = _generate(
            model, [prompts[index] for index in batch], filler, most, eos_token_id=list(ends), **settings
        )
        found.update(zip(batch.tolist(), generated.tolist(), strict=True))
    return [found[index] for index in range(len(prompts))]


def continued(
    model: torch.nn.Module, prompts: Sequence[np.ndarray], filler: int, steps: int, batching: Batching
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generate the ``steps`` tokens that follow each of ``prompts``, ends among them, (N, S), and their logits
    (N, S, V)."""
    tokens: dict[int, torch.Tensor] = {}
    logits: dict[int, torch.Tensor] = {}
    asked = {"eos_token_id": None, "output_logits": True, "return_dict_in_generate": True}
    for batch in _batches(prompts, batching):
        own = [prompts[index] for index in batch]
        generated = _generate(model, own, filler, steps, **asked)
        tokens.update(zip(batch.tolist(), generated.sequences, strict=True))
        logits.update(zip(batch.tolist(), torch.stack(generated.logits, 1).float(), strict=True))
        stop_here("trying the model out")
    order = range(len(prompts))
    return torch.stack([tokens[index] for index in order]), torch.stack([logits[index] for index in order])


def _batches(prompts: Sequence[np.ndarray], batching: Batching) -> Iterator[np.ndarray]:
    """Find which prompts to answer at once, by their places: all, where one may be filled up to the length of
    another."""
    lengths = np.array([len(prompt) for prompt in prompts])
    # Replica by replica, as they come: those of a stack's replicas are of the same lengths.
    order = np.argsort(lengths, kind="stable") if batching >= Batching.SAME_LENGTH else np.arange(len(prompts))
    return cut(order, lengths, len(prompts), batching)


def _generate(model: torch.nn.Module, prompts: Sequence[np.ndarray], filler: int, most: int, **settings: Any) -> Any:
    """Generate what follows ``prompts``: the sequences without them, or without an encoder-decoder's first token."""
    from transformers import GenerationConfig, StoppingCriteriaList

    device, config = next(model.parameters()).device, without_adapter(model).config
    both = bool(getattr(config, "is_encoder_decoder", False))
    # Padding stands at the left, so that answers go on where prompts end; an encoder's stands where it did in training.
    ids = pad(prompts, filler, left=not both).to(device)
    mask = pad([np.ones_like(prompt) for prompt in prompts], 0, left=not both).to(device)
    begins = 1 if both else ids.shape[1]
    if both:
        settings = {"decoder_start_token_id": config.decoder_start_token_id, **settings}
    greedy = GenerationConfig(do_sample=False, max_new_tokens=most, pad_token_id=filler, **settings)
    with _without_own_generation(model) as plain, phase("generating answers", most) as under_way:

        def watch(so_far: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            under_way.step(so_far.shape[1] - begins)
            return torch.full((len(so_far),), stop_requested(), device=so_far.device)

        watching = StoppingCriteriaList([watch])
        generated = plain.generate(
            input_ids=ids, attention_mask=mask, generation_config=greedy, stopping_criteria=watching
        )
    if isinstance(generated, torch.Tensor):
        return generated[:, begins:]
    generated.sequences = generated.sequences[:, begins:]
    return generated


@contextmanager
def _without_own_generation(model: torch.nn.Module) -> Iterator[Any]:
    """Within the context, give the model without the generation settings it came with (such as a repetition penalty),
    which would be added to those that are asked for."""
    from transformers import GenerationConfig

    owner = without_adapter(model)
    own, owner.generation_config = owner.generation_config, GenerationConfig()
    try:
        yield bare(model)
    finally:
        owner.generation_config = own
