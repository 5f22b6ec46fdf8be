"""The facts of a run's training that its result holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune.train.accumulation import Accumulation
from finetune.train.meters import peak_flops
from finetune.train.state import Position, ReplicaState


def training_facts(
    replica: ReplicaState, at: Position, accumulation: Accumulation, group: Sequence[ReplicaState], steps_per_epoch: int
) -> dict[str, Any]:
    """Collect the facts of one run. Its seconds are its share of those of its ``group``; the speed is the group's."""
    return {
        "steps": replica.steps,
        "epochs": round(replica.steps / steps_per_epoch, 4),
        "examples": replica.examples,
        "tokens": replica.tokens,
        "tokens_per_second": round(speed(group, at), 1),
        "padding": round(1 - replica.tokens / max(replica.padded, 1), 4),
        "utilisation": utilisation(group, at, accumulation),
        "flops": None if accumulation.flops_per_token is None else round(accumulation.flops_per_token * replica.padded),
        "phases": {phase: round(seconds / len(group), 3) for phase, seconds in accumulation.meter.seconds.items()},
        "replicas": len(group),
        "part": accumulation.size if accumulation.size < len(accumulation.examples) else None,
        "stopped_early": replica.stopped_early,
        "resumed": at.resumed,
        **({} if replica.scale is None else {"overflowed": replica.overflowed}),
        "seconds": round(at.seconds / len(group), 3),
    }


def note(losses: Sequence[float], group: Sequence[ReplicaState], at: Position) -> str:
    """Write the note on a step that the progress line shows."""
    return f"loss {sum(losses) / len(losses):.3f} · {speed(group, at):,.0f} tokens/s"


def speed(group: Sequence[ReplicaState], at: Position) -> float:
    """Compute tokens per second of training, of all runs together."""
    return sum(replica.tokens for replica in group) / _training_seconds(at)


def utilisation(group: Sequence[ReplicaState], at: Position, accumulation: Accumulation) -> float | None:
    """Compute the model FLOPs utilisation (Chowdhery et al. 2022, appendix B): the share that training reached of this
    machine's own fastest matrix product. Padding counts as work."""
    if accumulation.flops_per_token is None:
        return None
    runtime = accumulation.runtime
    padded = sum(replica.padded for replica in group) / runtime.accelerator.num_processes
    return round(
        accumulation.flops_per_token * padded / _training_seconds(at) / peak_flops(runtime.device, runtime.dtype), 4
    )


def _training_seconds(at: Position) -> float:
    return max(at.seconds - at.seconds_validating, 1e-9)
