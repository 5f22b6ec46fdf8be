"""How many seeds of a variant to train side by side, in parts of how many tokens, and whether to compile the model:
found out by measuring."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import models
from finetune.core.errors import DiskFull, FinetuneError, InputError, Interrupted
from finetune.core.memory import out_of_memory
from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir
from finetune.core.runtime import Runtime
from finetune.replicas.group import Member
from finetune.replicas.stacked import CannotStack
from finetune.run.build import assemble, build, hooks_of, open_prefix, treated
from finetune.run.resources import TaskData
from finetune.strategies.base import set_training_mode
from finetune.tasks.base import Task
from finetune.tasks.batching import Batching
from finetune.train.batching import steps_of
from finetune.train.identity import drops
from finetune.train.loop import train
from finetune.train.meters import read_rows
from finetune.train.options import ALONE

if TYPE_CHECKING:
    from finetune.recipe import Recipe

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
    """How a variant's runs are trained."""

    replicas: int
    """How many side by side."""
    compiled: bool
    part_tokens: int
    """How many tokens pass through the model at once on a CPU, where the recipe does not say."""
    reason: str
    """Why, in words."""
    telling: bool
    """Whether that is news: something was measured, or is not as the recipe says."""


def choose_speed(
    recipe: Recipe, base: models.BaseModel, data: TaskData, runs: Sequence[Streams], runtime: Runtime
) -> Speed:
    """How to train ``runs``: as the recipe says, or as measuring a few steps shows."""
    asked = recipe.train.replicas
    if hooks_of(recipe)[0].solves:
        return Speed(len(runs), False, runtime.part_tokens, "solved once, and stored for each seed", False)
    tokens, why_so_many = choose_part_tokens(recipe, data, len(runs), runtime)
    runtime = replace(runtime, part_tokens=tokens)
    if asked == "auto":
        replicas, why = choose_replicas(recipe, base, data, runs, runtime)
    else:
        single = alone(recipe, runtime, data.task)
        replicas, why = 1 if single else min(asked, len(runs)), single or "the recipe says so"
    compiled, why_not = choose_compiled(recipe, base, data, runs, replicas, runtime)
    reason = f"seeds side by side: {replicas} ({why}); {'compiled' if compiled else 'not compiled'} ({why_not})"
    if why_so_many:
        reason = f"{reason}; {tokens:,} tokens at once ({why_so_many})"
    denied = (asked != "auto" and replicas < min(asked, len(runs))) or (recipe.train.compile is True and not compiled)
    return Speed(replicas, compiled, tokens, reason, " ms " in reason or denied)


def choose_part_tokens(recipe: Recipe, data: TaskData, runs: int, runtime: Runtime) -> tuple[int, str]:
    """Tokens that pass through the model at once on a CPU, and why, in words for the log; no words where nothing was
    to be chosen."""
    _, steps = steps_of(data.train.examples, recipe.train)
    if runtime.device.type != "cpu" or recipe.train.micro_batch_tokens is not None or steps * runs < LONG:
        return runtime.part_tokens, ""
    with runtime.progress.phase("measuring how many tokens to train at once"):
        found = models.choose_parts(recipe.model, runtime.dtype)
    return found.tokens, found.reason


def choose_replicas(
    recipe: Recipe,
    base: models.BaseModel,
    data: TaskData,
    runs: Sequence[Streams],
    runtime: Runtime,
) -> tuple[int, str]:
    """How many of ``runs`` to train side by side, and why, in words for the log."""
    if single := alone(recipe, runtime, data.task):
        return 1, single
    _, steps = steps_of(data.train.examples, recipe.train)
    if len(runs) == 1:
        return 1, "one run"
    tried = [count for count in _candidates(len(runs)) if WORTH * STEPS * count <= steps * len(runs)]
    if len(tried) < 2:
        return 1, f"{steps} steps a run are too few to measure"
    measured: dict[int, float] = {}
    reason = ""
    for count in runtime.track(tried, "measuring how many seeds go side by side"):
        try:
            measured[count] = _seconds(recipe, base, data, runs[:count], runtime)
        except (Interrupted, InputError, DiskFull):
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


