"""Candidate answers to one prompt, scored together: the prompt is computed once, and each candidate is a branch behind
it that sees the prompt and itself, and no other branch.

Such trees of tokens are from speculative decoding (Miao et al. 2024, "SpecInfer", section 4.2). A branch begins with
the last token of the prompt, which is there once for each: so every label is predicted by the token before it, and loss
paths need not know of branches. What a model that cannot be given such a mask makes of them is computed one candidate
a row. Shapes: N examples; S candidates of all of them; rows and T columns of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn.functional import pad as pad_tensor

from finetune.core.examples import Batch, Example, pad
from finetune.core.memory import out_of_memory
from finetune.tasks.causal import loss_paths
from finetune.tasks.conversation import IGNORED


def positions_of(branch: np.ndarray) -> np.ndarray:
    """Give the position of each token in the text that it stands in, (tokens,): branches go on where what they have in
    common ends. ``branch`` (tokens,) is :attr:`Example.branch`."""
    places, begin, root = np.empty(len(branch), np.int64), 0, 0
    for end in [*(np.flatnonzero(np.diff(branch)) + 1).tolist(), len(branch)]:
        start = root if branch[begin] else 0
        places[begin:end] = np.arange(start, start + end - begin)
        root, begin = (root if branch[begin] else end - begin), end
    return places


def lay_out(examples: Sequence[Example], filler: int) -> Batch:
    """Lay out one example a row, padded at the right with ``filler``; targets are the examples' own, (N,)."""
    lengths = torch.tensor([example.length for example in examples])
    branches = [_branch(example) for example in examples]
    branch = pad(branches, 0)
    place = torch.arange(branch.shape[1]).expand(branch.shape)
    inputs = {
        "input_ids": pad([example.inputs["input_ids"] for example in examples], filler),
        "position_ids": pad([positions_of(each) for each in branches], 0),
    }
    example = torch.arange(len(examples))[:, None].where(place < lengths[:, None], -1)
    return Batch(inputs, torch.tensor([each.target for each in examples]), example, place=place, branch=branch)


def counts_of(batch: Batch) -> torch.Tensor:
    """Count the candidates of each example: (N,)."""
    real = batch.example >= 0
    found = _branches(batch).new_zeros(batch.count)
    return found.scatter_reduce(0, batch.example[real], _branches(batch)[real], "amax")


def owners_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the example of each candidate, (S,), and its number among that example's own, (S,), from 0."""
    counts = counts_of(batch)
    owners = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    starts = counts.cumsum(0) - counts
    return owners, torch.arange(len(owners), device=counts.device) - starts[owners]


def tokens_of(batch: Batch) -> torch.Tensor:
    """Count the tokens of each candidate itself: (S,)."""
    sequence = _sequences(batch)
    return torch.bincount(sequence[sequence >= 0]) - 1


def unrolled(batch: Batch, filler: int) -> Batch:
    """Lay out each candidate in a row of its own, behind what it has in common with others; ``batch`` itself when it is
    so already."""
    if _is_unrolled(batch):
        return batch
    sequence, tree = _sequences(batch), _trees(batch)
    rows, columns = (sequence >= 0).nonzero(as_tuple=True)
    candidates = sequence[rows, columns]
    count = int(candidates.max()) + 1
    row, own = (torch.zeros(count, dtype=torch.long, device=rows.device) for _ in range(2))
    row[candidates], own[candidates] = rows, tree[rows, columns]
    numbers = torch.arange(count, device=rows.device)[:, None]
    common = (batch.example[row] >= 0) & (_branches(batch)[row] == 0) & (tree[row] == own[:, None])
    member = common | (sequence[row] == numbers)
    order = (~member).int().argsort(dim=1, stable=True)[:, : int(member.sum(1).max())]
    real = member.gather(1, order)

    def taken(values: torch.Tensor, empty: int) -> torch.Tensor:
        return values[row].gather(1, order).where(real, empty)

    inputs = {
        "input_ids": taken(batch.inputs["input_ids"], filler),
        "position_ids": torch.arange(order.shape[1], device=rows.device).expand(order.shape),
        "attention_mask": real.long(),
    }
    place = taken(batch.positions if batch.place is None else batch.place, 0)
    branch = taken(_branches(batch), 0)
    return Batch(inputs, batch.targets, taken(batch.example, -1), place=place, branch=branch)


def apart(batch: Batch, additive: torch.dtype | None = None) -> Batch:
    """Turn a batch of N examples into one of S candidates, whose tokens are the labels, for loss paths.

    A tree gets its mask, (N, 1, T, T): True where a position sees another; or, in ``additive`` dtype, 0 there, and
    elsewhere the smallest number that there is.
    """
    ids, branch = batch.inputs["input_ids"], _branches(batch)
    learnt = (branch > 0) & (branch == pad_tensor(branch[:, :-1], (1, 0), value=-1))
    sequence = _sequences(batch)
    inputs = dict(batch.inputs)
    if not _is_unrolled(batch):
        mask = _sees(batch)[:, None]
        if additive is not None:
            mask = torch.zeros_like(mask, dtype=additive).masked_fill(~mask, torch.finfo(additive).min)
        inputs["attention_mask"] = mask
    return Batch(inputs, ids.where(learnt, IGNORED), sequence)


