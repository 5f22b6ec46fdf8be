"""Which examples stand in which batch: a pure function of the run's `order` stream and the step's number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finetune.randomness import Streams
from finetune.tasks.base import Example
from finetune.train.options import TrainOptions

LENGTH_JITTER = 0.1
"""Relative noise on lengths before sorting, so that neighbours in length do not meet in every epoch."""


@dataclass(frozen=True)
class BatchPlan:
    """The order of one run's examples. Resuming needs no state: any step's batch can be asked for."""

    lengths: np.ndarray
    """(examples,) tokens of each training example."""
    batch_size: int
    window: int
    """Batches within which examples are sorted by length; 1: plain shuffling."""
    streams: Streams
    _drawn: dict[int, list[np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The epoch that was asked for last: drawing one takes a while where there are many examples."""

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def batch(self, step: int) -> np.ndarray:
        """Indices of the examples of optimizer step ``step`` (from 0), in the order in which they were drawn."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch not in self._drawn:
            self._drawn.clear()
            self._drawn[epoch] = self.epoch(epoch)
        return self._drawn[epoch][position]

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """All batches of an epoch; together they hold every example once, the last batch may be smaller.

        Every example is equally likely to stand in any batch, and in the smaller one: a uniform shuffle, then a sort
        inside windows, then a shuffle of the batches.
        """
        rng = self.streams.numpy("order", epoch)
        order = rng.permutation(len(self.lengths))
        noisy = self.lengths * rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(order))
        # What does not fill a batch is left out of the sort: cut out of sorted examples, the one smaller batch, whose
        # examples weigh more, would favour some lengths.
        full = len(order) - len(order) % self.batch_size
        reach = self.window * self.batch_size
        for start in range(0, full if self.window > 1 else 0, reach):
            window = order[start : min(start + reach, full)]
            window[:] = window[np.argsort(noisy[window], kind="stable")]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return [batches[number] for number in rng.permutation(len(batches))]


def plan_batches(examples: Sequence[Example], options: TrainOptions, streams: Streams) -> BatchPlan:
    """The order in which a run sees its examples."""
    lengths = np.asarray([example.length for example in examples])
    return BatchPlan(lengths, options.batch_size, options.length_window, streams)


def micro_batches(
    batch: np.ndarray, lengths: np.ndarray, size: int, process: int = 0, processes: int = 1
) -> list[np.ndarray]:
    """This process's parts of an optimizer batch, each of at most ``size`` examples, alike in length.

    Every process gets the same number of parts, because each part is a synchronised forward and backward pass;
    some may be empty.
    """
    by_length = batch[np.argsort(lengths[batch], kind="stable")]
    parts = math.ceil(math.ceil(len(batch) / processes) / size)
    mine = by_length[process::processes]
    return np.array_split(mine, parts)


def total_steps(steps_per_epoch: int, epochs: float, floor: int, ceiling: int | None) -> int:
    """Optimizer steps of a run: its epochs, at least ``floor``, at most ``ceiling``."""
    steps = max(math.ceil(epochs * steps_per_epoch), floor, 1)
    return min(steps, ceiling) if ceiling else steps
