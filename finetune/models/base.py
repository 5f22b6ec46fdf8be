"""Pretrained weights, from which every run takes a copy with new parameters of its own."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finetune.core.digests import weights_digest
from finetune.core.randomness import Streams

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass
class BaseModel:
    """Pristine weights on the CPU, in the type that they are stored in, from which every run takes a copy or a view."""

    model: PreTrainedModel
    new: frozenset[str]
    """Parameters drawn from each run's `init` stream: the task's head, and what else the checkpoint does not have."""
    told: tuple[str, ...] = ()
    """What a person should know of how the checkpoint fits the model, and of what was said while it was loaded."""
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What others have computed from these weights, kept as long as they are."""

    _moved: dict[Any, _Holders] = field(default_factory=dict, repr=False)
    """By name, type and device, who holds these weights so."""

    @cached_property
    def digest(self) -> str:
        """A hash of the pretrained weights, in float32."""
        own = {name: value for name, value in self.model.named_parameters() if name not in self.new}
        return weights_digest(own, precise=True)

    def tell(self, say: Callable[[str], None]) -> None:
        """Say once what :attr:`told` holds."""
        for line in self.told if self.kept.setdefault("tell", True) else ():
            say(f"base model · {line}")
        self.kept["tell"] = False

    def copy(self, streams: Streams) -> PreTrainedModel:
        """A copy in float32 whose new parameters are drawn from ``streams``' `init` stream."""
        return self._drawn(copy.deepcopy(self.model), streams)

    def view(self, streams: Streams) -> PreTrainedModel:
        """The same for who changes none of the other weights: they are these, in the type that they are stored in.

        Those that are to learn have to be copied before they do: see :meth:`own`.
        """
        seen = {id(value): _view(value) for value in self.model.parameters()}
        return self._drawn(copy.deepcopy(self.model, seen), streams, self.new)

    def _drawn(self, model: PreTrainedModel, streams: Streams, names: Iterable[str] | None = None) -> PreTrainedModel:
        """Bring the named parameters, or all, to float32, and draw the new ones."""
        import torch

        own = [*model.parameters()] if names is None else [model.get_parameter(name) for name in names]
        for value in own:
            if value.is_floating_point():
                value.data = value.data.float() if names is None else value.data.to(torch.float32, copy=True)
        with streams.globally("init"):
            initialise(model, self.new)
        return model

    @staticmethod
    def own(model: torch.nn.Module) -> None:
        """Give what learns in a :meth:`view` weights of its own, in float32."""
        import torch

        for value in model.parameters():
            if value.requires_grad:
                value.data = value.data.to(torch.float32, copy=True)

    def moved(self, parameter: torch.nn.Parameter, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Give a run's frozen ``parameter`` in another type, or on another device: the same tensor for all runs, as
        long as one of them has it, where it is a view of these weights."""
        name = self._names.get(parameter.data_ptr())
        if name is None or parameter.shape != self.model.get_parameter(name).shape:
            return parameter.data.to(device, dtype)
        holders = self._moved.setdefault((name, dtype, device), _Holders())
        found = holders.held()
        found = parameter.data.to(device, dtype) if found is None else found
        holders.add(parameter, found)
        return found

    @cached_property
    def _names(self) -> dict[int, str]:
        """The names of these weights by where they begin."""
        return {value.data_ptr(): name for name, value in self.model.named_parameters() if name not in self.new}


class _Holders:
    """The parameters that hold the same weights: as long as there are any, others can be given these."""

    def __init__(self) -> None:
        self._begins, self._all = 0, weakref.WeakSet[Any]()

    def held(self) -> torch.Tensor | None:
        """Give the weights; None where nobody has them any more, or what they have has been replaced."""
        return next((each.data for each in list(self._all) if each.data_ptr() == self._begins), None)

    def add(self, parameter: torch.nn.Parameter, weights: torch.Tensor) -> None:
        """Note that ``parameter`` will hold these ``weights``."""
        if weights.data_ptr() != self._begins:
            self._begins, self._all = weights.data_ptr(), weakref.WeakSet()
        if not any(each is parameter for each in self._all):  # which a set would ask by comparing weights
            self._all.add(parameter)


def _view(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    """Make a parameter of the same memory, which may begin or cease to learn by itself."""
    import torch

    return torch.nn.Parameter(parameter.detach(), parameter.requires_grad)


def initialise(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Draw the named parameters afresh, as the architecture itself initialises them.

    The modules are asked to that directly own one of the names, because architectures define their initialisation per
    module; then the modules made of such ones, since some say more about their parts (GPT-2 draws the layers that write
    to the residual stream smaller). What else they own stays as it is.
    """
    names = set(names)
    owners = {name.rpartition(".")[0] for name in names}
    drawn = set()
    for name, parameter in model.named_parameters():
        new = name in names
        # transformers marks loaded parameters, and its initialisers leave marked ones alone.
        parameter._is_hf_initialized = not new  # type: ignore[attr-defined]
        drawn |= {id(parameter)} if new else set()
    for name, module in reversed(list(model.named_modules())):
        inside = {id(parameter) for parameter in module.parameters()}
        if name in owners or (inside and inside <= drawn):
            model._init_weights(module)


def head_parameters(model: PreTrainedModel, new: Iterable[str] = ()) -> set[str]:
    """Parameters of the task's head: those outside the base model, and those the checkpoint does not have.

    The output layer of a language model is not a head: it is pretrained, and often tied to the embeddings.
    """
    prefix = f"{model.base_model_prefix}."
    output = model.get_output_embeddings()
    language = {id(parameter) for parameter in output.parameters()} if output is not None else set()
    outside = {
        name
        for name, parameter in model.named_parameters()
        if not name.startswith(prefix) and id(parameter) not in language
    }
    return outside | set(new)