def alone(recipe: Recipe, runtime: Runtime, task: Task | None = None) -> str | None:
    """Why runs are not trained side by side, in words for the log; None: they can be."""
    if runtime.accelerator.num_processes > 1:
        return "several processes share each run"
    if task and Batching.SINGLE in (task.batching, task.answering):
        return f"this model takes {Batching.SINGLE}"
    strategy, mitigations = hooks_of(recipe)
    names = [each.name for each in (*strategy.hooks, *mitigations) if not each.can_stack]
    names += [word for word in (recipe.train.optimizer, recipe.train.schedule) if word in ALONE]
    return f"{names[0]} trains one run at a time" if names else None


def choose_compiled(
    recipe: Recipe, base: models.BaseModel, data: TaskData, runs: Sequence[Streams], size: int, runtime: Runtime
) -> tuple[bool, str]:
    """Whether to compile the model of groups of ``size``, and why, in words for the log."""
    _, each = steps_of(data.train.examples, recipe.train)
    steps = each * math.ceil(len(runs) / size)
    if recipe.train.compile is False or (recipe.train.compile == "auto" and steps < COMPILING):
        return False, "the recipe says so" if recipe.train.compile is False else f"{steps} steps are too few"
    if treated(recipe):
        return False, "mitigations are at work"
    built = build(recipe, base, data, runs[0], runtime)
    if built.strategy.differentiates:
        return False, f"{built.strategy.name} takes derivatives of its own"
    model = built.model
    set_training_mode(model)
    if drops(model):
        return False, "dropout is at work"
    if recipe.train.compile is True:
        return True, "the recipe says so"
    try:
        with runtime.progress.phase("measuring whether compiling pays"):
            plain, begun = _seconds(recipe, base, data, runs[:size], runtime) * size, time.perf_counter()
            compiled = _seconds(recipe, base, data, runs[:size], runtime, compiled=True) * size
    except (Interrupted, InputError, DiskFull):
        raise
    except Exception as error:  # a machine without a compiler, or a model that it cannot take
        runtime.accelerator.free_memory()
        return False, f"torch.compile does not work here: {str(error).strip().splitlines()[0]}"
    spent = time.perf_counter() - begun
    said = f"a step takes {compiled * 1000:.0f} ms compiled, {plain * 1000:.0f} ms plain; compiling took {spent:.0f} s"
    return (plain - compiled) * steps > spent, said


def _candidates(runs: int) -> Iterator[int]:
    """Group sizes to try, each at least twice the one before: such that all groups are about equally large."""
    last = 0
    for groups in range(runs, 0, -1):
        count = -(-runs // groups)
        if count >= 2 * last or count == runs:
            yield count
            last = count


def _seconds(
    recipe: Recipe,
    base: models.BaseModel,
    data: TaskData,
    runs: Sequence[Streams],
    runtime: Runtime,
    compiled: bool = False,
) -> float:
    """Seconds that a step takes of each run in a group of ``runs``, which is thrown away afterwards."""
    few = {"max_steps": STEPS, "min_steps": STEPS, "evaluations": 0, "checkpoint_seconds": math.inf}
    options = recipe.train.model_copy(update=few)
    with tempfile.TemporaryDirectory() as folder:
        members = [Member(streams, RunDir(Path(folder) / str(number))) for number, streams in enumerate(runs)]
        group, _, _ = assemble(recipe, base, data, members, runtime, {})
        open_prefix(group, recipe, base, data, runtime)
        if compiled:
            group.compile()
        runtime = runtime.at(f"{STEPS} steps with {len(runs)}{' compiled' if compiled else ''}", runtime.dtype)
        try:
            train(group, data.task, data.train.examples, options, members, runtime, None)
        except Interrupted:
            raise Interrupted("stopped while measuring how fast training is") from None
        rows = read_rows(members[0].folder.metrics)
    if len(rows) < STEPS:
        raise FinetuneError(f"a run ended after {len(rows)} of {STEPS} steps")
    return (rows[-1]["seconds"] - rows[WARM - 1]["seconds"]) / (STEPS - WARM) / len(runs)
