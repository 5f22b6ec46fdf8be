"""An optimizer of our own: one rule, or two, over weights and memory in any storage, for R runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch

from finetune.core.compute import ComputeOptions
from finetune.core.randomness import Streams
from finetune.train.dropout import LANES, LEVELS
from finetune.train.rules import ELEMENTWISE, RULES
from finetune.train.storage import BLOCK, SCALES, Storage

ROUNDING = -1
"""Begins the addresses of random roundings in a stream: what others draw from it is by step, from 0."""


PART = 1 << 18
"""Weights of each run that take a step at once: a multiple of the blocks that share a scale."""


class RuleOptimizer(torch.optim.Optimizer):
    """Takes the steps of the rule that each group of parameters names as its `rule`.

    What it keeps of a parameter begins with R where R > 1 runs are stacked in it, and is flat where the rule is one for
    each weight; with `compute.offload` it lies in the host's memory. Its random roundings are drawn from each run's
    `noise` stream, by step and parameter, on the parameter's device.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], compute: ComputeOptions, streams: Sequence[Streams], **settings: Any
    ):
        """``settings``: defaults of the groups."""
        super().__init__(groups, {"rule": "adamw", **settings})
        self.storage, self.streams, self.offloads = Storage(compute), streams, compute.offload
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
        state = self.state[parameter]
        state["step"] = state.get("step", torch.tensor(0.0)) + 1
        step, weights, gradient = int(state["step"]), self._stacked(parameter), self._stacked(parameter.grad)
        drawn, size = _Drawn(self.streams, (step, self._numbers[parameter]), parameter.device), weights[0].numel()
        parts: list[slice | None] = [None]
        if group["rule"] in ELEMENTWISE:  # part by part: what is computed on the way takes several times their memory
            weights, gradient = weights.flatten(1), gradient.flatten(1)
            parts = [slice(start, min(start + PART, size)) for start in range(0, size, PART)]
        for part in parts:
            own = weights if part is None else weights[:, part]
            slope = gradient if part is None else gradient[:, part]
            names = [] if step == 1 else [name for name in state if name != "step"]
            kept = {name: self._part(state, name, part).to(own.device, non_blocking=True) for name in names}
            memory = self.storage.recall(kept)
            new, memory = RULES[group["rule"]](self.storage.read(own, kept), slope.float(), memory, step, group)
            kept = {**self.storage.write(own, new, drawn), **self.storage.remember(memory, drawn, size)}
            for name, value in kept.items():
                if name not in state:
                    state[name] = self._room(name, value, part, size)
                self._part(state, name, part).copy_(value)

    def _room(self, name: str, value: torch.Tensor, part: slice | None, size: int) -> torch.Tensor:
        """Make room for what is kept of all parts of a parameter, of which ``value`` is one's."""
        length = -(-size // BLOCK) if name.endswith(SCALES) else size
        shape = value.shape if part is None else (len(value), length)
        # Of pinned pages a GPU takes copies while it computes.
        host = self.offloads
        place = torch.device("cpu") if host else value.device
        found = torch.empty(shape, dtype=value.dtype, device=place, pin_memory=host and value.is_cuda)
        return found if len(self.streams) > 1 else found[0]

    def _part(self, state: Mapping[str, Any], name: str, part: slice | None) -> torch.Tensor:
        """View what is kept of one part, (R, ...)."""
        found = self._stacked(state[name])
        if part is None:
            return found
        by = BLOCK if name.endswith(SCALES) else 1
        return found[:, part.start // by : -(-part.stop // by)]

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
            device = torch.device("cpu") if self.offloads else places[number].device
            own = {name: value if name == "step" else value.to(device) for name, value in entry.items()}
            if self.offloads and places[number].is_cuda:
                own = {name: value if name == "step" else value.pin_memory() for name, value in own.items()}
            self.state[places[number]] = own


class _Drawn:
    """Random bits of one parameter at one step: of each run from its own stream, others at each call."""

    def __init__(self, streams: Sequence[Streams], address: tuple[int, int], device: torch.device):
        self.streams, self.address, self.device, self.calls = streams, address, device, 0

    def __call__(self, shape: torch.Size) -> torch.Tensor:
        count = prod(shape[1:])
        words = torch.empty(shape[0], -(-count // LANES), dtype=torch.int64, device=self.device)
        for own, streams in zip(words, self.streams, strict=True):
            seed = streams.seed_of("noise", ROUNDING, *self.address, self.calls)
            own.random_(generator=torch.Generator(self.device).manual_seed(seed))
        self.calls += 1
        return ((words.view(torch.int16)[:, :count].int() & (LEVELS - 1)) << 1).view(shape)
