"""Compares runs that are trained side by side, and on remembered activations, with each run alone.

:mod:`finetune.runner.parity` compares one model with plain transformers; this compares, before training, what is made
of several models with each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from finetune.core.errors import first_line
from finetune.core.examples import Example, Outputs, lengths_of
from finetune.core.memory import out_of_memory
from finetune.core.runtime import Runtime
from finetune.replicas.group import ReplicaGroup
from finetune.replicas.stacked import CannotStack
from finetune.runner.parity import EXAMPLES, OF_SPREAD, among_of, choose, farthest
from finetune.tasks.base import Task
from finetune.tasks.batching import Batching

OF_SPREAD_BF16 = 0.1
"""The same in bfloat16, whose rounding is a hundredth; another run's weights, or another row's, differ by as much as
there is spread."""


def check_group(group: ReplicaGroup, task: Task, examples: Sequence[Example], runtime: Runtime) -> None:
    """Raise :class:`CannotStack` where runs side by side do not give what each of them gives alone.

    Two examples are shown to all runs at once, and to each alone, without dropout and in the dtype of training: a
    module that tells rows apart in ways of its own, or does without its weights' own module, is found by what it does.
    """
    chosen = _few(task, choose(task, examples)[:: EXAMPLES - 1])
    group.model.eval()
    with _told_apart(group), torch.inference_mode(), runtime.autocast():
        try:
            task.loss_path(group.model, group.count)
            together = _shown(group, task, chosen, runtime)
        except Exception as error:  # whatever it may be: run by run, the model has been tried already
            if out_of_memory(error):
                raise
            why = first_line(error)
            raise CannotStack(f"side by side the model fails ({why})") from error
        for number in range(group.count):
            with group.alone(number):
                alone = _shown(ReplicaGroup(group.model), task, chosen, runtime)
            own = (together.owners >= number * len(chosen)) & (together.owners < (number + 1) * len(chosen))
            if not _same(together.logits[own], alone, task, runtime):
                raise CannotStack("side by side its outputs are others than of each run alone")


@contextmanager
def _told_apart(group: ReplicaGroup) -> Iterator[None]:
    """Within the context, make every run's weights differ from the others' and from zero: as training begins all but
    the head are alike, and one run's could be taken for another's."""
    kept = [(value, value.detach().clone()) for value in group.stacked_parameters()]
    with torch.no_grad():
        for value, _ in kept:
            for number, own in enumerate(value):
                share = (number + 1) / group.count
                ramp = torch.linspace(-0.05, 0.05, own.shape[-1] if own.ndim else 1).to(own)
                own.mul_(1 + 0.2 * share).add_(share * ramp)
    try:
        yield
    finally:
        with torch.no_grad():
            for value, start in kept:
                value.copy_(start)


def remembers_rightly(group: ReplicaGroup, task: Task, examples: Sequence[Example], runtime: Runtime) -> bool:
    """Tell whether ``group`` gives the same outputs for two of ``examples`` from its prefix's remembered activations as
    from their tokens, without dropout and in the dtype of training."""
    order = np.argsort(lengths_of(examples), kind="stable")
    chosen = _few(task, [examples[place] for place in order[:2]])
    group.model.eval()
    with torch.inference_mode(), runtime.autocast():
        task.loss_path(group.model, group.count)
        found = _shown(group, task, chosen, runtime)
        with group.without_prefix():
            wanted = _shown(group, task, chosen, runtime)
    return _same(found.logits, wanted, task, runtime)


def _few(task: Task, examples: list[Example]) -> list[Example]:
    """Choose as many of two examples as go into one batch."""
    return examples[:1] if task.batching >= Batching.SAME_LENGTH else examples


def _shown(group: ReplicaGroup, task: Task, examples: list[Example], runtime: Runtime) -> Outputs:
    """Compute the outputs of every run of ``group``, run by run."""
    every, counts = examples * group.count, [len(examples)] * group.count
    batch = task.batch_for(group.model, every, runtime.device, counts)
    with group.on(every, batch, counts):
        return task.outputs(group.model, batch)


def _same(found: torch.Tensor, wanted: Outputs, task: Task, runtime: Runtime) -> bool:
    """Tell whether logits (L, C) differ by no more than the rounding of the dtype of training."""
    most = OF_SPREAD if runtime.dtype == torch.float32 else OF_SPREAD_BF16
    logits, among = wanted.logits.float(), among_of(task, [wanted])
    return len(logits) == 0 or farthest(found.float(), logits, None if among is None else among.float()) <= most
