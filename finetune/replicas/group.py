"""R runs as one model, for training and evaluation; R = 1 is the plain case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from finetune.core.examples import Batch, Example
from finetune.core.hooks import TrainingHooks
from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir
from finetune.core.sharding import reshard
from finetune.replicas.prefix import Prefix
from finetune.replicas.stacked import CannotStack, Rows, SeenEmbedding, Stacked, Weights, kind_of
from finetune.strategies.base import trained_parameters
from finetune.strategies.blocks import find_blocks

FEW = 0.8
"""Share of an embedding's rows below which training those alone pays."""


@dataclass(frozen=True)
class Replica:
    """One run of a group."""

    streams: Streams
    folder: RunDir


@dataclass(frozen=True)
class Place:
    """Where in the model a stacked module stands in for a plain one."""

    parent: torch.nn.Module
    name: str
    plain: torch.nn.Module
    stacked: Stacked

    def put(self, module: torch.nn.Module) -> None:
        self.parent._modules[self.name] = module


class ReplicaGroup:
    """A model, and how many runs are in it."""

    def __init__(
        self,
        model: torch.nn.Module,
        count: int = 1,
        places: Sequence[Place] = (),
        rows: Rows | None = None,
        hooks: TrainingHooks | None = None,
        fresh: frozenset[str] = frozenset(),
    ):
        """``hooks`` are at work while it is trained; ``fresh`` names trained parameters without a pretrained value."""
        self.model, self.count, self.hooks, self.fresh = model, count, hooks or TrainingHooks(), fresh
        self.prefix: Prefix | None = None
        self.compiled = False
        self._places, self._rows = places, rows or Rows()

    @classmethod
    def stack(
        cls,
        model: torch.nn.Module,
        weights: Sequence[Weights],
        seen: torch.Tensor | None = None,
        hooks: TrainingHooks | None = None,
        fresh: frozenset[str] = frozenset(),
    ) -> ReplicaGroup:
        """Stack the runs that start with ``weights`` in ``model``, which was prepared like each of theirs.

        ``seen`` (tokens,) are the tokens that training will meet, sorted; None: any. Raises :class:`CannotStack` when
        a trained parameter stands where it cannot be stacked; one run alone always can be trained.
        """
        count, rows, places = len(weights), Rows(), []
        partly = _partly_seen(model, seen)
        # A parameter that two modules share (tied embeddings) stays shared when it is stacked.
        stacks = {
            id(parameter): torch.nn.Parameter(torch.stack([own[name] for own in weights]))
            for name, parameter in model.named_parameters()
            if name in weights[0] and count > 1 and not (partly and parameter is partly.weight)
        }
        if partly and seen is not None:
            name = next(name for name, parameter in model.named_parameters() if parameter is partly.weight)
            used = [own[name][seen.to(own[name].device)] for own in weights]
            stacks[id(partly.weight)] = torch.nn.Parameter(torch.stack(used) if count > 1 else used[0])
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                own = dict(child.named_parameters(recurse=False))
                if not any(id(parameter) in stacks for parameter in own.values()):
                    continue
                if child is partly and seen is not None:
                    stacked: Stacked = SeenEmbedding(partly, count, rows, seen)
                else:
                    stacked = kind_of(child)(child, count, rows)
                for key, parameter in own.items():
                    stacked.register_parameter(key, stacks.get(id(parameter), parameter))
                places.append(Place(parent, name, child, stacked))
        group = cls(model, count, places, rows, hooks, fresh)
        group._stand_in()
        kept = {id(parameter) for parameter in stacks.values()}
        left = [name for name, parameter in trained_parameters(model).items() if id(parameter) not in kept]
        if left and count > 1:
            raise CannotStack(f"{left[0]} has no module that could be stacked")
        for place in places:
            group._let_go(place)
        if count > 1:
            for looking in [model, *_encoder(model)]:
                looking.register_forward_pre_hook(rows.look, with_kwargs=True)
        return group

    def _stand_in(self) -> None:
        for place in self._places:
            place.put(place.stacked)

    def put_on(self, prefix: Prefix) -> None:
        """Use what ``prefix`` remembers from now on, in the place of the model's frozen bottom."""
        self.prefix = prefix

    def take_off_prefix(self) -> None:
        """Let the model compute its frozen bottom itself again."""
        if self.prefix is not None:
            self.prefix.close()
        self.prefix = None

    @contextmanager
    def without_prefix(self) -> Iterator[None]:
        """Within the context, use nothing that the prefix remembers."""
        prefix, self.prefix = self.prefix, None
        try:
            yield
        finally:
            self.prefix = prefix

    def compile(self) -> None:
        """Compile the blocks that are not part of the prefix. They are alike, so that one compilation serves all."""
        known = self.prefix.names if self.prefix else []
        for name in find_blocks(self.model):
            if name not in known:
                self.model.get_submodule(name).compile(dynamic=True)
        self.compiled = True

    def stacked_parameters(self) -> list[torch.nn.Parameter]:
        """Give the parameters that learn, of all runs, (R, ...) each; one that several modules share comes once."""
        every = [value for place in self._places for value in place.stacked.parameters(recurse=False)]
        return list({id(value): value for value in every if value.requires_grad}.values())

    @staticmethod
    def _let_go(place: Place) -> None:
        """Free the plain module's own trained weights, which are not needed while the other stands in for it."""
        for parameter in place.plain.parameters(recurse=False):
            if parameter.requires_grad:
                parameter.data = parameter.data.new_empty(0)

    @contextmanager
    def alone(self, number: int) -> Iterator[torch.nn.Module]:
        """Within the context, give the model of one run."""
        for place in self._places:
            for key, parameter in place.plain.named_parameters(recurse=False):
                if parameter.requires_grad:
                    parameter.data = place.stacked.own(key, number)
            place.put(place.plain)
        try:
            yield self.model
        finally:
            self._stand_in()
            for place in self._places:
                self._let_go(place)

    def decayed(self, number: int, left: float) -> None:
        """Record that weight decay has left this share of those of one run's weights that no step trains."""
        for place in self._places:
            if isinstance(place.stacked, SeenEmbedding):
                place.stacked.decay[number] = left

    @contextmanager
    def on(self, examples: Sequence[Example], batch: Batch, counts: Sequence[int] = ()) -> Iterator[None]:
        """Within the context the model is called on ``batch``, in which ``examples`` were put: replica by replica, of
        each as many as ``counts`` (R,) says, or equally many."""
        prefix = self.prefix.on(examples, batch) if self.prefix else nullcontext()
        with self._rows.are(self._rows_of(batch, counts)), prefix:
            yield
        reshard(self.model)

    def _rows_of(self, batch: Batch, counts: Sequence[int]) -> list[int]:
        """Count the rows of ``batch`` that are each replica's: a row's last example tells whose it is."""
        if self.count == 1:
            return [len(batch.example)]
        last = batch.example.amax(1).cpu()
        ends = torch.tensor(counts or [(int(last.max()) + 1) // self.count] * self.count).cumsum(0)
        owners = torch.searchsorted(ends, last, right=True)
        return torch.bincount(owners, minlength=self.count).tolist()


def _encoder(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The encoder of an encoder-decoder, which runs by itself before answers are generated; else nothing."""
    wrapped: Any = model
    inner = wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped
    both = getattr(getattr(inner, "config", None), "is_encoder_decoder", False)
    return [inner.get_encoder()] if both and hasattr(inner, "get_encoder") else []


def _partly_seen(model: torch.nn.Module, seen: torch.Tensor | None) -> torch.nn.Embedding | None:
    """Find the token embedding of which training meets few rows, if it learns and no other module shares it."""
    wrapped: Any = model
    inner = wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped
    if seen is None or not hasattr(inner, "get_input_embeddings"):
        return None
    found = inner.get_input_embeddings()
    owners = [
        module for module in model.modules() for value in module.parameters(recurse=False) if value is found.weight
    ]
    fits = type(found) is torch.nn.Embedding and found.weight.requires_grad and len(owners) == 1
    return found if fits and len(seen) < FEW * found.num_embeddings else None
