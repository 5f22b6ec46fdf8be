"""The frozen prefix: what the frozen bottom of a model makes of an example is computed once, and remembered.

Below the lowest block that learns nothing changes, neither from step to step nor from seed to seed; AutoFreeze (Liu
et al. 2021) caches it for one run. Here all runs of a study share it, in training and in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune.core.digests import form_digest, text_digest
from finetune.core.encoded import Examples
from finetune.core.examples import Batch, Example, lengths_of
from finetune.core.memory import room_on_disk
from finetune.core.runtime import Runtime
from finetune.strategies.blocks import find_blocks, heights
from finetune.tasks.base import Task
from finetune.tasks.batching import Batching, cut

IN_MEMORY = 1 << 30
"""Bytes of one array up to which it is kept in memory; larger ones are mapped from disk."""


@dataclass
class Remembered:
    """Examples of one set, such as a split, and the prefix's activations for those that it has seen."""

    places: np.ndarray
    """(examples,) each one's place in the set, ascending."""
    starts: np.ndarray
    """(examples,) the first position of each in the arrays."""
    positions: int
    seen: np.ndarray
    """(examples,) bool."""
    arrays: dict[str, torch.Tensor] = field(default_factory=dict)
    """By name of the output: (positions, ...), or (examples, ...) for an output without positions."""
    by_position: set[str] = field(default_factory=set)
    by_row: set[str] = field(default_factory=set)
    """Those that have one value for each of an example's several rows, kept where the row's first position is."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Remembered:
        places, lengths = _places(examples), lengths_of(examples)
        order = np.argsort(places, kind="stable")
        ends = np.cumsum(lengths[order])
        return cls(places[order], ends - lengths[order], int(ends[-1]), np.zeros(len(order), dtype=bool))

    def numbers(self, examples: Sequence[Example]) -> np.ndarray:
        """Find which of its examples these are: (examples,), -1 where it has not one."""
        places = _places(examples)
        found = np.searchsorted(self.places, places).clip(max=len(self.places) - 1)
        return np.where(self.places[found] == places, found, -1)


def _places(examples: Sequence[Example]) -> np.ndarray:
    """Give each example's place in its set, (examples,); -1: it is in none."""
    if isinstance(examples, Examples):
        return np.arange(len(examples))
    return np.array([-1 if example.origin is None else example.origin[1] for example in examples], dtype=np.int64)


