"""Gradient accumulation: the forward and backward passes of one optimizer step, over micro-batches and processes, for R
runs side by side.

Shapes: R replicas; N examples in a micro-batch, those of all replicas together; losses (R,).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

from finetune.core.examples import Batch, Example
from finetune.core.memory import out_of_memory
from finetune.core.randomness import seed_torch
from finetune.core.runtime import Runtime
from finetune.core.sharding import collect_gradients
from finetune.replicas.group import ReplicaGroup
from finetune.strategies.base import set_training_mode
from finetune.tasks.base import Task
from finetune.train.batching import BatchPlan, split_batch
from finetune.train.dropout import Masks
from finetune.train.kernels import Kernels
from finetune.train.load_balance import LoadBalance
from finetune.train.meters import FlopCounter, Meter
from finetune.train.portions import PortionLosses
from finetune.train.recompute import Recompute
from finetune.train.state import Taken


@dataclass(frozen=True)
class MicroBatch:
    """The examples that pass through the model at once, as the task has made them into a batch."""

    examples: list[Example]
    """(N,) replica by replica."""
    sizes: list[int]
    """(R,) how many of each replica."""
    fills: bool
    """True where a process has nothing left, and its example is there because all have to take part."""
    seeds: torch.Tensor
    """(N,) of each example's dropout."""
    batch: Batch
    """What the task made of them."""


