"""Texts as examples: the tokens of texts or pairs of them, and batches of them, for all tasks that have such."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, pad

IGNORED = -100
"""The label of a token that is not learnt."""

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def tokenised(
    data: Dataset, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[dict[str, np.ndarray]], int]:
    """Model inputs (tokens,) by name of each row's text, or of its pair of texts, and how many of them were cut."""
    inputs, encodings = encodings_of([data[name][:] for name in columns], tokenizer, max_length)
    return inputs, sum(bool(encoding.overflowing) for encoding in encodings)


def encodings_of(
    texts: Sequence[list[str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[dict[str, np.ndarray]], Sequence[Any]]:
    """Model inputs (tokens,) by name of each text, or of each pair where there is a second list of ``texts``; and their
    `tokenizers.Encoding`, which knows where each token stands in them."""
    limit = min(max_length, tokenizer.model_max_length)
    encoded = tokenizer(*texts, truncation=True, max_length=limit, return_attention_mask=False)
    columns = {name: _arrays(encoded[name], _filler(tokenizer, name)) for name in encoded}
    inputs = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return inputs, encoded.encodings or []


def _arrays(lists: Sequence[list[int]], filler: int) -> list[np.ndarray]:
    """Arrays (tokens,) int32 of lists of numbers, parts of one that is made at once; of an empty one ``filler``."""
    lists = [own or [filler] for own in lists]
    ends = np.cumsum([len(own) for own in lists])
    every = np.fromiter(chain.from_iterable(lists), np.int32, ends[-1] if lists else 0)
    return [every[end - len(own) : end] for own, end in zip(lists, ends.tolist(), strict=True)]


def _filler(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    """An empty text to which the tokenizer adds nothing is one special token, at which a decoder can be read out."""
    if name != "input_ids":
        return 0
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
    return next((token for token in known if token is not None), 0)


def padded(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, labels: Sequence[np.ndarray] | None = None
) -> Batch:
    """A batch of one example a row, padded at the right: (rows, T) for each model input, `attention_mask` and
    `example`; `targets` (rows, ...), or (rows, T) where ``labels`` (tokens,) of each example's tokens are given."""
    import torch

    filler = {"input_ids": tokenizer.pad_token_id}
    inputs = {
        name: pad([example.inputs[name] for example in examples], filler.get(name, 0)) for name in examples[0].inputs
    }
    lengths = torch.tensor([example.length for example in examples])
    real = torch.arange(inputs["input_ids"].shape[1])[None, :] < lengths[:, None]
    inputs["attention_mask"] = real.long()
    targets = torch.tensor([example.target for example in examples]) if labels is None else pad(labels, IGNORED)
    return Batch(inputs, targets, example=torch.arange(len(examples))[:, None].where(real, -1))


def logits_alone(model: torch.nn.Module, example: Example) -> torch.Tensor:
    """Compute the logits (1, C) of one example as plain transformers does: of its tokens, and their types, alone."""
    import torch

    device = next(model.parameters()).device
    inputs = {name: torch.tensor(value).long()[None].to(device) for name, value in example.inputs.items()}
    return model(**inputs).logits.float()


def check_read_out(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse an encoder-decoder whose own class for sequences could not read its texts out."""
    # transformers does so at the input's end token; T5Gemma's at the last token, as in other models.
    if not getattr(model.config, "is_encoder_decoder", False) or model.config.model_type.startswith("t5gemma"):
        return
    end = model.config.eos_token_id
    if tokenizer("a")["input_ids"][-1] != end:
        raise bad_input(
            "model.source",
            f"this encoder-decoder is read out at its end token (number {end}), and its tokenizer ends no text so",
            "name the tokenizer that belongs to it in model.tokenizer",
        )
