"""The training loop, for a run group: R runs trained side by side, R = 1 being the plain case. Losses are (R,)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from finetune.core.errors import Interrupted
from finetune.core.examples import Example
from finetune.core.hooks import TrainingHooks, TrainingState
from finetune.core.progress import Phase
from finetune.core.runtime import Runtime
from finetune.replicas.group import Member, ReplicaGroup
from finetune.strategies.base import set_training_mode
from finetune.tasks.base import Task
from finetune.train import checkpoint
from finetune.train.batching import plan_batches, steps_of
from finetune.train.facts import note, training_facts
from finetune.train.meters import Clock, Meter, MetricsLog, finite
from finetune.train.optimizer import (
    Moments,
    averages,
    gradient_norms,
    make_optimizer,
    memory_of,
    moments_of,
    restore_moments,
    scale_gradients,
    set_rate,
    used_rate,
)
from finetune.train.options import TrainOptions
from finetune.train.passes import Accumulation
from finetune.train.processes import share
from finetune.train.schedules import rate_at
from finetune.train.state import Position, ReplicaState, Trained, Validation
from finetune.train.weights import Weights, keep


def train(
    group: ReplicaGroup,
    task: Task,
    examples: Sequence[Example],
    options: TrainOptions,
    members: Sequence[Member],
    runtime: Runtime,
    validation: Validation | None,
) -> list[Trained]:
    """Fit the trained parameters of each member's run to ``examples``; the weights that are kept are in the group's
    model afterwards.

    Resumes from the members' checkpoints, which have to be of one step. Raises :class:`Interrupted` after saving when
    asked to stop, and leaves diverged replicas with the weights they had before the step that broke them.
    """
    training = _Training.prepare(group, task, examples, options, members, runtime)
    with closing(training.passes), runtime.progress.phase(runtime.title, training.steps) as phase:
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
    members: Sequence[Member]
    passes: Accumulation
    weights: Weights
    optimizer: Any
    steps: int
    steps_per_epoch: int
    replicas: list[ReplicaState]
    best: list[dict[str, torch.Tensor]]
    way: str | None
    """How the task runs the model."""
    at: Position = field(default_factory=Position)
    logs: list[MetricsLog] = field(init=False)
    clock: Clock = field(init=False)
    saved_at: float = field(init=False)
    """When the newest checkpoints were written, on the clock."""

    @classmethod
    def prepare(
        cls,
        group: ReplicaGroup,
        task: Task,
        examples: Sequence[Example],
        options: TrainOptions,
        members: Sequence[Member],
        runtime: Runtime,
    ) -> _Training:
        """Put everything in place."""
        weights, hooks = Weights(group.model, len(members)), group.hooks
        plans = [plan_batches(examples, options, member.streams) for member in members]
        epoch, steps = steps_of(examples, options)
        optimizer = make_optimizer(weights.parameters, options, len(members), hooks)
        set_training_mode(group.model)
        with runtime.autocast():
            way = task.way(group.model, group.count)
        model, optimizer = share(group, task, examples, optimizer, runtime)
        size, meter = options.micro_batch_size or len(examples), Meter(runtime.device)
        passes = Accumulation(group, model, task, examples, plans, size, options.micro_batch_tokens, runtime, meter)
        replicas, best = [ReplicaState() for _ in members], [dict[str, torch.Tensor]() for _ in members]
        training = cls(options, runtime, members, passes, weights, optimizer, steps, epoch, replicas, best, way)
        streams = [member.streams for member in members]
        training_state = TrainingState(
            group.model, weights.parameters, group.fresh, streams, steps, passes.gradients_of, examples, epoch=epoch
        )
        for hook in hooks:
            hook.begin(training_state)
        training._resume()
        return training

    def _resume(self) -> None:
        """Go on from the members' newest checkpoints, where there are any."""
        moments, remembered = list[Moments](), list[dict[str, torch.Tensor]]()
        for number, member in enumerate(self.members):
            found = checkpoint.load(member.folder.checkpoints)
            if found:
                state, tensors = found
                self.replicas[number] = ReplicaState(**state["replica"])
                self.at = Position(**state["position"]).scaled(len(self.members))
                self.best[number] = keep(tensors.get("best", {}), self.runtime.cache)
                moments.append(tensors.get("optimizer", {}))
                remembered.append(tensors.get("techniques", {}))
                self.weights.put(number, tensors["weights"])
        if moments:
            self.at.resumed += 1
            restore_moments(self.optimizer, moments)
            self.hooks.resume({name: torch.stack([own[name] for own in remembered]) for name in remembered[0]})
            self.passes.size = min(self.passes.size, self.at.part or self.passes.size)
            self.passes.flops_per_token = self.at.flops_per_token
            self.passes.meter = Meter(self.runtime.device, self.at.phases)
        main, pairs = self.runtime.accelerator.is_main_process, zip(self.members, self.replicas, strict=True)
        self.logs = [MetricsLog(one.folder.metrics, self.at.step, own.validated, main) for one, own in pairs]
        self.clock = Clock(self.at.seconds)
        self.saved_at = self.clock.seconds

    @property
    def active(self) -> bool:
        """Whether any replica still learns."""
        return any(replica.active for replica in self.replicas)

    @property
    def evaluation_is_due(self) -> bool:
        """Whether this is one of the steps, evenly spaced, the last at the end, after which validation is scored."""
        count = min(self.options.evaluations, self.steps)
        due = {round(number * self.steps / count) for number in range(1, count + 1)}
        return self.at.step in due and any(replica.awaits(self.at.step) for replica in self.replicas)

    def forward_backward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the next optimizer batch; its losses and gradient norms, both (R,)."""
        for hook in self.hooks:
            hook.training_state.step = self.at.step
        losses, counted = self.passes.run(self.at.step)
        for replica, taken in zip(self.replicas, counted, strict=True):
            if replica.active:
                replica.count(taken)
        with self.passes.meter("optimizer"):
            for hook in self.hooks:
                hook.gradients()
            return losses, gradient_norms(self.weights.parameters.values(), len(self.replicas))

    def watch(self, losses: Sequence[float], norms: Sequence[float], phase: Phase) -> None:
        """Hold the step against the signs of divergence, log it, and show it."""
        self.at.seconds, step = self.clock.seconds, self.at.step + 1
        regular = step % max(1, self.steps // 1000) == 0 or step in (1, self.steps)
        for replica, log, loss, norm in zip(self.replicas, self.logs, losses, norms, strict=True):
            if replica.active:
                replica.watch(self.at.step, loss, norm, self.options)
                if regular or not replica.active:  # a thousand or so in a long run
                    log.write(
                        kind="train",
                        step=step,
                        epoch=self._epoch(step),
                        loss=finite(loss),
                        learning_rate=used_rate(self.optimizer, self.rate_at(self.at.step)),
                        gradient_norm=finite(norm),
                        tokens=replica.tokens,
                        seconds=round(self.at.seconds, 5),
                    )
        phase.step(step, note(losses, self.replicas, self.at))

    def update(self, norms: torch.Tensor) -> None:
        """Clip each replica's gradient by its own norm, and take the step."""
        with self.passes.meter("optimizer"):
            # Without a gradient too, momentum and decay would move the weights of a replica that has ended.
            ended = [number for number, replica in enumerate(self.replicas) if not replica.active]
            if self.options.clip is not None:
                factors = (self.options.clip / (norms + 1e-6)).clamp(max=1.0)
                scale_gradients(self.weights.parameters.values(), factors)
            set_rate(self.optimizer, self.rate_at(self.at.step))
            rate = used_rate(self.optimizer, self.rate_at(self.at.step))
            with self.weights.unchanged(ended, [*memory_of(self.optimizer), *self.hooks.state().values()]):
                self.optimizer.step()
                for hook in self.hooks:
                    hook.stepped(rate)
            self.optimizer.zero_grad(set_to_none=True)
        self.at.step += 1
        for replica in self.replicas:
            replica.steps = self.at.step if replica.active else replica.steps

    def _decay(self, number: int, steps: int) -> None:
        """Make up for the decay, over so many steps, of what only decays."""
        left = (1 - self.rate_at(step) * self.options.weight_decay for step in range(steps))
        self.passes.group.decayed(number, math.prod(left))

    @property
    def hooks(self) -> TrainingHooks:
        """The strategy and the mitigations."""
        return self.passes.group.hooks

    def rate_at(self, step: int) -> float:
        """The learning rate of a step. Where it waits for scores of their own, replicas are trained one by one."""
        return rate_at(step, self.steps, self.options, self.replicas[0].falls)

    def scored(self) -> dict[str, torch.Tensor] | None:
        """The weights to be scored and kept instead of those that learn."""
        return self.hooks.scored() or averages(self.optimizer, self.weights.parameters)

    def _epoch(self, step: int) -> float:
        return round(step / self.steps_per_epoch, 4)

    def validate(self, validation: Validation) -> None:
        """Score the validation split, remember the best weights, stop replicas that no longer improve."""
        begun = self.clock.seconds
        for number, replica in enumerate(self.replicas):
            self._decay(number, replica.steps)
        try:
            with self.weights.replaced(self.scored()):
                with self.passes.meter("evaluation"):
                    found = validation.score()
                self._judge(found, validation)
        except Interrupted:
            self.save()
            raise
        self.at.seconds_validating += self.clock.seconds - begun
        set_training_mode(self.passes.group.model)

    def _judge(self, found: Sequence[dict[str, float]], validation: Validation) -> None:
        """Take note of each replica's scores; the weights that were scored are in place."""
        for number, (replica, scores) in enumerate(zip(self.replicas, found, strict=True)):
            if not replica.awaits(self.at.step):
                continue
            replica.validated = self.at.step
            if replica.judge(self.at.step, scores[validation.select], validation.higher_is_better, self.options):
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
        """Whether a checkpoint is worth so many seconds. Clocks differ, and processes have to save together."""
        return self.runtime.all_reduce_sum(seconds >= self.options.checkpoint_seconds) > 0

    def save(self) -> None:
        """Write each member's checkpoint, from which it could also go on alone, or beside others at the same step."""
        self.at.seconds, self.at.part = self.clock.seconds, self.passes.size
        self.at.flops_per_token = self.passes.flops_per_token
        with self.passes.meter("writing"), self.runtime.progress.phase("writing a checkpoint"):
            if self.runtime.accelerator.is_main_process:
                for number, member in enumerate(self.members):
                    self._save(number, member)
            self.runtime.accelerator.wait_for_everyone()
        self.saved_at = self.clock.seconds

    def _save(self, number: int, member: Member) -> None:
        self.at.phases = self.passes.meter.seconds
        share = self.at.scaled(1 / len(self.members))  # it may go on alone, or in another group
        checkpoint.save(
            member.folder.checkpoints,
            self.at.step,
            {"position": vars(share), "replica": asdict(self.replicas[number])},
            {
                "weights": self.weights.of(number),
                "techniques": {name: value[number] for name, value in self.hooks.state().items()},
                "optimizer": moments_of(self.optimizer, number, len(self.members)),
                "best": self.best[number],
            },
        )

    def finish(self) -> list[Trained]:
        """Put the weights that are kept into the model, and say how it went."""
        self.at.seconds = self.clock.seconds
        if self._is_over(self.at.seconds):
            # What follows takes time too; an interruption there must not cost the training.
            self.save()
        outcomes, scored = [], self.scored()
        for hook in self.hooks:
            hook.end()
        for number, replica in enumerate(self.replicas):
            kept = bool(self.options.keep == "best" and self.best[number] and replica.diverged is None)
            if kept:
                self.weights.put(number, self.best[number])
            elif replica.diverged is None and scored:
                self.weights.put(number, {name: self.weights.rows(value)[number] for name, value in scored.items()})
            self._decay(number, replica.best_step or 0 if kept else replica.steps)
            about = training_facts(replica, self.at, self.passes, self.replicas, self.steps_per_epoch)
            how = {"way": self.way, "best_step": replica.best_step if kept else None}
            outcomes.append(Trained(replica.diverged, {**about, **how}))
        # The accelerator holds on to everything it has prepared, and a study trains many models.
        self.runtime.accelerator.free_memory()
        return outcomes
