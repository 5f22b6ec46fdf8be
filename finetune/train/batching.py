"""Which examples stand in which batch: a pure function of the run's `order` stream and the step's number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finetune.core.examples import Example, lengths_of, weights_of
from finetune.core.randomness import Streams
from finetune.tasks.batching import Batching, cut
from finetune.train.options import TrainOptions

LENGTH_JITTER = 0.1
"""Relative noise on lengths before sorting, so that neighbours in length do not meet in every epoch."""


@dataclass(frozen=True)
class BatchPlan:
    """The order of one run's examples. Resuming needs no state: any step's batch can be asked for."""

    lengths: np.ndarray
    """(examples,) tokens of each training example."""
    weights: np.ndarray
    """(examples,) what each counts when the loss is averaged."""
    batch_size: int
    window: int
    """Batches within which examples are sorted by length; 1: plain shuffling."""
    streams: Streams
    tokens: int | None = None
    """About so many tokens in a batch, instead of ``batch_size`` examples."""
    _drawn: dict[int, list[np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The epochs that were asked for last: drawing one takes a while where there are many examples."""

    @property
    def steps_per_epoch(self) -> int:
        if self.tokens is None:
            return math.ceil(len(self.lengths) / self.batch_size)
        return min(math.ceil(self.lengths.sum() / self.tokens), len(self.lengths))

    def batch(self, step: int) -> np.ndarray:
        """Give the indices of the examples of optimizer step ``step`` (from 0), in the order in which they were
        drawn."""
        epoch, position = divmod(step, self.steps_per_epoch)
        drawn = self._drawn.get(epoch)
        if drawn is None:
            drawn = self._drawn[epoch] = self.epoch(epoch)
            # The next batch is prepared in a thread of its own, which may be in the epoch after.
            self._drawn.pop(epoch - 2, None)
        return drawn[position]

    def total(self, step: int) -> float:
        """Compute the number that the losses of optimizer step ``step`` are divided by.

        Batches of a fixed number of examples are divided by their own weight. With a token budget, short examples
        come in large batches, and would count less there; divided by the mean weight of all batches, every example
        counts the same, and the expected gradient is that of plain shuffling.
        """
        if self.tokens is None:
            return float(self.weights[self.batch(step)].sum())
        return float(self.weights.sum()) / self.steps_per_epoch

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Draw all batches of an epoch; together they hold every example once, the last batch may be smaller.

        Every example is equally likely to stand in any batch, and in the smaller one: a uniform shuffle, then a sort
        inside windows, then a shuffle of the batches.
        """
        rng = self.streams.numpy("order", epoch)
        order = rng.permutation(len(self.lengths))
        noisy = self.lengths * rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(order))
        size = self.batch_size if self.tokens is None else math.ceil(len(order) / self.steps_per_epoch)
        # What does not fill a batch is left out of the sort: cut out of sorted examples, the one smaller batch, whose
        # examples weigh more, would favour some lengths.
        full = len(order) - (len(order) % size if self.tokens is None else 0)
        for number, start in enumerate(range(0, full if self.window > 1 else 0, self.window * size)):
            window = order[start : min(start + self.window * size, full)]
            # Up and down in turn: a batch of about so many tokens may reach from one window into the next.
            window[:] = window[np.argsort(noisy[window] * (-1) ** number, kind="stable")]
        batches = self._cut(order)
        return [batches[number] for number in rng.permutation(len(batches))]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut ``order`` into batches of equally many examples, or of about equally many tokens, one example at
        least."""
        if self.tokens is None:
            return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        count, ends = self.steps_per_epoch, np.cumsum(self.lengths[order])
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, count) / count) + 1
        cuts = np.maximum.accumulate(cuts - np.arange(count - 1)) + np.arange(count - 1)
        return np.split(order, np.minimum(cuts, len(order) - count + np.arange(1, count)))


def plan_batches(examples: Sequence[Example], options: TrainOptions, streams: Streams) -> BatchPlan:
    """Plan the order in which a run sees its examples."""
    lengths, weights = lengths_of(examples), weights_of(examples)
    return BatchPlan(lengths, weights, options.batch_size, options.length_window, streams, options.batch_tokens)


def split_batch(
    batch: np.ndarray,
    lengths: np.ndarray,
    size: int,
    process: int = 0,
    processes: int = 1,
    tokens: int | None = None,
    batching: Batching = Batching.PADDED,
) -> list[np.ndarray]:
    """Cut an optimizer batch into this process's micro-batches: places in ``batch``, alike in length, at most ``size``
    each.

    With ``tokens`` no micro-batch has more tokens than that, padding among them, unless one example has. Every process
    gets the same number of them, because each is a synchronised forward and backward pass; some may be empty.
    """
    by_length = np.argsort(lengths[batch], kind="stable")
    shares = [by_length[rank::processes] for rank in range(processes)]
    if batching >= Batching.SAME_LENGTH:
        return _unpadded(shares, lengths[batch], size, tokens, batching)[process]
    count, most = math.ceil(len(shares[0]) / size), len(shares[0])
    while tokens and count < most and any(_widest(share, count, lengths[batch]) > tokens for share in shares):
        count += 1
    return np.array_split(shares[process], count)


def _unpadded(
    shares: Sequence[np.ndarray], lengths: np.ndarray, size: int, tokens: int | None, batching: Batching
) -> list[list[np.ndarray]]:
    """Cut every process's share into micro-batches that need no padding; as many each, of which some may be empty."""
    found = [
        [
            micro_batch
            for same in cut(share, lengths, len(share), max(batching, Batching.SAME_LENGTH))
            for micro_batch in cut(
                same, lengths, min(size, max(tokens // int(lengths[same[0]]), 1) if tokens else size), batching
            )
        ]
        for share in shares
    ]
    most = max(map(len, found))
    return [[*own, *[np.empty(0, dtype=np.int64)] * (most - len(own))] for own in found]


def _widest(share: np.ndarray, count: int, lengths: np.ndarray) -> int:
    """Count the tokens, with padding, of the largest of ``count`` micro-batches."""
    return max((len(own) * int(lengths[own].max()) for own in np.array_split(share, count) if len(own)), default=0)


def steps_of(examples: Sequence[Example], options: TrainOptions) -> tuple[int, int]:
    """Count the optimizer steps of an epoch and of a whole run, whatever its seed."""
    epoch = plan_batches(examples, options, Streams(0)).steps_per_epoch
    return epoch, total_steps(epoch, options.epochs, options.min_steps, options.max_steps)


def total_steps(steps_per_epoch: int, epochs: float, floor: int, ceiling: int | None) -> int:
    """Count the optimizer steps of a run: its epochs, at least ``floor``, at most ``ceiling``."""
    steps = max(math.ceil(epochs * steps_per_epoch), floor, 1)
    return min(steps, ceiling) if ceiling else steps
