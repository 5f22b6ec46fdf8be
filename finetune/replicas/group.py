"""R runs as one model: what training and evaluation work with, R = 1 being the plain case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from finetune.core.examples import Example
from finetune.core.hooks import TrainingHooks
from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir
from finetune.replicas.prefix import Prefix
from finetune.replicas.stacked import CannotStack, Rows, SeenEmbedding, Stacked, Weights, kind_of
from finetune.strategies.base import trained_parameters
from finetune.strategies.blocks import find_blocks

FEW = 0.8
"""Share of an embedding's rows below which training those alone pays."""


@dataclass(frozen=True)
class Member:
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

    def __init__(self, model: torch.nn.Module, count: int = 1, places: Sequence[Place] = (), rows: Rows | None = None):
        self.model, self.count = model, count
        self.prefix: Prefix | None = None
        self.compiled = False
        self.hooks = TrainingHooks()
        self.fresh: frozenset[str] = frozenset()
        """Names of trained parameters without a pretrained value."""
        self._places, self._rows = places, rows or Rows()

    @classmethod
    def stack(
        cls, model: torch.nn.Module, weights: Sequence[Weights], seen: torch.Tensor | None = None
    ) -> ReplicaGroup:
        """The runs that start with ``weights``, in a model that was prepared like each of theirs.

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
        group = cls(model, count, places, rows)
        group._stand_in()
        kept = {id(parameter) for parameter in stacks.values()}
        left = [name for name, parameter in trained_parameters(model).items() if id(parameter) not in kept]
        if left and count > 1:
            raise CannotStack(f"{left[0]} has no module that could be stacked")
        for place in places:
            group._let_go(place)
        if count > 1:
            model.register_forward_pre_hook(rows.look, with_kwargs=True)
        return group

    def _stand_in(self) -> None:
        for place in self._places:
            place.put(place.stacked)

    def compile(self) -> None:
        """Compile the blocks that are not part of the prefix. They are alike, so that one compilation serves all."""
        known = self.prefix.names if self.prefix else []
        for name in find_blocks(self.model):
            if name not in known:
                self.model.get_submodule(name).compile(dynamic=True)
        self.compiled = True

    def stacked_parameters(self) -> list[torch.nn.Parameter]:
        """What learns of all runs, (R, ...) each; what several modules share once."""
        every = [value for place in self._places for value in place.stacked.parameters(recurse=False)]
        return list({id(value): value for value in every if value.requires_grad}.values())

    @staticmethod
    def _let_go(place: Place) -> None:
        """The plain module's own trained weights are not needed while the other stands in for it."""
        for parameter in place.plain.parameters(recurse=False):
            if parameter.requires_grad:
                parameter.data = parameter.data.new_empty(0)

    @contextmanager
    def alone(self, number: int) -> Iterator[torch.nn.Module]:
        """Within the context, the model of one run."""
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
        """Tell that weight decay has left this share of what one run does not train one by one."""
        for place in self._places:
            if isinstance(place.stacked, SeenEmbedding):
                place.stacked.decay[number] = left

    @contextmanager
    def on(
        self, examples: Sequence[Example], batch: Mapping[str, torch.Tensor], counts: Sequence[int] = ()
    ) -> Iterator[None]:
        """Within the context the model is called on ``batch``, in which ``examples`` were put: replica by replica, of
        each as many as ``counts`` (R,) says, or equally many."""
        prefix = self.prefix.on(examples, batch) if self.prefix else nullcontext()
        with self._rows.are(self._rows_of(batch, counts)), prefix:
            yield

    def _rows_of(self, batch: Mapping[str, torch.Tensor], counts: Sequence[int]) -> list[int]:
        """How many rows of ``batch`` are each replica's: a row's last example tells whose it is."""
        if self.count == 1:
            return [len(batch["input_ids"])]
        last = batch["example"].amax(1).cpu()
        ends = torch.tensor(counts or [(int(last.max()) + 1) // self.count] * self.count).cumsum(0)
        owners = torch.searchsorted(ends, last, right=True)
        return torch.bincount(owners, minlength=self.count).tolist()


def _partly_seen(model: torch.nn.Module, seen: torch.Tensor | None) -> torch.nn.Embedding | None:
    """The token embedding, if it learns, stands in nobody else's place, and training meets few of its rows."""
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
