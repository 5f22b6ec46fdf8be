"""Chooses, by measuring, how many seeds of a variant to train side by side, how many tokens a micro-batch has, and
whether to compile the model."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune import models
from finetune.core.errors import FinetuneError, Interrupted, StudyEnded, first_line
from finetune.core.memory import out_of_memory
from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir
from finetune.replicas.group import Replica
from finetune.replicas.stacked import CannotStack
from finetune.runner.build import make_mitigations, treated
from finetune.runner.fitting import ROOM, tokens_that_fit
from finetune.runner.session import Session
from finetune.strategies.base import set_training_mode
from finetune.tasks.batching import Batching
from finetune.train.batching import steps_of
from finetune.train.identity import drops
from finetune.train.meters import read_rows
from finetune.train.options import ALONE

STEPS, WARM = 5, 2
"""Steps taken, and how many of them warm up."""
WORTH = 15
"""A variant's steps, of all its runs, have to be so many times those of a group that is measured."""
BUSY = 1.0
"""Seconds of a step beyond which one run alone keeps the processor busy, and measuring others would take too long."""
COMPILING = 1000
"""Steps below which compiling is not even tried: it takes from half a minute to minutes."""
LONG = 100
"""Steps of all its runs from which a variant is worth measuring how many tokens a part should have."""
GAIN = 0.97
"""A larger group has to need at most this share of a smaller one's time for each run."""


@dataclass(frozen=True)
class Speed:
    """The settings of a variant's runs that change how fast they train, and not what they learn."""

    replicas: int
    """How many side by side."""
    compiled: bool
    part_tokens: int
    """How many tokens pass through the model at once on a CPU, where the recipe does not say."""
    reason: str
    """Why, in words."""
    telling: bool
    """Whether that is news: something was measured, or is not as the recipe says."""


def choose_speed(session: Session, runs: Sequence[Streams]) -> Speed:
    """Choose how to train ``runs``: as the recipe says, or as measuring a few steps shows."""
    train, runtime = session.recipe.train, session.runtime
    asked = train.replicas
    if session.strategy.solves:
        return Speed(len(runs), False, runtime.part_tokens, "solved once, and stored for each seed", False)
    tokens, why_so_many = choose_part_tokens(session, len(runs))
    session = replace(session, runtime=replace(runtime, part_tokens=tokens))
    if asked == "auto":
        replicas, why = choose_replicas(session, runs)
    else:
        single = alone(session)
        replicas, why = 1 if single else min(asked, len(runs)), single or "the recipe says so"
    compiled, why_not = choose_compiled(session, runs, replicas)
    reason = f"seeds side by side: {replicas} ({why}); {'compiled' if compiled else 'not compiled'} ({why_not})"
    if why_so_many:
        reason = f"{reason}; {tokens:,} tokens at once ({why_so_many})"
    denied = (asked != "auto" and replicas < min(asked, len(runs))) or (train.compile is True and not compiled)
    return Speed(replicas, compiled, tokens, reason, " ms " in reason or denied)


def choose_part_tokens(session: Session, runs: int) -> tuple[int, str]:
    """Choose how many tokens pass through the model at once on a CPU, and say why, in words for the log; no words where
    nothing was to be chosen."""
    recipe, runtime = session.recipe, session.runtime
    _, steps = steps_of(session.data.train.examples, recipe.train)
    if runtime.device.type != "cpu" or recipe.train.micro_batch_tokens is not None or steps * runs < LONG:
        return runtime.part_tokens, ""
    with runtime.progress.phase("measuring how many tokens to train at once"):
        found = runtime.broadcast(models.choose_parts(recipe.model, runtime.dtype))
    most = tokens_that_fit(recipe, session.base.model.config, session.data.train.examples, runtime.dtype)
    if found.tokens <= most:
        return found.tokens, found.reason
    return most, f"of more, activations would take over {ROOM / 1e9:.2g} GB"


