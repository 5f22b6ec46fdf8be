"""The losses of encoder-decoders, whose decoder predicts each label from those before it and from all of the encoder.

A batch of theirs has an example a row: inputs (rows, T) for the encoder, and labels (rows, S) for the decoder, which
T and S have nothing to do with each other.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetune.core.examples import Batch, Example, Outputs, pad
from finetune.tasks.causal.loss_paths import Head, head_on, losses_of, outputs_of, without_adapter
from finetune.tasks.conversation import IGNORED
from finetune.tasks.texts import padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def collated(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """A batch of one example a row, inputs and labels padded at the right."""
    batch = padded([replace(example, target=0) for example in examples], tokenizer)
    return replace(batch, targets=pad([example.target for example in examples], IGNORED))


def shifting(model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Find the model's own way from labels (rows, S) to what its decoder is given (rows, S); None: it has none."""
    inner = without_adapter(model)
    if hasattr(inner, "prepare_decoder_input_ids_from_labels"):
        return lambda labels: inner.prepare_decoder_input_ids_from_labels(labels=labels)
    shift: Any = getattr(sys.modules[type(inner).__module__], "shift_tokens_right", None)
    if shift is None:
        return None
    config = inner.config
    return lambda labels: shift(labels, config.pad_token_id, config.decoder_start_token_id)


def with_decoder(model: torch.nn.Module, batch: Batch) -> Batch:
    """``batch`` as the decoder has it: its inputs beside the encoder's, and ``example`` (rows, S) for its positions."""
    shift = shifting(model)
    if shift is None:
        raise ValueError(f"{type(model).__name__} does not say how its decoder's inputs are made")
    example = batch.example[:, :1].expand_as(batch.targets)
    return replace(batch, inputs={**batch.inputs, "decoder_input_ids": shift(batch.targets)}, example=example)


def head_of_both(model: torch.nn.Module, tokens: Sequence[int], rows: int = 1) -> Head:
    """Find where logits are best computed, by trying ``tokens`` on ``rows`` rows; it is kept for each model."""
    device = next(model.parameters()).device
    text = torch.tensor(tokens, device=device).expand(rows, -1)
    example = torch.arange(rows, device=device)[:, None].expand_as(text)
    batch = Batch({"input_ids": text, "attention_mask": torch.ones_like(text)}, text.flip(1), example)
    return head_on(model, with_decoder(model, batch))


def losses_of_both(model: torch.nn.Module, batch: Batch, head: Head) -> torch.Tensor:
    """Compute the negative log-likelihood of each example's labels, summed: (N,), float32, nats."""
    return losses_of(model, with_decoder(model, batch), head, ahead=False)


def outputs_of_both(model: torch.nn.Module, batch: Batch, head: Head) -> Outputs:
    """Compute the logits of the labels, all at once."""
    return outputs_of(model, with_decoder(model, batch), head, ahead=False)


def plain_of_both(model: torch.nn.Module, ids: np.ndarray, target: np.ndarray) -> Outputs:
    """Compute the logits of one example's labels from a model that is given its tokens and labels, and nothing else."""
    device = next(model.parameters()).device
    labels = torch.tensor(target).long().to(device)
    with warnings.catch_warnings():  # transformers tells whoever gives labels of something that it once did otherwise
        warnings.simplefilter("ignore", FutureWarning)
        logits = model(input_ids=torch.tensor(ids).long()[None].to(device), labels=labels[None]).logits[0].float()
    return Outputs(logits, labels, torch.zeros_like(labels), 1)
