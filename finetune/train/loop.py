"""The training loop, for a run group: R runs trained side by side, R = 1 being the plain case. Losses are (R,)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from finetune.core.compute import ComputeOptions
from finetune.core.errors import Interrupted
from finetune.core.examples import Example
from finetune.core.hooks import TrainingHooks, TrainingState
from finetune.core.progress import Phase
from finetune.core.runtime import Runtime
from finetune.core.sharding import norm_over_processes
from finetune.replicas.group import Replica, ReplicaGroup
from finetune.strategies.base import set_training_mode
from finetune.strategies.blocks import find_blocks
from finetune.tasks.base import Task
from finetune.train.accumulation import Accumulation
from finetune.train.batching import plan_batches, steps_of
from finetune.train.facts import note, training_facts
from finetune.train.load_balance import LoadBalance
from finetune.train.meters import Clock, Meter, MetricsLog, finite
from finetune.train.optimizer import (
    averages,
    gradient_norms,
    make_optimizer,
    memory_of,
    scale_gradients,
    set_rate,
    used_rate,
)
from finetune.train.options import TrainOptions
from finetune.train.portions import PortionLosses, Portions
from finetune.train.processes import share
from finetune.train.recompute import Recompute
from finetune.train.resuming import resumed, save
from finetune.train.scaling import LossScale
from finetune.train.schedules import rate_at
from finetune.train.state import Position, ReplicaState, Trained, Validation
from finetune.train.weights import Weights, keep


def train(
    group: ReplicaGroup,
    task: Task,
    examples: Sequence[Example],
    options: TrainOptions,
    replicas: Sequence[Replica],
    runtime: Runtime,
    validation: Validation | None,
    portions: Portions | None = None,
    compute: ComputeOptions | None = None,
) -> list[Trained]:
    """Fit what learns of each replica's run to ``examples``; the group's model has the weights that are kept.

    ``portions`` says of a mixture what its sources are, whose losses are then logged; ``compute``, how arithmetic is
    done, if not as usual. Resumes from the replicas' checkpoints, which have to be of one step. Raises
    :class:`Interrupted` after saving when asked to stop, and leaves diverged replicas with the weights they had before
    the step that broke them.
    """
    training = _Training.prepare(group, task, examples, options, replicas, runtime, portions, compute)
    with closing(training.accumulation), runtime.progress.phase(runtime.title, training.steps) as phase:
        phase.step(training.at.step)
        while True:
            if validation and training.evaluation_is_due:
                training.validate(validation)
            if training.at.step == training.steps or not training.active:
                return training.finish()
            losses, norms = training.forward_backward()
            training.watch(losses.tolist(), norms.tolist(), phase)
            if training.active:
                training.update(norms)
                training.save_if_due()


@dataclass
class _Training:
    """One run group in training: the model, where it stands, and the few verbs of the loop above."""

    options: TrainOptions
    runtime: Runtime
    replicas: Sequence[Replica]
    accumulation: Accumulation
    weights: Weights
    optimizer: Any
    steps: int
    states: list[ReplicaState]
    best: list[dict[str, torch.Tensor]]
    loss_path: str | None
    """How the task computes the model's losses, in words."""
    at: Position
    logs: list[MetricsLog]
    clock: Clock
    saved_at: float
    """When the newest checkpoints were written, on the clock."""
    scale: LossScale | None
    """What losses are multiplied by; None: by nothing."""

    @classmethod
    def prepare(
        cls,
        group: ReplicaGroup,
        task: Task,
        examples: Sequence[Example],
        options: TrainOptions,
        replicas: Sequence[Replica],
        runtime: Runtime,
        portions: Portions | None = None,
        compute: ComputeOptions | None = None,
    ) -> _Training:
        """Put everything in place, and go on from the replicas' newest checkpoints, where there are any."""
        weights, hooks, compute = Weights(group.model, len(replicas)), group.hooks, compute or ComputeOptions()
        plans = [plan_batches(examples, options, replica.streams) for replica in replicas]
        epoch, steps = steps_of(examples, options)
        streams = [replica.streams for replica in replicas]
        about = (options, len(replicas), hooks, compute, streams, find_blocks(group.model))
        optimizer = make_optimizer(weights.parameters, *about)
        set_training_mode(group.model)
        with runtime.autocast():
            loss_path = task.loss_path(group.model, group.count)
        model, optimizer = share(group, task, examples, optimizer, runtime)
        by_portion = None if portions is None else PortionLosses(portions, len(replicas), runtime.device)
        recompute = Recompute(group.model) if compute.gradient_checkpointing else None
        size, tokens = options.micro_batch_size or len(examples), options.micro_batch_tokens
        load_balance = LoadBalance.of(group.model, compute.moe_auxiliary_loss)
        how = (size, tokens, runtime, Meter(runtime.device), by_portion, recompute, load_balance)
        accumulation = Accumulation(group, model, task, examples, plans, *how)
        state = (group.fresh, streams, steps, accumulation.gradients_of, examples)
        hooks.begin(TrainingState(group.model, weights.parameters, *state, epoch=epoch))
        at, states, best = resumed(replicas, weights, optimizer, accumulation)
        main, pairs = runtime.accelerator.is_main_process, zip(replicas, states, strict=True)
        logs = [MetricsLog(one.folder, at.step, own.validated, main, runtime.progress.tell) for one, own in pairs]
        clock, half = Clock(at.seconds), runtime.dtype == torch.float16
        scale = LossScale(states, runtime.device) if half else None
        made = (weights, optimizer, steps, states, best, loss_path, at, logs, clock, clock.seconds, scale)
        return cls(options, runtime, replicas, accumulation, *made)

    @property
    def steps_per_epoch(self) -> int:
        """Count the optimizer steps of an epoch, the same for all replicas."""
        return self.accumulation.plans[0].steps_per_epoch

    @property
    def active(self) -> bool:
        """Tell whether any replica still learns."""
        return any(state.active for state in self.states)

    @property
    def evaluation_is_due(self) -> bool:
        """Tell whether this is one of the steps, evenly spaced, the last at the end, after which validation is
        scored."""
        count = min(self.options.evaluations, self.steps)
        due = {round(number * self.steps / count) for number in range(1, count + 1)}
        return self.at.step in due and any(state.awaits(self.at.step) for state in self.states)

    def forward_backward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the gradients of the next optimizer batch; give its losses and gradient norms, both (R,)."""
        self.hooks.begin_step(self.at.step)
        losses, counted = self.accumulation.run(self.at.step, self.scale.factors if self.scale else None)
        for state, taken in zip(self.states, counted, strict=True):
            if state.active:
                state.count(taken)
        with self.accumulation.meter("optimizer"):
            if self.scale:
                self.scale.unscale(self.weights.parameters.values())
            self.hooks.gradients()
            norms = gradient_norms(self.weights.parameters.values(), len(self.states))
            return losses, norm_over_processes(norms, self.accumulation.group.model, self.runtime.accelerator.reduce)

    def watch(self, losses: Sequence[float], norms: Sequence[float], phase: Phase) -> None:
        """Check the step for signs of divergence, log it, and show it."""
        self.at.seconds, step = self.clock.seconds, self.at.step + 1
        regular = step % max(1, self.steps // 1000) == 0 or step in (1, self.steps)
        by_portion: list[dict[str, Any]] = [{}] * len(losses)
        if regular and (portions := self.accumulation.portions) is not None:
            by_portion = [{"portions": each} for each in portions.means(self.runtime)]
        each_run = zip(self.states, self.logs, losses, norms, by_portion, strict=True)
        overflowed = self.scale.overflowed(losses, norms) if self.scale else ()
        for number, (state, log, loss, norm, own) in enumerate(each_run):
            if state.active:
                if number not in overflowed:
                    state.watch(self.at.step, loss, norm, self.options)
                if regular or not state.active:  # a thousand or so in a long run
                    log.write(
                        kind="train",
                        step=step,
                        epoch=self._epoch(step),
                        loss=finite(loss),
                        learning_rate=used_rate(self.optimizer, self.rate_at(self.at.step)),
                        gradient_norm=finite(norm),
                        tokens=state.tokens,
                        seconds=round(self.at.seconds, 5),
                        **own,
                    )
        phase.step(step, note(losses, self.states, self.at))

    def update(self, norms: torch.Tensor) -> None:
        """Clip each replica's gradient by its own norm, and take the step, but of those that take none."""
        with self.accumulation.meter("optimizer"):
            # Without a gradient too, momentum and decay would move the weights of a replica that has ended.
            still = [number for number, state in enumerate(self.states) if not state.active]
            if self.scale:
                still += self.scale.left_out(self.weights.parameters.values(), norms)
            if self.options.clip is not None:
                scale_gradients(self.weights.parameters.values(), (self.options.clip / (norms + 1e-6)).clamp(max=1.0))
            rate = set_rate(self.optimizer, self.rate_at(self.at.step))
            with self.weights.unchanged(still, [*memory_of(self.optimizer), *self.hooks.state().values()]):
                self.optimizer.step()
                self.hooks.stepped(rate)
            self.optimizer.zero_grad(set_to_none=True)
        self.at.step += 1
        for state in self.states:
            state.steps = self.at.step if state.active else state.steps

    def _decay(self, number: int, steps: int) -> None:
        """Apply the decay of so many steps to the weights that no step trains."""
        left = (1 - self.rate_at(step) * self.options.weight_decay for step in range(steps))
        self.accumulation.group.decayed(number, math.prod(left))

    @property
    def hooks(self) -> TrainingHooks:
        """Give the hooks of the strategy and of the mitigations."""
        return self.accumulation.group.hooks

    def rate_at(self, step: int) -> float:
        """Give the learning rate of a step. Where it waits for scores of their own, replicas are trained one by one."""
        return rate_at(step, self.steps, self.options, self.states[0].falls)

    def scored(self) -> dict[str, torch.Tensor] | None:
        """Give the weights to be scored and kept instead of those that learn; None: those that learn."""
        return self.hooks.scored() or averages(self.optimizer, self.weights.parameters)

    def _epoch(self, step: int) -> float:
        return round(step / self.steps_per_epoch, 4)

    def validate(self, validation: Validation) -> None:
        """Score the validation split, remember the best weights, stop replicas that no longer improve."""
        begun = self.clock.seconds
        for number, state in enumerate(self.states):
            self._decay(number, state.steps)
        try:
            with self.weights.replaced(self.scored()):
                with self.accumulation.meter("evaluation"):
                    found = validation.score()
                self._judge(found, validation)
        except Interrupted:
            self.save()
            raise
        self.at.seconds_validating += self.clock.seconds - begun
        set_training_mode(self.accumulation.group.model)

    def _judge(self, found: Sequence[dict[str, float]], validation: Validation) -> None:
        """Record each replica's scores; the weights that were scored are in place."""
        for number, (state, scores) in enumerate(zip(self.states, found, strict=True)):
            if not state.awaits(self.at.step):
                continue
            state.validated = self.at.step
            if state.judge(self.at.step, scores[validation.select], validation.higher_is_better, self.options):
                self.best[number] = keep(self.weights.of(number), self.runtime.cache, self.best[number])
            self.logs[number].write(
                kind="evaluation",
                step=self.at.step,
                epoch=self._epoch(self.at.step),
                scores={name: finite(value) for name, value in scores.items()},
                seconds=round(self.clock.seconds, 3),
            )

    def save_if_due(self) -> None:
        """Write checkpoints when the last are old enough, or when asked to stop, which then happens."""
        stopping = self.runtime.must_stop()
        if stopping or self._is_over(self.clock.seconds - self.saved_at):
            self.save()
        if stopping:
            raise Interrupted(f"stopped after step {self.at.step} of {self.steps}, which is saved")

    def _is_over(self, seconds: float) -> bool:
        """Tell whether a checkpoint is worth so many seconds. Clocks differ, and processes have to save together."""
        return self.runtime.all_reduce_sum(seconds >= self.options.checkpoint_seconds) > 0

    def save(self) -> None:
        """Write each replica's checkpoint, from which it could also go on alone, or beside others at the same step."""
        self.at.seconds, self.at.part = self.clock.seconds, self.accumulation.size
        self.at.flops_per_token = self.accumulation.flops_per_token
        with self.accumulation.meter("writing"), self.runtime.progress.phase("writing a checkpoint"):
            self.at.phases = self.accumulation.meter.seconds
            save(self.replicas, self.at, self.states, self.best, self.weights, self.optimizer, self.accumulation)
            self.runtime.accelerator.wait_for_everyone()
        self.saved_at = self.clock.seconds

    def finish(self) -> list[Trained]:
        """Put the weights that are kept into the model, and say how it went."""
        self.at.seconds = self.clock.seconds
        if self._is_over(self.at.seconds):
            # What follows takes time too; an interruption there must not cost the training.
            self.save()
        outcomes, scored = [], self.scored()
        self.hooks.end()
        for number, state in enumerate(self.states):
            kept = bool(self.options.keep == "best" and self.best[number] and state.diverged is None)
            if kept:
                self.weights.put(number, self.best[number])
            elif state.diverged is None and scored:
                self.weights.put(number, {name: self.weights.rows(value)[number] for name, value in scored.items()})
            self._decay(number, state.best_step or 0 if kept else state.steps)
            about = training_facts(state, self.at, self.accumulation, self.states, self.steps_per_epoch)
            how = {"way": self.loss_path, "best_step": state.best_step if kept else None}
            outcomes.append(Trained(state.diverged, {**about, **how}))
        # The accelerator holds on to everything it has prepared, and a study trains many models.
        self.runtime.accelerator.free_memory()
        return outcomes
