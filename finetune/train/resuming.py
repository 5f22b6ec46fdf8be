"""Checkpoints of training: where it stands is written down, and from there it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from finetune.core.errors import FinetuneError
from finetune.core.sharding import Parts, is_sharded
from finetune.replicas.group import Replica
from finetune.train import checkpoint
from finetune.train.accumulation import Accumulation
from finetune.train.optimizer import STEP, Moments, moments_of, restore_moments
from finetune.train.state import Position, ReplicaState
from finetune.train.weights import Weights, keep


def save(
    replicas: Sequence[Replica],
    at: Position,
    states: Sequence[ReplicaState],
    best: Sequence[dict[str, torch.Tensor]],
    weights: Weights,
    optimizer: Any,
    accumulation: Accumulation,
) -> None:
    """Write each replica's checkpoint: the first process does, or all of them together where they hold parts."""
    parts = _parts(weights, optimizer, accumulation)
    if parts is None and not accumulation.runtime.accelerator.is_main_process:
        return
    share = at.scaled(1 / len(replicas))  # it may go on alone, or in another group
    for number, replica in enumerate(replicas):
        checkpoint.save(
            replica.folder.checkpoints,
            at.step,
            {"position": vars(share), "replica": asdict(states[number])},
            {
                "weights": weights.of(number),
                "techniques": {name: value[number] for name, value in accumulation.group.hooks.state().items()},
                "optimizer": moments_of(optimizer, number, len(replicas)),
                "best": best[number],
            },
            parts,
        )
    if accumulation.runtime.accelerator.is_main_process:
        for replica in replicas:  # not before all of them have theirs: they go on from one step
            checkpoint.prune(replica.folder.checkpoints)


def _parts(weights: Weights, optimizer: Any, accumulation: Accumulation) -> Parts | None:
    """Say how a checkpoint is split over processes that hold parts of the model; None: each holds all of it."""
    if not is_sharded(accumulation.group.model):
        return None
    numbered = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def shape_of(path: str) -> tuple[int, ...] | None:
        kind, _, name = path.partition("/")
        if kind == "optimizer":
            number, _, what = name.partition("/")
            of: Any = numbered[int(number)] if number.isdecimal() and what != STEP else None
        else:
            of = weights.parameters[name.partition(".")[2] if kind == "techniques" else name]
        return None if of is None else tuple(of.whole.shape)

    accelerator = accumulation.runtime.accelerator
    return Parts(accelerator.process_index, accelerator.num_processes, shape_of, accelerator.wait_for_everyone)


def resumed(
    replicas: Sequence[Replica], weights: Weights, optimizer: Any, accumulation: Accumulation
) -> tuple[Position, list[ReplicaState], list[dict[str, torch.Tensor]]]:
    """Put in place what the replicas' newest checkpoints of one step hold.

    Gives where they stand, and of each replica its state and its best weights so far; the start, where there is no
    checkpoint.
    """
    at, states = Position(), [ReplicaState() for _ in replicas]
    best: list[dict[str, torch.Tensor]] = [{} for _ in replicas]
    moments, remembered = list[Moments](), list[dict[str, torch.Tensor]]()
    parts = _parts(weights, optimizer, accumulation)
    runtime, folders = accumulation.runtime, [replica.folder.checkpoints for replica in replicas]
    main = runtime.accelerator.is_main_process
    found = runtime.broadcast(checkpoint.newest_of_one_step(folders) if main else None)
    for number, (replica, place) in enumerate(zip(replicas, found, strict=False)):
        saved, tensors = checkpoint.read(place, parts)
        states[number] = ReplicaState(**saved["replica"])
        at = Position(**saved["position"]).scaled(len(replicas))
        best[number] = keep(tensors.get("best", {}), runtime.cache)
        moments.append(tensors.get("optimizer", {}))
        remembered.append(tensors.get("techniques", {}))
        _refuse_other_rows(tensors["weights"], weights.of(number), replica)
        weights.put(number, tensors["weights"])
    if moments:
        at = replace(at, resumed=at.resumed + 1)
        restore_moments(optimizer, moments)
        accumulation.group.hooks.resume(
            {name: torch.stack([own[name] for own in remembered]) for name in remembered[0]}
        )
        accumulation.resume(at.part, at.flops_per_token, at.phases)
    return at, states, best


def _refuse_other_rows(saved: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], replica: Replica) -> None:
    """Refuse a checkpoint of a run that kept what learns otherwise: without the rows of words that no example has."""
    for name, value in saved.items():
        if value.numel() != own[name].numel():
            found = f"its checkpoint has {value.numel():,} numbers of {name}, and this run trains {own[name].numel():,}"
            advice = f"write compute.shard as it was when this run began, or move {replica.folder.checkpoints} away"
            raise FinetuneError(f"{found}; {advice}")
