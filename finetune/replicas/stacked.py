"""Modules whose trained parameters are stacked, (R, ...): R runs' weights in one module, each at work on its own rows.

Rows, the first dimension of what goes through, come replica by replica. Frozen modules are not touched: to them it is
one batch. That several adapters over one base pay off in one batch is published by
mLoRA (Ye et al. 2023), PLoRA (Yan et al. 2025) and others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.func import functional_call
from torch.nn import functional

Weights = Mapping[str, torch.Tensor]
"""Trained weights of one run, by parameter name."""

NARROW = 64
"""Inputs or outputs up to which a matrix is narrow."""


class CannotStack(Exception):
    """This model's trained parameters cannot be stacked; its runs have to be trained one by one."""


@dataclass
class Rows:
    """The number of rows that each replica has in the current batch, (R,); None between batches."""

    counts: Sequence[int] | None = None
    passing: int | None = None
    """How many rows the model was last called on, where it tells."""
    _owned: dict[Sequence[int], torch.Tensor] = field(default_factory=dict)

    @property
    def total(self) -> int | None:
        """Count the rows of all replicas."""
        return self.passing if self.counts is None else sum(self.counts)

    def look(self, model: torch.nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Count the rows before the model is called: if it counts positions itself, it looks them up once for all
        rows."""
        ids = inputs.get("input_ids", args[0] if args else None)
        ids = inputs.get("decoder_input_ids") if ids is None else ids  # of a decoder whose encoder has run before
        self.passing = None if ids is None else len(ids)

    @contextmanager
    def are(self, counts: Sequence[int]) -> Iterator[None]:
        """Within the context, a batch with these ``counts`` (R,) is under way."""
        self.counts = counts
        try:
            yield
        finally:
            self.counts = None
            self._owned.clear()

    def owned(self, counts: Sequence[int], device: torch.device) -> torch.Tensor:
        """Mark which lines are each replica's, where they come ``counts`` (R,) by ``counts``: (lines, R), boolean."""
        if tuple(counts) not in self._owned:
            owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
            self._owned[tuple(counts)] = (owners[:, None] == torch.arange(len(counts))).to(device)
        return self._owned[tuple(counts)]


class Stacked(torch.nn.Module):
    """Stands in for a module, with those parameters stacked that learn, under the same names."""

    def __init__(self, plain: torch.nn.Module, replicas: int, rows: Rows):
        super().__init__()
        self.replicas, self.rows = replicas, rows
        self._plain = (plain,)  # in a tuple, so that its parameters are not counted as this module's
        self.train(plain.training)

    @property
    def plain(self) -> Any:
        """Give the module that it stands in for."""
        return self._plain[0]

    def own(self, key: str, number: int) -> torch.Tensor:
        """Give one run's value of the trained parameter ``key``, as the plain module would have it."""
        return self.get_parameter(key).detach()[number]

    def counts(self, values: torch.Tensor) -> Sequence[int]:
        """Count the rows of ``values`` that are each replica's; the same number each where no batch is known."""
        counts = self.rows.counts or [len(values) // self.replicas] * self.replicas
        if sum(counts) != len(values):
            raise CannotStack(f"{type(self.plain).__name__} gets {len(values)} rows, not the replicas' own")
        return counts

    def beside(self, per_replica: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Repeat each replica's value, (R, ...), for each of its rows in ``values`` (rows, ..., features):
        (rows, 1, ..., ...)."""
        if self.replicas == 1:  # one run's rows may as well come second, as in XLNet
            return per_replica.reshape(*[1] * (values.ndim - per_replica.ndim + 1), *per_replica.shape[1:])
        counts = torch.tensor(self.counts(values), device=values.device)
        found = per_replica.repeat_interleave(counts, 0, output_size=len(values))
        return found.reshape(len(values), *[1] * (values.ndim - per_replica.ndim), *per_replica.shape[1:])


class Linear(Stacked):
    """Of `torch.nn.Linear`, and of transformers' `Conv1D`, whose weight is transposed."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        # Not by `get_parameter`, which refuses what a mitigation lets stand in for the parameter.
        weight, bias = getattr(self, "weight"), getattr(self, "bias", None)  # noqa: B009
        matrices = weight if type(self.plain).__name__ == "Conv1D" else weight.transpose(-1, -2)
        if bias is not None and matrices.ndim == 2:  # which alone learns
            product = values @ matrices
            return product + self.beside(bias, product).to(product.dtype)
        lines = values.flatten(0, -2)  # (rows and positions, features)
        counts = [count * (len(lines) // len(values)) for count in self.counts(values)]
        if bias is not None:
            bias = bias.expand(self.replicas, -1)
        if len(set(counts)) == 1:
            apart = lines.reshape(self.replicas, -1, lines.shape[-1])
            result = torch.bmm(apart, matrices) if bias is None else torch.baddbmm(bias[:, None], apart, matrices)
        elif bias is None and min(matrices.shape[1:]) <= NARROW:
            result = self.in_blocks(lines, matrices, counts)
        else:
            kind = lines.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else lines.dtype
            given = (None if one is None else one.to(dtype) for one in (lines, matrices, bias))
            result = Unequal.apply(counts, *given)
        return result.reshape(*values.shape[:-1], -1)

    def in_blocks(self, lines: torch.Tensor, matrices: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Multiply each replica's lines (lines, in) by its matrix (R, in, out), as one product of all lines with all
        matrices side by side: R times the work, in a fraction of the time where the matrices are narrow."""
        size, (replicas, wide, narrow) = len(lines), matrices.shape
        own = self.rows.owned(counts, lines.device)[..., None]
        if narrow < wide:
            every = lines @ matrices.transpose(0, 1).reshape(wide, -1)
            return every.view(size, replicas, narrow).where(own, 0).sum(1)
        return lines[:, None].where(own, 0).reshape(size, -1) @ matrices.reshape(-1, narrow)


class Unequal(torch.autograd.Function):
    """Each replica's own number of lines (lines, in) times its matrix (in, out), plus its bias (out,), if any.

    Written at once where it belongs: a product by itself for each replica, put together afterwards, takes twice as
    long on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, counts: Sequence[int], lines: torch.Tensor, matrices: torch.Tensor, biases: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(lines, matrices)
        ctx.counts, ctx.biased = counts, biases is not None
        result = lines.new_empty(len(lines), matrices.shape[-1])
        for number, (own, out) in enumerate(zip(lines.split(counts), result.split(counts), strict=True)):
            if biases is None:
                torch.mm(own, matrices[number], out=out)
            else:
                torch.addmm(biases[number], own, matrices[number], out=out)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        lines, matrices = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        to_lines, to_matrices, to_biases = None, None, None
        if ctx.needs_input_grad[1]:
            to_lines = torch.empty_like(lines)
            for number, (own, out) in enumerate(
                zip(gradient.split(ctx.counts), to_lines.split(ctx.counts), strict=True)
            ):
                torch.mm(own, matrices[number].t(), out=out)
        if ctx.needs_input_grad[2]:
            to_matrices = torch.empty_like(matrices)
            for own, given, out in zip(lines.split(ctx.counts), gradient.split(ctx.counts), to_matrices, strict=True):
                torch.mm(own.t(), given, out=out)
        if ctx.biased:
            to_biases = torch.stack([own.sum(0) for own in gradient.split(ctx.counts)])
        return None, to_lines, to_matrices, to_biases


class LayerNorm(Stacked):
    """Of `torch.nn.LayerNorm`."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        plain = self.plain
        result = functional.layer_norm(values.float(), plain.normalized_shape, None, None, plain.eps)
        for name, change in (("weight", torch.mul), ("bias", torch.add)):
            parameter = getattr(self, name, None)
            if parameter is not None:
                alone = parameter.ndim == len(plain.normalized_shape)
                result = change(result, parameter if alone else self.beside(parameter, result))
        return result.to(values.dtype)


class Embedding(Stacked):
    """Of `torch.nn.Embedding`. What is looked up once for all rows (positions) is looked up for each replica."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        if self.replicas > 1 and numbers.shape[0] == 1 and self.rows.total is not None:
            numbers = numbers.expand(self.rows.total, *numbers.shape[1:])
        return self.learning(numbers, numbers)

    def learning(self, numbers: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Look up ``rows`` in each replica's table; ``numbers`` are the tokens that they stand for."""
        weight = self.get_parameter("weight")
        size = weight.shape[-2]
        shift = torch.arange(self.replicas, device=rows.device) * size
        shifted = rows + self.beside(shift, rows)
        found = functional.embedding(shifted, weight.reshape(self.replicas * size, -1))
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
        others = functional.embedding(numbers, self.table)
        others = others * self.beside(self.decay, others)
        if torch.is_grad_enabled():  # padding, say, at which nobody looks
            others.requires_grad_().register_hook(lambda gradient: _refuse(gradient[unseen]))
        return torch.where(unseen[..., None], others, found)

    def own(self, key: str, number: int) -> torch.Tensor:
        whole = self.table * self.decay[number]
        whole[self.seen] = self.get_parameter(key).detach().view(self.replicas, len(self.seen), -1)[number]
        return whole


def _refuse(gradient: torch.Tensor) -> None:
    """Raise an error rather than let a row silently stay as it is."""
    if (gradient.isfinite() & (gradient != 0)).any():  # what diverges is told elsewhere
        raise ValueError("a token that no training example has cannot be trained on")


class Looped(Stacked):
    """Of any other module that works row by row: each replica's rows in turn, with its own parameters."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        plain, apart = self.plain, values.split(self.counts(values))
        parameters = dict(self.named_parameters(recurse=False))
        learning = {name for name, value in plain.named_parameters(recurse=False) if value.requires_grad}
        outputs = []
        for number in range(self.replicas):
            own = {name: value[number] if name in learning else value for name, value in parameters.items()}
            outputs.append(functional_call(plain, own, (apart[number],)))
        return torch.cat(outputs)


def kind_of(module: torch.nn.Module) -> type[Stacked]:
    """Choose the class that stands in for ``module``."""
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
