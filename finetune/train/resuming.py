"""Training goes on from where checkpoints stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from finetune.replicas.group import Replica
from finetune.train import checkpoint
from finetune.train.accumulation import Accumulation
from finetune.train.optimizer import Moments, restore_moments
from finetune.train.state import Position, ReplicaState
from finetune.train.weights import Weights, keep


def resumed(
    replicas: Sequence[Replica], weights: Weights, optimizer: Any, accumulation: Accumulation
) -> tuple[Position, list[ReplicaState], list[dict[str, torch.Tensor]]]:
    """Put in place what the replicas' newest checkpoints hold, which have to be of one step.

    Gives where they stand, and of each replica its state and its best weights so far; the start, where there is no
    checkpoint.
    """
    at, states = Position(), [ReplicaState() for _ in replicas]
    best: list[dict[str, torch.Tensor]] = [{} for _ in replicas]
    moments, remembered = list[Moments](), list[dict[str, torch.Tensor]]()
    for number, replica in enumerate(replicas):
        found = checkpoint.load(replica.folder.checkpoints)
        if found:
            saved, tensors = found
            states[number] = ReplicaState(**saved["replica"])
            at = Position(**saved["position"]).scaled(len(replicas))
            best[number] = keep(tensors.get("best", {}), accumulation.runtime.cache)
            moments.append(tensors.get("optimizer", {}))
            remembered.append(tensors.get("techniques", {}))
            weights.put(number, tensors["weights"])
    if moments:
        at = replace(at, resumed=at.resumed + 1)
        restore_moments(optimizer, moments)
        accumulation.group.hooks.resume(
            {name: torch.stack([own[name] for own in remembered]) for name in remembered[0]}
        )
        accumulation.resume(at.part, at.flops_per_token, at.phases)
    return at, states, best