@dataclass
class Accumulation:
    """Leaves the gradient of a whole optimizer batch in the model's parameters."""

    group: ReplicaGroup
    model: torch.nn.Module
    """The group's model, wrapped where processes share its gradient."""
    task: Task
    examples: Sequence[Example]
    plans: Sequence[BatchPlan]
    """One for each replica."""
    size: int
    """Examples of one replica in a micro-batch, at most; halved when memory runs out."""
    tokens: int | None
    """Tokens in a micro-batch, at most; None: as many as fit, on a CPU the runtime's ``part_tokens``."""
    runtime: Runtime
    meter: Meter
    portions: PortionLosses | None = None
    """The losses of the last step by source; None where there is one source."""
    recompute: Recompute | None = None
    """Computes blocks again in the backward pass; None: their activations are kept."""
    load_balance: LoadBalance | None = None
    """Adds the auxiliary loss of a mixture of experts; None: there is none."""
    flops_per_token: float | None = None
    """Floating-point operations for one token, padding or not, forward and backward, as the first step took them."""
    _ahead: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "batches"))
    _next: tuple[tuple[int, int], Future[list[MicroBatch]]] | None = None

    def __post_init__(self) -> None:
        if self.tokens is None and self.runtime.device.type == "cpu":
            self.tokens = self.runtime.part_tokens

    def run(self, step: int, factors: torch.Tensor | None = None) -> tuple[torch.Tensor, list[Taken]]:
        """Run optimizer step ``step`` (from 0): its losses (R,), and what it took of each replica. Gradients are those
        of the losses times ``factors`` (R,), where they are given.

        The loss is the sum over the whole batch (all micro-batches and processes) divided by a weight that is known
        before any of it has run: accumulation changes nothing. When memory runs out the step is done again in smaller
        micro-batches.
        """
        while True:
            try:
                if self.flops_per_token is not None:
                    return self._run(step, factors)
                with FlopCounter() as counter:
                    losses, taken = self._run(step, factors)
                padded = sum(own.padded for own in taken) / self.runtime.accelerator.num_processes
                self.flops_per_token = counter.get_total_flops() / max(padded, 1)
                return losses, taken
            except RuntimeError as error:
                largest = max(len(plan.batch(step)) for plan in self.plans)
                smaller = min(self.size, largest) // 2
                if not out_of_memory(error) or smaller < 1 or self.runtime.accelerator.num_processes > 1:
                    raise
                self.size = smaller
            self.model.zero_grad(set_to_none=True)
            if self.runtime.device.type == "cuda":
                torch.cuda.empty_cache()
            self.runtime.progress.say(f"out of memory: going on with parts of {self.size} examples")

    def _run(self, step: int, factors: torch.Tensor | None) -> tuple[torch.Tensor, list[Taken]]:
        runtime, accelerator, meter = self.runtime, self.runtime.accelerator, self.meter
        total = torch.tensor([plan.total(step) for plan in self.plans], device=runtime.device)
        losses, padded = torch.zeros_like(total), 0
        if self.portions is not None:
            self.portions.begin()
        # Masks are addressed; what a model draws besides (a layer to leave out, say) is at least the step's own.
        seed_torch(self.plans[0].streams.seed_of("dropout", step), runtime.device)
        with meter("data"):
            micro_batches = self._prepared(step)
        for number, micro_batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            runtime.move()
            # What a pass stands in lasts until its backward pass is over, in which parts of it may be computed again.
            with nullcontext() if last else accelerator.no_sync(self.model), ExitStack() as stack:
                with meter("forward"):
                    shares = self._shares(micro_batch, stack) / total
                runtime.move()
                with meter("backward"):
                    # DDP and FSDP average gradients over processes; the loss is already divided by the whole batch.
                    scaled = shares if factors is None else shares * factors
                    accelerator.backward(scaled.sum() * accelerator.num_processes)
            losses = losses + shares.detach()
            padded += micro_batch.batch.example.numel() if not micro_batch.fills else 0
        collect_gradients(self.group.model)
        share = round(runtime.all_reduce_sum(padded) / len(self.plans))
        batches = [plan.lengths[plan.batch(step)] for plan in self.plans]
        taken = [Taken(len(batch), int(batch.sum()), share) for batch in batches]
        return accelerator.reduce(losses, "sum"), taken

    def gradients_of(self, examples: Sequence[Example]) -> None:
        """Leave the gradient of the mean loss over ``examples`` in the parameters, each replica's with its own weights
        and without dropout: for hooks that look before the first step."""
        count, training = len(self.plans), self.model.training
        self.group.model.eval()
        every, counts = [*examples] * count, [len(examples)] * count
        batch = self.task.batch_for(self.model, every, self.runtime.device, counts)
        with self.runtime.autocast(), self.group.on(every, batch, counts):
            objective = self.group.hooks.objective(self.task, self.group.model, batch)
            losses = objective() if objective else self.task.losses(self.group.model, batch)
        weights = sum(example.weight for example in examples)
        (losses.sum() / weights).backward()
        collect_gradients(self.group.model)
        if training:
            set_training_mode(self.group.model)

    def _shares(self, micro_batch: MicroBatch, stack: ExitStack) -> torch.Tensor:
        """Sum the losses of each replica's examples in a micro-batch: (R,), with their graph. What the pass stands in
        is left to ``stack``, but for autocast and kernels, which are of the forward pass."""
        device = self.runtime.device
        batch = self.task.arranged(self.model, micro_batch.batch.to(device, non_blocking=True))
        # torch does not compile what runs inside a mode of ours, nor take its derivative forwards.
        masks, hooks = self._masks(micro_batch, batch), self.group.hooks
        as_written = self.group.compiled or any(each.differentiates for each in hooks)
        kernels = nullcontext() if as_written else Kernels(masks)
        stack.enter_context(self.group.on(micro_batch.examples, batch, micro_batch.sizes))
        recompute = self.recompute.passing(None if as_written else masks) if self.recompute else nullcontext()
        recording = self.load_balance.recording() if self.load_balance else nullcontext()
        with self.runtime.autocast(), kernels, recompute, recording:
            objective = hooks.objective(self.task, self.model, batch)
            stack.enter_context(hooks.passing(masks, batch))
            losses = hooks.losses(self.task, self.model, batch, objective)
        if self.load_balance:
            losses = losses + self.load_balance.losses(batch, micro_batch.examples)
        if micro_batch.fills:  # a product would not do: zero times infinity is no number
            losses = torch.where(torch.zeros_like(losses, dtype=torch.bool), losses, 0.0)
        sizes = torch.tensor(micro_batch.sizes, device=device)
        owners = torch.arange(len(self.plans), device=device).repeat_interleave(sizes)
        if self.portions is not None and not micro_batch.fills:
            self.portions.add(micro_batch.examples, owners, losses)
        return losses.new_zeros(len(self.plans)).index_add(0, owners, losses)

    @staticmethod
    def _masks(micro_batch: MicroBatch, batch: Batch) -> Masks:
        # At padding stands the row's own example, so that where a decoder's positions are as many, they are its too.
        owners = batch.example.where(batch.example >= 0, batch.example[:, :1].clamp(min=0))
        return Masks(micro_batch.seeds.to(owners.device)[owners], batch.positions)

    def _prepared(self, step: int) -> list[MicroBatch]:
        """Give the step's micro-batches, made while the step before was under way, and begin the next step's."""
        ready = self._next[1].result() if self._next and self._next[0] == (step, self.size) else None
        micro_batches = list(self._micro_batches(step)) if ready is None else ready
        self._next = (step + 1, self.size), self._ahead.submit(lambda: list(self._micro_batches(step + 1)))
        return micro_batches

    def _micro_batches(self, step: int) -> Iterator[MicroBatch]:
        """Cut the batch into this process's micro-batches: examples of all replicas that are alike in length."""
        drawn = [plan.batch(step) for plan in self.plans]
        owners = np.repeat(np.arange(len(drawn)), [len(own) for own in drawn])
        places = np.concatenate([np.arange(len(own)) for own in drawn])
        every, lengths = np.concatenate(drawn), self.plans[0].lengths
        rank, processes = self.runtime.accelerator.process_index, self.runtime.accelerator.num_processes
        size, batching = self.size * len(drawn), self.task.batching
        for own in split_batch(every, lengths, size, rank, processes, self.tokens, batching):
            # Every process has to take part in every synchronised pass, even with nothing to add.
            chosen = np.sort(own) if len(own) else np.zeros(1, int)
            examples = [self.examples[number] for number in every[chosen]]
            if self.task.dynamic:
                examples = [
                    self.task.resample(example, self.plans[owner].streams.seed_of("noise", step, int(place)))
                    for example, owner, place in zip(examples, owners[chosen], places[chosen], strict=True)
                ]
            # By place in the whole batch: how it is cut into micro-batches and padded cannot change what is dropped.
            seeds = [
                self.plans[owner].streams.seed_of("dropout", step, int(place))
                for owner, place in zip(owners[chosen], places[chosen], strict=True)
            ]
            sizes = np.bincount(owners[chosen], minlength=len(drawn)).tolist()
            fills, batch = not len(own), self.task.collate(examples, sizes)
            yield MicroBatch(examples, sizes, fills, torch.tensor(seeds), batch)

    def resume(self, size: int | None, flops_per_token: float | None, seconds: Mapping[str, float]) -> None:
        """Go on from a checkpoint.

        ``size`` is the micro-batch size that memory allowed, in examples of one replica (None: it never ran out);
        ``seconds`` are those of each phase so far.
        """
        self.size = min(self.size, size or self.size)
        self.flops_per_token, self.meter = flops_per_token, Meter(self.runtime.device, seconds)

    def close(self) -> None:
        """Let go of the thread that prepares batches, and of the model's blocks."""
        if self.recompute is not None:
            self.recompute.close()
        self._ahead.shutdown(wait=True, cancel_futures=True)
