"""A mitigation under way, without a training loop around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from finetune.core.hooks import TrainingState
from finetune.core.randomness import Streams

EXACT = 1e-6
"""How far two runs may be apart that are the same: without mitigations, rows of the embeddings that no example uses are
decayed at once instead of step by step."""


def training_state(
    parameters: Mapping[str, torch.Tensor] | torch.nn.Module,
    seeds: Iterable[int] = (0,),
    steps: int = 100,
    fresh: Iterable[str] = (),
) -> TrainingState:
    """Training of ``parameters``, or of all of a model's, as the loop shows it to techniques."""
    model = parameters if isinstance(parameters, torch.nn.Module) else torch.nn.Module()
    named = dict(model.named_parameters()) or {name: torch.nn.Parameter(value) for name, value in parameters.items()}
    return TrainingState(model, named, frozenset(fresh), list(map(Streams, seeds)), steps, lambda examples: None, [])


def begun(mitigation: type, training: TrainingState, **options):
    """A mitigation with its options, at the start of ``training``."""
    made = mitigation(mitigation.Options(type=mitigation.name, **options))
    made.begin(training)
    return made
