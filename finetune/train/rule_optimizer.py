"""An optimizer of our own: one rule, or two, over weights and memory in any storage, for R runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from finetune.core.compute import ComputeOptions
from finetune.core.randomness import Streams
from finetune.train.rules import RULES
from finetune.train.storage import Storage

ROUNDING = -1
"""Begins the addresses of random roundings in a stream: what others draw from it is by step, from 0."""


class RuleOptimizer(torch.optim.Optimizer):
    """Takes the steps of the rule that each group of parameters names as its `rule`.

    What it keeps of a parameter is of the parameter's own shape, (R, ...) where R > 1 runs are stacked in it, but for
    the scales of 8 bits. Its random roundings are drawn from each run's `noise` stream, by step and parameter, on the
    parameter's device.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], compute: ComputeOptions, streams: Sequence[Streams], **settings: Any
    ):
        """``settings``: defaults of the groups."""
        super().__init__(groups, {"rule": "adamw", **settings})
        self.storage, self.streams = Storage(compute), streams
        every = [parameter for group in self.param_groups for parameter in group["params"]]
        self._numbers = {parameter: number for number, parameter in enumerate(every)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step with the gradients that are there."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: torch.Tensor, group: Mapping[str, Any]) -> None:
        count, state = len(self.streams), self.state[parameter]
        stacked = {name: self._stacked(value) for name, value in state.items() if name != "step"}
        step = int(state.get("step", torch.tensor(0.0))) + 1
        drawn = _Drawn(self.streams, (step, self._numbers[parameter]), parameter.device)
        weights = self._stacked(parameter)
        values, memory = self.storage.read(weights, stacked), self.storage.recall(stacked)
        new, memory = RULES[group["rule"]](values, self._stacked(parameter.grad).float(), memory, step, group)
        kept = {**self.storage.write(weights, new, drawn), **self.storage.remember(memory, drawn)}
        state["step"] = torch.tensor(float(step))
        for name, value in kept.items():  # in place, so that a step can be undone for some of the runs
            own = value if count > 1 else value[0]
            state[name] = state[name].copy_(own) if name in state else own

    def _stacked(self, value: Any) -> torch.Tensor:
        """View what is of one run as what is of R = 1 runs: (R, ...)."""
        found: torch.Tensor = value.detach()
        return found if len(self.streams) > 1 else found[None]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what ``state_dict()`` gave, in the types that it is in: torch's own would bring all of it to the
        parameters' type."""
        places = [parameter for group in self.param_groups for parameter in group["params"]]
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        for number, entry in state_dict["state"].items():
            device = places[number].device
            own = {name: value if name == "step" else value.to(device) for name, value in entry.items()}
            self.state[places[number]] = own


class _Drawn:
    """Random bits of one parameter at one step: of each run from its own stream, others at each call."""

    def __init__(self, streams: Sequence[Streams], address: tuple[int, int], device: torch.device):
        self.streams, self.address, self.device, self.calls = streams, address, device, 0

    def __call__(self, shape: torch.Size) -> torch.Tensor:
        found = torch.empty(shape, dtype=torch.int32, device=self.device)
        for own, streams in zip(found, self.streams, strict=True):
            seed = streams.seed_of("noise", ROUNDING, *self.address, self.calls)
            own.random_(0, 1 << 16, generator=torch.Generator(self.device).manual_seed(seed))
        self.calls += 1
        return found