def choose_replicas(session: Session, runs: Sequence[Streams]) -> tuple[int, str]:
    """Choose how many of ``runs`` to train side by side, and say why, in words for the log."""
    if single := alone(session):
        return 1, single
    runtime = session.runtime
    _, steps = steps_of(session.data.train.examples, session.recipe.train)
    if len(runs) == 1:
        return 1, "one run"
    tried = [count for count in _candidates(len(runs)) if WORTH * STEPS * count <= steps * len(runs)]
    if len(tried) < 2:
        return 1, f"{steps} steps a run are too few to measure"
    measured: dict[int, float] = {}
    reason = ""
    for count in runtime.track(tried, "measuring how many seeds go side by side"):
        try:
            measured[count] = _seconds(session, runs[:count])
        except StudyEnded:
            raise
        except Exception as error:  # which the run itself will meet too, and record as its result
            runtime.accelerator.free_memory()
            why = f"{count} do not fit into memory" if out_of_memory(error) else f"{count}: {error}"
            if not measured:
                return 1, f"cannot be measured; {why}"
            reason = f"; no more, because {error}" if isinstance(error, CannotStack) else f"; {why}"
            break
        if measured[1] > BUSY or measured[count] > GAIN * min([*measured.values()][:-1], default=math.inf):
            break
    best = min(measured, key=lambda count: measured[count])
    spent = ", ".join(f"{seconds * 1000:.0f} ms with {count}" for count, seconds in measured.items())
    return best, f"each run's step takes {spent} side by side{reason}"


def alone(session: Session) -> str | None:
    """Say why runs are not trained side by side, in words for the log; None: they can be."""
    task, train = session.data.task, session.recipe.train
    if session.runtime.accelerator.num_processes > 1:
        return "several processes share each run"
    if Batching.SINGLE in (task.batching, task.answering):
        return f"this model takes {Batching.SINGLE}"
    strategy, mitigations = session.strategy, make_mitigations(session.recipe.mitigations)
    names = [each.name for each in (*strategy.hooks, *mitigations) if not each.can_stack]
    names += [word for word in (train.optimizer, train.schedule) if word in ALONE]
    return f"{names[0]} trains one run at a time" if names else None


def choose_compiled(session: Session, runs: Sequence[Streams], size: int) -> tuple[bool, str]:
    """Choose whether to compile the model of groups of ``size``, and say why, in words for the log."""
    asked, runtime = session.recipe.train.compile, session.runtime
    _, each = steps_of(session.data.train.examples, session.recipe.train)
    steps = each * math.ceil(len(runs) / size)
    if asked is False or (asked == "auto" and steps < COMPILING):
        return False, "the recipe says so" if asked is False else f"{steps} steps are too few"
    if treated(session.recipe.mitigations):
        return False, "mitigations are at work"
    if session.recipe.compute.gradient_checkpointing:
        return False, "blocks are computed again in the backward pass"
    if runtime.shards:
        return False, "weights are split over the processes"
    if session.recipe.compute.moe_auxiliary_loss:
        return False, "routers are watched"
    built = session.build(runs[0])
    if built.strategy.differentiates:
        return False, f"{built.strategy.name} takes derivatives of its own"
    model = built.model
    set_training_mode(model)
    if drops(model):
        return False, "dropout is at work"
    if asked is True:
        return True, "the recipe says so"
    try:
        with runtime.progress.phase("measuring whether compiling pays"):
            plain, begun = _seconds(session, runs[:size]) * size, time.perf_counter()
            compiled = _seconds(session, runs[:size], compiled=True) * size
    except StudyEnded:
        raise
    except Exception as error:  # a machine without a compiler, or a model that it cannot take
        runtime.accelerator.free_memory()
        return False, f"torch.compile does not work here: {first_line(error)}"
    spent = time.perf_counter() - begun
    said = f"a step takes {compiled * 1000:.0f} ms compiled, {plain * 1000:.0f} ms plain; compiling took {spent:.0f} s"
    return (plain - compiled) * steps > spent, said


def _candidates(runs: int) -> Iterator[int]:
    """List the group sizes to try, each at least twice the one before: such that all groups are about equally large."""
    last = 0
    for groups in range(runs, 0, -1):
        count = -(-runs // groups)
        if count >= 2 * last or count == runs:
            yield count
            last = count


def _seconds(session: Session, runs: Sequence[Streams], compiled: bool = False) -> float:
    """Measure the seconds that a step takes of each run in a group of ``runs``, which is thrown away afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        replicas = [Replica(streams, RunDir(Path(folder) / str(number))) for number, streams in enumerate(runs)]
        assembled = session.assemble(replicas)
        session.speed_up(assembled.group, compiled)
        try:
            session.take_steps(assembled, STEPS, f"{STEPS} steps with {len(runs)}{' compiled' if compiled else ''}")
        except Interrupted:
            raise Interrupted("stopped while measuring how fast training is") from None
        rows = session.runtime.broadcast(read_rows(replicas[0].folder.metrics))  # which the first process writes
    if len(rows) < STEPS:
        raise FinetuneError(f"a run ended after {len(rows)} of {STEPS} steps")
    return (rows[-1]["seconds"] - rows[WARM - 1]["seconds"]) / (STEPS - WARM) / len(runs)
