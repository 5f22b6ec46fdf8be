"""Pretrained weights, from which every run takes a copy with new parameters of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finetune.core.digests import weights_digest
from finetune.core.randomness import Streams

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class BaseModel:
    """Pristine weights in float32 on the CPU, from which every run takes a copy."""

    model: PreTrainedModel
    new: frozenset[str]
    """Parameters drawn from each run's `init` stream: the task's head, and what else the checkpoint does not have."""
    told: tuple[str, ...] = ()
    """What a person should know of how the checkpoint fits the model, and of what was said while it was loaded."""
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What others have computed from these weights, kept as long as they are."""

    @cached_property
    def digest(self) -> str:
        """A hash of the pretrained weights."""
        return weights_digest({name: value for name, value in self.model.named_parameters() if name not in self.new})

    def tell(self, say: Callable[[str], None]) -> None:
        """Say once what :attr:`told` holds."""
        for line in self.told if self.kept.setdefault("tell", True) else ():
            say(f"base model · {line}")
        self.kept["tell"] = False

    def copy(self, streams: Streams) -> PreTrainedModel:
        """A copy whose new parameters are drawn from ``streams``' `init` stream."""
        model = copy.deepcopy(self.model)
        with streams.globally("init"):
            initialise(model, self.new)
        return model


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
