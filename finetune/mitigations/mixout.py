"""Mixes the trained weights with the pretrained ones, at random in every step, where dropout would mix them with zero
(Lee et al. 2020, section 3)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation

if TYPE_CHECKING:
    import torch

    from finetune.core.hooks import TrainingState

OWN = int.from_bytes(b"mixout", "big")
"""Part of the address of each draw, so that no other hook draws the same."""


class MixoutOptions(Options):
    """How much is mixed."""

    type: Literal["mixout"]
    p: float = Field(0.1, ge=0, lt=1)
    """Probability with which an input of a layer meets its pretrained weights in a step; 0: the weights stay as they
    are, and dropout is off. Zhang et al. 2021 and Du & Nguyen 2023 use 0.1; Lee et al. 2020 use 0.7 to 0.9 for
    BERT-large."""


@MITIGATIONS.register
class Mixout(Mitigation):
    """Mixes trained weights with the pretrained ones at random in every step, in dropout's place.

    In each step, and for each linear layer, some of its inputs (each with probability p) meet the pretrained weights W0
    instead of the trained W. The others meet W0 + (W - W0) / (1 - p), so that the mean over steps is W, and their
    gradient carries the same 1 / (1 - p). What is drawn is a layer's inputs, all weights of one together, as the paper
    does; a draw for each weight by itself is what it calls mixconnect. Mixed are the weights of linear layers, as in
    the authors' code, and not embeddings, biases or norms; nor the head, which has nothing to be mixed with. An output
    layer that is tied to the embeddings counts as one of them. Mixout stands in dropout's place, which is off in
    training; scoring knows neither of the two.

    Source: Lee, Cho & Kang 2020, "Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models",
    section 3. The authors' code leaves 1 / (1 - p) out of the gradient; here it is the gradient of what is computed.

    Not for: adapters and probes, of which nothing that learns has a pretrained value; a task far from pretraining,
    where the pretrained weights are no good place to stay near.
    """

    name: ClassVar[str] = "mixout"
    Options = MixoutOptions

    options: MixoutOptions

    @property
    def can_shard(self) -> bool:
        return False  # puts mixed weights into the layers themselves

    def check(self, model: torch.nn.Module, fresh: frozenset[str], at: str) -> None:
        learning = {name for name, value in model.named_parameters() if value.requires_grad}
        if not linear_layers(model, learning - fresh):
            found = "'mixout' has nothing to mix: no linear layer learns that has pretrained weights"
            raise bad_input(at, found, "use strategy full or partial, or leave mixout out")

    def begin(self, training_state: TrainingState) -> None:
        super().begin(training_state)
        layers = linear_layers(training_state.model, training_state.pretrained)
        self._layers = layers if self.options.p else {}
        self._starts = {name: training_state.parameters[name].detach().clone() for name in self._layers}
        self._shares: dict[str, torch.Tensor] = {}
        self._drawn: int | None = None
        """The step whose draws are in ``_shares``: all parts of a batch meet the same weights."""

    @contextmanager
    def passing(self) -> Iterator[None]:
        if self._drawn != self.training_state.step:
            self._shares = {name: self._draw(name) for name in self._layers}
            self._drawn = self.training_state.step
        # In evaluation mode there is no dropout, wherever a model keeps its probabilities.
        training = [module for module in self.training_state.model.modules() if module.training]
        places: dict[str, Any] = {name: layer._parameters for name, layer in self._layers.items()}
        own = {name: place["weight"] for name, place in places.items()}
        try:
            for module in training:
                module.training = False
            for name, place in places.items():
                # Put where the layer looks for its weight, so that the gradient comes to the parameter through it.
                place["weight"] = mixed(own[name], self._starts[name], self._shares[name])
            yield
        finally:
            for name, place in places.items():
                place["weight"] = own[name]
            for module in training:
                module.training = True

    def _draw(self, name: str) -> torch.Tensor:
        """Draw the factor of W - W0 in this step, 0 or 1 / (1 - p): (R, 1, inputs), or transposed where the weight
        is."""
        outputs = -1 if _is_transposed(self._layers[name]) else -2
        inputs = self._starts[name].select(outputs, 0)  # as many draws as a layer has inputs, of each replica its own
        number = list(self.training_state.parameters).index(name)
        kept = self.training_state.uniform(inputs, self.training_state.step, number, OWN) >= self.options.p
        return (kept / (1 - self.options.p)).unsqueeze(outputs)


def mixed(weight: torch.Tensor, start: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Move ``share`` of the way from ``start`` to ``weight``. With 0 for the weights that are mixed out and 1 / (1 - p)
    for the others it is the paper's (mask W0 + (1 - mask) W - p W0) / (1 - p)."""
    return start + (weight - start) * share


def linear_layers(model: torch.nn.Module, names: Collection[str]) -> dict[str, torch.nn.Module]:
    """Find the linear layers whose weight is one of ``names``, by that name; stacked ones too."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if f"{name}.weight" in names and isinstance(_plain(module), torch.nn.Linear | Conv1D)
    }


def _is_transposed(layer: torch.nn.Module) -> bool:
    """Tell whether a layer's weight is (inputs, outputs)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(_plain(layer), Conv1D)


def _plain(module: torch.nn.Module) -> Any:
    """Give the module that a stacked one stands in for, or the module itself."""
    return getattr(module, "plain", module)
