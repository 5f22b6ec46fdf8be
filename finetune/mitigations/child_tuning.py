"""Tunes a part of the network and runs all of it: Child-Tuning (Xu et al. 2021, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation
from finetune.strategies.base import trained_parameters
from finetune.strategies.blocks import find_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from finetune.core.hooks import TrainingState

OWN = int.from_bytes(b"child", "big")
"""Part of the address of each draw, so that no other hook draws the same."""


class ChildTuningOptions(Options):
    """Which weights are in the child network, the part that learns."""

    type: Literal["child-tuning"]
    mode: Literal["D", "F"] = "D"
    """`D` (task-driven): the weights that matter most for the task, chosen once by their Fisher information. `F`
    (task-free): others at every step, drawn at random, their gradients scaled by 1 / reserve."""
    reserve: float = Field(0.3, gt=0, le=1)
    """Share of the weights that learn. 0.3 is what the authors' script says for both modes; 1 with mode F is plain
    training."""
    fisher_examples: int = Field(256, ge=1)
    """Training examples, evenly spaced, from which mode D estimates Fisher information, each with a pass of its own.
    The authors use all of them, in batches."""


@MITIGATIONS.register
class ChildTuning(Mitigation):
    """Updates only a part of the pretrained weights, chosen at random at every step or once for the task.

    Mode F masks the gradient of every pretrained weight that learns. Mode D ranks the pretrained weights of the blocks
    by their Fisher information, the mean over examples of the squared gradient of an example's loss, measured before
    the first step and without dropout; those that are not among the first keep their pretrained values to the bit, also
    under weight decay, which the authors' optimizer lets through. Embeddings, what lies above the blocks and the head
    always learn under D, as in the authors' code; under F the head does, which their code masks too. Gradients are
    masked before they are clipped, in the authors' code after. That code also squares gradients of whole batches, each
    weight matrix's clipped by itself, which is not Fisher information.

    Source: Xu et al. 2021, "Raise a Child in Large Language Model: Towards Effective and Generalizable Fine-tuning",
    section 2.

    Not for: adapters and probes, which leave the pretrained weights alone anyway. Mode D remembers the starting weights
    and so takes as much memory again as the blocks' weights do.
    """

    name: ClassVar[str] = "child-tuning"
    Options = ChildTuningOptions

    options: ChildTuningOptions
    _child: dict[str, torch.Tensor]
    """Mode D: where the child network is, in the shape of each parameter, by name."""
    _start: dict[str, torch.Tensor]
    """Mode D: the weights that training starts from."""

    def check(self, model: torch.nn.Module, fresh: frozenset[str], at: str) -> None:
        if not self._masked(model, (name for name in trained_parameters(model) if name not in fresh)):
            found = "chooses among pretrained weights that learn, and with this strategy there are none"
            raise bad_input(f"{at}.type", found, "use strategy full or partial, or leave child-tuning out")

    def _masked(self, model: torch.nn.Module, pretrained: Iterable[str]) -> list[str]:
        """Name the parameters that the mode is about."""
        if self.options.mode == "F":
            return list(pretrained)
        blocks = tuple(f"{block}." for block in find_blocks(model))
        return [name for name in pretrained if name.startswith(blocks)]

    def begin(self, training_state: TrainingState) -> None:
        super().begin(training_state)
        information = self._information() if self.options.mode == "D" else {}
        self._start = {name: training_state.parameters[name].detach().clone() for name in information}
        self._child = self._best(information)

    def gradients(self) -> None:
        if self.options.mode == "F":
            self._mask_at_random()
        for name, child in self._child.items():
            gradient = self.training_state.parameters[name].grad
            if gradient is not None:
                gradient.mul_(child)

    def _mask_at_random(self) -> None:
        training_state, reserve = self.training_state, self.options.reserve
        for number, name in enumerate(self._masked(training_state.model, training_state.pretrained)):
            gradient = training_state.parameters[name].grad
            if gradient is not None:
                kept = training_state.uniform(gradient, training_state.step, number, OWN) < reserve
                gradient.mul_(kept).div_(reserve)

    def stepped(self, rate: float) -> None:
        import torch

        for name, child in self._child.items():
            own = self.training_state.parameters[name].detach()
            own.copy_(torch.where(child, own, self._start[name]))

    def state(self) -> dict[str, torch.Tensor]:
        return {name: self.training_state.rows(child) for name, child in self._child.items()}

    def resume(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, rows in state.items():
            child = self._child[name]
            self._child[name] = rows.view_as(child).to(child.device)

    def _information(self) -> dict[str, torch.Tensor]:
        """Compute the Fisher information of each weight (its diagonal, as the data show it), times the number of
        examples."""
        import torch

        training_state, examples = self.training_state, self.training_state.examples
        names = self._masked(training_state.model, training_state.pretrained)
        found = {name: torch.zeros_like(training_state.parameters[name].detach()) for name in names}
        count = min(self.options.fisher_examples, len(examples))
        for number in range(count):
            training_state.gradients([examples[number * len(examples) // count]])
            for name, total in found.items():
                gradient = training_state.parameters[name].grad
                if gradient is not None:
                    total.addcmul_(gradient, gradient)
            for parameter in training_state.parameters.values():
                parameter.grad = None
        return found

    def _best(self, information: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Find the `reserve` share of each replica's weights with the most information: a mask. Weights without any
        information are never among them, even where this leaves fewer than the share."""
        import torch

        if not information:
            return {}
        rows = torch.cat([self.training_state.rows(value).cpu() for value in information.values()], 1)
        dropped = rows.shape[1] - round(self.options.reserve * rows.shape[1])
        # On the CPU, where the k-th smallest of so many numbers is found deterministically.
        least = rows.kthvalue(dropped, 1).values if dropped else rows.new_full((len(rows),), -1.0)
        child = {}
        for name, value in information.items():
            own = self.training_state.rows(value)
            child[name] = ((own > least[:, None].to(own.device)) & (own > 0)).view_as(value)
        return child