class Activations:
    """The activations of one frozen prefix for the examples it has seen; shared by all runs over the same base
    model."""

    def __init__(self, folder: Path):
        """Arrays too large for memory go to ``folder``, and vanish with the process."""
        self.folder = folder
        self.restore: Callable[[dict[str, torch.Tensor]], Any] | None = None
        """Makes the prefix's output of its tensors."""
        self._sets: dict[int, Remembered] = {}

    def announce(self, examples: Sequence[Example]) -> None:
        """Note that ``examples``, of one set, are to be remembered when they pass. Of no set, they are not."""
        origin = examples[0].origin if len(examples) else None
        if origin is not None and origin[0] not in self._sets:
            self._sets[origin[0]] = Remembered.of(examples)

    def find(self, examples: Sequence[Example]) -> Remembered | None:
        """Find the set in which all these examples were announced, if there is one."""
        sets = {None if example.origin is None else example.origin[0] for example in examples}
        own = sets.pop() if len(sets) == 1 else None
        found = None if own is None else self._sets.get(own)
        return found if found is not None and (found.numbers(examples) >= 0).all() else None

    def has(self, examples: Sequence[Example]) -> bool:
        """Tell whether all these examples, of one set, are remembered."""
        found = self.find(examples)
        return found is not None and bool(found.seen[found.numbers(examples)].all())

    def missing(self, examples: Sequence[Example]) -> list[int]:
        """List the places, in the sequence, of those examples that were announced and are not remembered."""
        found = self.find(examples[:1])
        if found is None:
            return list(range(len(examples)))
        return np.flatnonzero(~found.seen[found.numbers(examples)]).tolist()

    def write(
        self,
        examples: Sequence[Example],
        layout: Layout,
        outputs: Mapping[str, torch.Tensor],
        restore: Callable[[dict[str, torch.Tensor]], Any],
    ) -> None:
        """Remember the prefix's activations for ``examples``: (rows, T, ...), or (examples, ...) each. ``restore``
        makes the prefix's output of such tensors."""
        self.restore = restore
        kept = self._announced(examples)
        for name, value in outputs.items():
            by_position = value.ndim > 2
            if by_position:
                kept.by_position.add(name)
            elif len(value) > len(examples):
                kept.by_row.add(name)
            if name not in kept.arrays:
                count = len(kept.places) if name not in kept.by_position | kept.by_row else kept.positions
                kept.arrays[name] = self._room((count, *value.shape[2 if by_position else 1 :]), value.dtype)
            array = kept.arrays[name]
            if by_position:
                rows, columns = (layout.example >= 0).nonzero(as_tuple=True)
                array[self._positions(kept, examples, layout)[rows, columns]] = value[rows, columns].to(array.device)
            elif name in kept.by_row:
                array[self._positions(kept, examples, layout)[:, 0]] = value.to(array.device)
            else:
                array[torch.from_numpy(kept.numbers(examples))] = value.to(array.device)
        kept.seen[kept.numbers(examples)] = True

    def read(self, examples: Sequence[Example], layout: Layout) -> dict[str, torch.Tensor]:
        """Read the activations for ``examples``, laid out like the batch; what stands at padding means nothing."""
        kept = self._announced(examples)
        places, numbers = self._positions(kept, examples, layout), torch.from_numpy(kept.numbers(examples))
        where = dict.fromkeys(kept.by_position, places) | dict.fromkeys(kept.by_row, places[:, 0])
        return {name: array[where.get(name, numbers)] for name, array in kept.arrays.items()}

    def _announced(self, examples: Sequence[Example]) -> Remembered:
        found = self.find(examples)
        assert found is not None, "examples that were not announced"
        return found

    @staticmethod
    def _positions(kept: Remembered, examples: Sequence[Example], layout: Layout) -> torch.Tensor:
        """Find where in the arrays each position of the batch stands: (rows, T); 0 for padding."""
        starts = torch.from_numpy(kept.starts[kept.numbers(examples)])
        return torch.where(layout.example < 0, 0, starts[layout.example.clamp(min=0)] + layout.position)

    def _room(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Make room for an array, in memory or on disk."""
        with torch.inference_mode(False):  # a tensor made in inference mode could not be trained on
            if math.prod(size) * dtype.itemsize <= IN_MEMORY:
                return torch.empty(size, dtype=dtype)
            return room_on_disk(size, dtype, self.folder)


@dataclass(frozen=True)
class Layout:
    """Where each example stands in a batch."""

    example: torch.Tensor
    """(rows, T) on the CPU: index of the example in the batch's list; -1 at padding."""
    position: torch.Tensor
    """(rows, T) on the CPU: position inside the example."""

    @classmethod
    def of(cls, batch: Batch) -> Layout:
        """Read the layout of a collated batch."""
        position = batch.positions if batch.place is None else batch.place
        return cls(batch.example.cpu(), position.cpu())


def find_prefix(model: torch.nn.Module) -> list[str]:
    """Name the modules at the bottom in which nothing learns: the whole base model, or its first blocks.

    Empty where something learns all the way down, and for encoder-decoder models, whose decoder's blocks see more
    than what is below them. To be asked in training mode: where dropout is at work, nothing can be remembered.
    """
    wrapped: Any = model
    inner = wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped
    if not hasattr(inner, "base_model") or getattr(inner.config, "is_encoder_decoder", False):
        return []
    base = inner.base_model
    names = {id(module): name for name, module in model.named_modules()}
    if base is not inner and not any(parameter.requires_grad for parameter in base.parameters()):
        return [names[id(base)]] if not _training(base) else []
    blocks = [f"{names[id(base)]}.{block}".lstrip(".") for block in find_blocks(base)]
    learning = [height for name, height in heights(base).items() if base.get_parameter(name).requires_grad]
    lowest = min(learning, default=len(blocks) + 1)
    return list(takewhile(lambda block: not _training(model.get_submodule(block)), blocks[: max(lowest - 1, 0)]))


def bottom_digest(model: torch.nn.Module, names: Sequence[str]) -> str:
    """Hash all that the prefix ``names`` computes with: frozen weights up to its end, as they are packed on the device,
    buffers, classes, and the model's configuration. Seeds have it in common; another quantisation has not."""
    wrapped: Any = model
    base = (wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped).base_model
    whole = any(model.get_submodule(name) is base for name in names)
    above = tuple(f"{block}." for block in find_blocks(base)[0 if whole else len(names) :])
    height = heights(base)
    weights = {name: value for name, value in base.named_parameters() if whole or height[name] <= len(names)}
    buffers = {name: value for name, value in base.named_buffers() if whole or not name.startswith(above)}
    kinds = [type(module).__qualname__ for name in names for module in model.get_submodule(name).modules()]
    return text_digest(str([kinds, form_digest(base, {**weights, **buffers})]))


def _training(module: torch.nn.Module) -> bool:
    return any(inner.training for inner in module.modules())


class CannotRemember(Exception):
    """The prefix's outputs are not laid out by row and position."""


class _End(Exception):
    """The prefix has run, and nothing above it needs to."""


class Prefix:
    """Puts remembered activations in the place of a model's frozen bottom, while it is open."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str], store: Activations):
        self.modules = [model.get_submodule(name) for name in names]
        self.store, self.names = store, list(names)
        self._stop = False
        self._ready: Any = None
        self._catch: Callable[[Any], None] | None = None
        for module in self.modules:
            module.forward = self._around(module, module.forward)

    def close(self) -> None:
        """Let the model compute everything itself again."""
        for module in self.modules:
            del module.forward

    @contextmanager
    def on(self, examples: Sequence[Example], batch: Batch) -> Iterator[None]:
        """Within the context the model is called on ``batch``, which holds ``examples``.

        What is remembered is used; what was announced, and is not yet, is remembered where no gradient flows.
        """
        layout = Layout.of(batch)
        if self.store.restore is not None and self.store.has(examples):
            device = batch.example.device
            found = self.store.read(examples, layout)
            self._ready = self.store.restore({name: value.to(device) for name, value in found.items()})
        elif not torch.is_grad_enabled() and self.store.find(examples) is not None:
            self._catch = lambda output: self._remember(examples, layout, output)
        try:
            yield
        finally:
            self._ready = self._catch = None

    def fill(
        self, model: torch.nn.Module, task: Task, examples: Sequence[Example], runtime: Runtime, size: int
    ) -> None:
        """Remember all of ``examples``, ``size`` at once; the model above the prefix does not run."""
        self.store.announce(examples)
        missing, lengths = np.array(self.store.missing(examples), dtype=np.int64), lengths_of(examples)
        batches = [*cut(missing[np.argsort(-lengths[missing], kind="stable")], lengths, size, task.batching)]
        for batch in runtime.track(batches, "filling the prefix store"):
            self._bottom(model, task, [examples[index] for index in batch], runtime)

    def holds(self, model: torch.nn.Module, task: Task, examples: Sequence[Example], runtime: Runtime) -> bool:
        """Tell whether the prefix computes the same for ``examples`` once more, with the model as it is in training."""
        examples = examples[:1] if task.batching >= Batching.SAME_LENGTH else examples
        filled, self.store = self.store, Activations(self.store.folder)
        self.store.announce(examples)
        with torch.random.fork_rng(devices=[runtime.device] if runtime.device.type == "cuda" else []):
            self._bottom(model, task, examples, runtime)
        fresh, self.store = self.store, filled
        batch = Layout.of(task.arranged(model, task.collate(examples)))
        before, now = filled.read(examples, batch), fresh.read(examples, batch)
        real = batch.example >= 0
        for name, value in now.items():
            one, other = (found[real] if found.ndim > 2 else found for found in (before[name].float(), value.float()))
            # Rounding differs with the other examples in a batch; what dropout does is far larger.
            if (one - other).norm() > 0.05 * other.norm():
                return False
        return True

    def _bottom(self, model: torch.nn.Module, task: Task, examples: Sequence[Example], runtime: Runtime) -> None:
        """Run the model up to the end of the prefix."""
        batch = task.batch_for(model, examples, runtime.device)
        self._stop = True
        try:
            with torch.no_grad(), runtime.autocast(), self.on(examples, batch):
                task.losses(model, batch)
        except _End:
            return
        finally:
            self._stop = False

    def _remember(self, examples: Sequence[Example], layout: Layout, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            tensors, restore = {"": output}, lambda found: found[""]
        elif isinstance(output, Mapping):
            kind = type(output)
            tensors = {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}
            restore = lambda found: kind(**found)  # noqa: E731
        else:
            tensors, restore = {"": output[0]}, lambda found: (found[""], *[None] * (len(output) - 1))
        if any(value.ndim > 2 and value.shape[:2] != layout.example.shape for value in tensors.values()):
            raise CannotRemember  # channels before positions (SqueezeBERT), or fewer positions (Funnel)
        self._catch = None
        self.store.write(examples, layout, tensors, restore)

    def _around(self, module: torch.nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        last = module is self.modules[-1]

        def instead(*args: Any, **kwargs: Any) -> Any:
            if self._ready is not None:
                # Lower blocks hand on what they were given; only the last one's output is used.
                return self._ready if last else (args[0] if args else kwargs["hidden_states"])
            output = forward(*args, **kwargs)
            if last and self._catch is not None:
                self._catch(output)
                if self._stop:
                    raise _End
            return output

        return instead
