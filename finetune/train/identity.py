"""The self-check of the seeds: two seeds that are secretly the same run are an error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from finetune.core.digests import weights_digest
from finetune.core.errors import SameRun
from finetune.core.examples import Example
from finetune.core.randomness import Streams
from finetune.strategies.base import set_training_mode, trained_parameters


def identity(model: torch.nn.Module, first: Sequence[Example], streams: Streams) -> dict[str, Any]:
    """Compute the identity of a run, whose ``first`` batch holds these examples: it tells the run from those under
    other seeds before it begins.

    Hashes of the initial trained weights and of the first batch, and the dropout seed where dropout is active.
    """
    batch = hashlib.sha256()
    for example in first:
        # What the model will see, not the example's number: another split numbers other examples alike.
        batch.update(example.inputs["input_ids"].tobytes() + b"|")
    set_training_mode(model)  # which turns dropout off in frozen parts
    return {
        "initial_weights": weights_digest(trained_parameters(model))[:16],
        "first_batch": batch.hexdigest()[:16],
        "dropout": streams.seed_of("dropout") if drops(model) else None,
        # Those of a crossed design have been found to matter, also where none of the above shows it.
        **({"own": dict(streams.own)} if streams.own else {}),
    }


def drops(model: torch.nn.Module) -> bool:
    """Tell whether dropout is at work anywhere in a model in training mode."""
    return any(map(_drops, model.modules()))


def _drops(module: torch.nn.Module) -> bool:
    """Tell whether dropout is at work in this module: it is a layer of dropout, or keeps a rate to pass to a
    function."""
    own = [value for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]
    shares = [module.p] if isinstance(module, torch.nn.Dropout) else own
    return module.training and any(share > 0 for share in shares)


def check_distinct(start: Mapping[str, Any], other_seeds: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise :class:`SameRun` when another seed's result, in ``other_seeds``, has the identity ``start``."""
    for seed, sister in other_seeds.items():
        if sister.get("identity") == start:
            raise SameRun(
                f"this seed starts from the same weights, batch and dropout as seed {seed}: counting both would count "
                "one run twice. Let more streams vary (`vary: [init, order, dropout]`)"
            )