def _sees(batch: Batch) -> torch.Tensor:
    """Tell which position of a row sees which: (rows, T, T). Padding sees itself, so that its softmax has a sum."""
    branch, tree = _branches(batch), _trees(batch)
    below = torch.ones(branch.shape[1], branch.shape[1], dtype=torch.bool, device=branch.device).tril()
    related = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    real = batch.example >= 0
    seen = below & related & (tree[:, None, :] == tree[:, :, None]) & (real[:, None, :] & real[:, :, None])
    return seen | torch.eye(branch.shape[1], dtype=torch.bool, device=branch.device)


def _trees(batch: Batch) -> torch.Tensor:
    """Number the trees of each row: (rows, T). One begins with every token of what is common that follows a branch."""
    branch = _branches(batch)
    return ((branch == 0) & (pad_tensor(branch[:, :-1], (1, 0), value=1) > 0)).cumsum(1)


def _sequences(batch: Batch) -> torch.Tensor:
    """Number the candidates of the batch, (rows, T): -1 at padding and at what several have in common."""
    counts, branch = counts_of(batch), _branches(batch)
    starts = counts.cumsum(0) - counts
    return (starts[batch.example.clamp(min=0)] + branch - 1).where((batch.example >= 0) & (branch > 0), -1)


def _branches(batch: Batch) -> torch.Tensor:
    assert batch.branch is not None, "a batch of examples without candidates"
    return batch.branch


def _is_unrolled(batch: Batch) -> bool:
    return "attention_mask" in batch.inputs


# What a model can be given

_shares: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def shares(model: torch.nn.Module, tokens: Sequence[int], rows: int = 1) -> bool:
    """Tell whether ``model`` gives candidates that share what they have in common the losses that they have one a row.

    It is tried, with ``tokens``, any sixteen that differ, on ``rows`` rows (a stack of R replicas takes no fewer than
    R), and kept for each model. No random number is drawn.
    """
    model = loss_paths.bare(model)
    if model not in _shares:
        with torch.no_grad(), loss_paths.evaluating(model):
            _shares[model] = _try(model, tokens, rows)
    return _shares[model]


def _try(model: torch.nn.Module, tokens: Sequence[int], rows: int) -> bool:
    # A layer that sees so many positions and no more counts them in the row, where branches stand behind each other.
    config: Any = loss_paths.without_adapter(model).config.get_text_config()
    if getattr(config, "sliding_window", None):
        return False
    root, first, second, third = tokens[:5], tokens[4:8], [tokens[4], *tokens[8:14]], [tokens[4], *tokens[14:16]]
    ids = np.array([*root[:-1], *first, *second, *third], np.int32)
    sizes = (len(root) - 1, len(first), len(second), len(third))
    tree = Example(0, {"input_ids": ids}, 0, 1.0, "", branch=np.repeat(np.arange(4), sizes))
    batch = lay_out([tree] * rows, 0).to(next(model.parameters()).device)
    wanted = loss_paths.losses_of(model, apart(unrolled(batch, 0)), "everywhere")
    try:
        found = loss_paths.losses_of(model, apart(batch, additive_of(model)), "everywhere")
    except (RuntimeError, ValueError, IndexError) as error:  # whatever a model does with a mask that it does not know
        if out_of_memory(error):
            raise
        return False
    return loss_paths.agree(found, wanted, 4 * loss_paths.tolerance_of(model))


def additive_of(model: torch.nn.Module) -> torch.dtype | None:
    """Choose the dtype of a mask that is added to attention's products; None where it may be True and False."""
    own = loss_paths.without_adapter(model)
    if getattr(own.config, "_attn_implementation", None) == "sdpa":
        return None
    parameter = next(own.parameters())
    kind = parameter.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else parameter.dtype


def _branch(example: Example) -> np.ndarray:
    assert example.branch is not None, "an example without candidates"
    return example.branch


def sequences_of(example: Example) -> list[tuple[np.ndarray, np.ndarray]]:
    """List each candidate's tokens behind those that it has in common with others, and the labels among them, as
    (tokens,) each."""
    ids, common, found = example.inputs["input_ids"], np.empty(0, np.int32), []
    for own, which in zip(example.parts(ids), example.parts(_branch(example)), strict=True):
        if which[0] == 0:
            common = own
            continue
        labels = np.full(len(common) + len(own), IGNORED, np.int64)
        labels[len(common) + 1 :] = own[1:]
        found.append((np.concatenate([common, own]), labels))
    return found
