"""Whether runs that are trained side by side, and on remembered activations, give what each gives alone.

:mod:`finetune.run.parity` compares one model with plain transformers; this compares, before training, what is made of
several models with each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from finetune.core.examples import Example, Outputs
from finetune.core.memory import out_of_memory
from finetune.core.runtime import Runtime
from finetune.replicas.group import ReplicaGroup
from finetune.replicas.stacked import CannotStack
from finetune.run.parity import EXAMPLES, OF_SPREAD, choose, farthest
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
        task.way(group.model, group.count)
        try:
            together = _shown(group, task, chosen, runtime)
        except Exception as error:  # whatever it may be: run by run, the model has been tried already
            if out_of_memory(error):
                raise
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise CannotStack(f"side by side the model fails ({why})") from error
        for number in range(group.count):
            with group.alone(number):
                alone = _shown(ReplicaGroup(group.model), task, chosen, runtime)
            own = (together.owners >= number * len(chosen)) & (together.owners < (number + 1) * len(chosen))
            if not _same(together.logits[own], alone.logits, runtime):
                raise CannotStack("side by side its outputs are others than of each run alone")


@contextmanager
def _told_apart(group: ReplicaGroup) -> Iterator[None]:
    """Within the context no two runs have weights in common, and none are zero: as training begins all but the head
    are, and one run's could be taken for another's."""
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
    """Whether ``group`` gives the same of two of ``examples`` from its prefix's remembered activations as from their
    tokens, without dropout and in the dtype of training."""
    prefix, chosen = group.prefix, _few(task, sorted(examples, key=lambda example: example.length)[:2])
    group.model.eval()
    with torch.inference_mode(), runtime.autocast():
        task.way(group.model, group.count)
        found = _shown(group, task, chosen, runtime)
        group.prefix = None
        try:
            wanted = _shown(group, task, chosen, runtime)
        finally:
            group.prefix = prefix
    return _same(found.logits, wanted.logits, runtime)


def _few(task: Task, examples: list[Example]) -> list[Example]:
    """As many of two examples as go into one batch."""
    return examples[:1] if task.batching >= Batching.SAME_LENGTH else examples


def _shown(group: ReplicaGroup, task: Task, examples: list[Example], runtime: Runtime) -> Outputs:
    """The outputs of every run of ``group``, run by run."""
    every, counts = examples * group.count, [len(examples)] * group.count
    batch = {name: value.to(runtime.device) for name, value in task.collate(every, counts).items()}
    batch = task.arranged(group.model, batch)
    with group.on(every, batch, counts):
        return task.outputs(group.model, batch)


def _same(found: torch.Tensor, wanted: torch.Tensor, runtime: Runtime) -> bool:
    """Whether logits (L, C) differ by no more than the rounding of the dtype of training."""
    most = OF_SPREAD if runtime.dtype == torch.float32 else OF_SPREAD_BF16
    return len(wanted) == 0 or farthest(found.float(), wanted.float()) <= most
