"""Modules whose trained parameters are stacked, (R, ...): R runs' weights in one module, each at work on its own rows.

Rows come replica by replica, equally many each: the first dimension of what goes through is R * n. Frozen modules
are not touched: to them it is one batch. That several adapters over one base pay off in one batch is published by
mLoRA (Ye et al. 2023), PLoRA (Yan et al. 2025) and others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call
from torch.nn import functional

Weights = Mapping[str, torch.Tensor]
"""Trained weights of one run, by parameter name."""


class CannotStack(Exception):
    """This model's trained parameters cannot be stacked; its runs have to be trained one by one."""


@dataclass
class Rows:
    """How many rows of the batch under way each replica has; None between batches."""

    each: int | None = None


class Stacked(torch.nn.Module):
    """Stands in for a module, with those parameters stacked that learn, under the same names."""

    def __init__(self, plain: torch.nn.Module, replicas: int, rows: Rows):
        super().__init__()
        self.replicas, self.rows = replicas, rows
        self._plain = (plain,)  # in a tuple, so that its parameters are not counted as this module's
        self.train(plain.training)

    @property
    def plain(self) -> Any:
        """The module that it stands in for."""
        return self._plain[0]

    def own(self, key: str, number: int) -> torch.Tensor:
        """One run's value of the trained parameter ``key``, as the plain module would have it."""
        return self.get_parameter(key).detach()[number]

    def over(self, name: str, like: torch.Tensor) -> torch.Tensor | None:
        """The parameter ``name``, shaped to meet ``like`` (R, n, ..., features) feature by feature."""
        value = getattr(self, name, None)
        if value is None or value.ndim == 1:
            return value
        return value.reshape(self.replicas, *[1] * (like.ndim - 2), value.shape[-1])

    def apart(self, values: torch.Tensor) -> torch.Tensor:
        """(R * n, ...) as (R, n, ...)."""
        if values.shape[0] % self.replicas:
            raise CannotStack(f"{type(self.plain).__name__} gets {values.shape[0]} rows, not the replicas' own")
        return values.reshape(self.replicas, -1, *values.shape[1:])


class Linear(Stacked):
    """Of `torch.nn.Linear`, and of transformers' `Conv1D`, whose weight is transposed."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        apart, weight = self.apart(values), self.get_parameter("weight")
        matrix = weight if type(self.plain).__name__ == "Conv1D" else weight.transpose(-1, -2)
        flat = apart.flatten(1, -2)  # (R, rows and positions, features)
        if matrix.ndim == 2:
            matrix = matrix.expand(self.replicas, -1, -1)
        bias = self.over("bias", flat)
        result = torch.bmm(flat, matrix) if bias is None else torch.baddbmm(bias, flat, matrix)
        return result.reshape(*values.shape[:-1], -1)


class LayerNorm(Stacked):
    """Of `torch.nn.LayerNorm`."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        plain = self.plain
        normal = functional.layer_norm(values.float(), plain.normalized_shape, None, None, plain.eps)
        apart = self.apart(normal)
        weight, bias = self.over("weight", apart), self.over("bias", apart)
        scaled = apart if weight is None else apart * weight
        return (scaled if bias is None else scaled + bias).flatten(0, 1).to(values.dtype)


class Embedding(Stacked):
    """Of `torch.nn.Embedding`. What is looked up once for all rows (positions) is looked up for each replica."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        if numbers.shape[0] == 1 and self.rows.each is not None:
            numbers = numbers.expand(self.replicas * self.rows.each, *numbers.shape[1:])
        return self.learning(numbers, numbers)

    def learning(self, numbers: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """What each replica has in ``rows`` of its table; ``numbers`` are the tokens that they stand for."""
        weight, apart = self.get_parameter("weight"), self.apart(rows)
        size = weight.shape[-2]
        shift = torch.arange(self.replicas, device=rows.device) * size
        shifted = apart + shift.reshape(-1, *[1] * (apart.ndim - 1))
        found = functional.embedding(shifted, weight.reshape(self.replicas * size, -1)).flatten(0, 1)
        padding = self.plain.padding_idx
        if padding is not None:  # its row never learns
            found = torch.where((numbers == padding)[..., None], found.detach(), found)
        return found


class SeenEmbedding(Embedding):
    """Of a token embedding of which the training examples use some rows only: only those are trained.

    The others get no gradient, and would only be decayed, the same share at every step: that is made up for at once,
    when they are looked up or saved. The optimizer, its memory and the gradient's norm have that much less to go
    through, at every step.
    """

    def __init__(self, plain: torch.nn.Embedding, replicas: int, rows: Rows, seen: torch.Tensor):
        """``seen`` (tokens in the training examples,), sorted."""
        super().__init__(plain, replicas, rows)
        device = plain.weight.device
        self.seen = seen.to(device)
        self.row = torch.full((plain.num_embeddings,), -1, device=device)
        self.row[self.seen] = torch.arange(len(seen), device=device)
        self.table = plain.weight.detach()
        self.decay = torch.ones(replicas, device=device)
        """What is left of the rows that are not trained, after so many steps of decay."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        rows = self.row[numbers]
        found, unseen = self.learning(numbers, rows.clamp(min=0)), rows < 0
        if not unseen.any():
            return found
        if torch.is_grad_enabled():
            raise ValueError("a token that no training example has cannot be trained on")
        decay = self.decay.repeat_interleave(len(numbers) // self.replicas)
        others = functional.embedding(numbers, self.table) * decay.reshape(-1, *[1] * numbers.ndim)
        return torch.where(unseen[..., None], others, found)

    def own(self, key: str, number: int) -> torch.Tensor:
        whole = self.table * self.decay[number]
        whole[self.seen] = self.get_parameter(key).detach().view(self.replicas, len(self.seen), -1)[number]
        return whole


class Looped(Stacked):
    """Of any other module that works row by row: each replica's rows in turn, with its own parameters."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        apart, plain = self.apart(values), self.plain
        parameters = dict(self.named_parameters(recurse=False))
        learning = {name for name, value in plain.named_parameters(recurse=False) if value.requires_grad}
        outputs = []
        for number in range(self.replicas):
            own = {name: value[number] if name in learning else value for name, value in parameters.items()}
            outputs.append(functional_call(plain, own, (apart[number],)))
        return torch.cat(outputs)


def kind_of(module: torch.nn.Module) -> type[Stacked]:
    """Which of these stands in for ``module``."""
    from transformers.pytorch_utils import Conv1D

    known: dict[type, type[Stacked]] = {
        torch.nn.Linear: Linear,
        Conv1D: Linear,
        torch.nn.LayerNorm: LayerNorm,
        torch.nn.Embedding: Embedding,
    }
    if type(module) in known:
        return known[type(module)]
    if any(True for _ in module.children()) or isinstance(module, torch.nn.ParameterList | torch.nn.ParameterDict):
        raise CannotStack(f"{type(module).__name__} holds trained parameters of its own beside other modules")
    return Looped
