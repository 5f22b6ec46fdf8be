"""One part of a training step, as a mitigation meets it, on tiny models without the loop around it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from finetune.core.hooks import TrainingHooks, TrainingState
from finetune.core.randomness import Streams
from finetune.core.registry import MITIGATIONS
from finetune.strategies.base import trained_parameters
from finetune.tasks.causal.packing import unpacked
from finetune.train.accumulation import Accumulation
from finetune.train.kernels import Kernels
from tests.train.workbench import Bench


def make(name: str, **options: Any) -> Any:
    """A mitigation of that name."""
    found = MITIGATIONS.get(name)
    return found(found.Options(type=name, **options))


class Part:
    """Some of a bench's examples under way through a model in training."""

    def __init__(
        self,
        bench: Bench,
        mitigation: Any,
        places: Sequence[int] = range(6),
        model: Any = None,
        packed: bool = True,
        fresh: frozenset[str] = frozenset(),
    ):
        """``places`` are those of the examples; where they can be packed into rows and are not, one stands a row."""
        self.task, self.places, self.mitigation = bench.task, list(places), mitigation
        self.model = bench.model() if model is None else model
        if model is None and bench.task.new_head:
            self.model.classifier.weight.data *= 20  # from a small first draw: what it says depends on the text
        self.model.train()
        self.task.loss_path(self.model)  # which tries the model out, and is asked before training
        batch = self.task.collate([bench.examples[place] for place in places])
        self.batch = self.task.arranged(self.model, batch) if packed else unpacked(batch)
        seeds = [Streams(0).seed_of("dropout", 0, place) for place in self.places]
        self._seeds = SimpleNamespace(seeds=torch.tensor(seeds))
        parameters, streams = trained_parameters(self.model), [Streams(0)]
        self.training_state = TrainingState(self.model, parameters, fresh, streams, 1, self._gradients, bench.examples)
        self.training_state.batch = self.batch
        mitigation.begin(self.training_state)

    def _gradients(self, examples: Any) -> None:
        losses = self.task.losses(self.model, self.task.collate(examples))
        (losses.sum() / sum(example.weight for example in examples)).backward()

    def masks(self) -> Any:
        """The examples' random numbers, from the first on."""
        return Accumulation._masks(self._seeds, self.batch)

    @contextmanager
    def _pass(self) -> Any:
        self.training_state.noise = self.masks()
        with self.mitigation.passing(), Kernels(self.training_state.noise):
            yield

    def losses(self) -> torch.Tensor:
        """(N,), as training computes them, with their graph."""
        with self._pass():
            return TrainingHooks([self.mitigation]).losses(self.task, self.model, self.batch)

    def plain(self) -> torch.Tensor:
        """(N,), without the mitigation."""
        return self.task.outputs(self.model, self.batch).losses()

    def noises(self) -> list[torch.Tensor]:
        """What :meth:`losses` adds to the embeddings in each pass of the model, (rows, T, D)."""
        with self.listening() as clean, torch.no_grad():
            self.task.outputs(self.model, self.batch)
        with self.listening() as heard:
            self.losses()
        return [each - clean[0] for each in heard]

    @contextmanager
    def listening(self) -> Any:
        """Within the context a list gets what comes into the first module above the embeddings."""
        heard: list[torch.Tensor] = []
        bert = getattr(self.model, "bert", None)
        above = bert.embeddings.LayerNorm if bert is not None else self.model.model.layers[0]
        hook = above.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0].detach()))
        yield heard
        hook.remove()

    def in_company(self) -> int:
        """The number of an example that shares its row with others, where examples are packed, or else with padding."""
        *others, last = max((row.unique().tolist() for row in self.batch.example), key=len)
        assert others
        return last

    @property
    def real(self) -> torch.Tensor:
        """(rows, T): where there is no padding."""
        return self.batch.example >= 0
