"""The training loop, for a run group: R runs trained side by side, R = 1 being the plain case. Losses are (R,)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from finetune.errors import Interrupted
from finetune.randomness import Streams
from finetune.strategies.base import set_training_mode, trained_parameters
from finetune.surroundings import Surroundings
from finetune.tasks.base import Example, Task
from finetune.train import checkpoint
from finetune.train.batching import plan_batches, total_steps
from finetune.train.meters import Clock, MetricsLog
from finetune.train.optimizer import gradient_norms, make_optimizer, rate_factor, scale_gradients, set_rate
from finetune.train.options import TrainOptions
from finetune.train.passes import Passes
from finetune.train.state import Position, Replica


@dataclass(frozen=True)
class Validation:
    """How weights are scored during training."""

    score: Callable[[], list[dict[str, float]]]
    """Scores of each replica on the validation split, by metric."""
    select: str
    higher_is_better: bool


@dataclass
class Trained:
    """How training went, for one replica."""

    diverged: str | None
    facts: dict[str, Any]


def train(
    model: torch.nn.Module,
    task: Task,
    examples: Sequence[Example],
    options: TrainOptions,
    runs: Sequence[Streams],
    around: Surroundings,
    validation: Validation | None,
) -> list[Trained]:
    """Fit ``model``'s trained parameters to ``examples``; the weights that are kept are in it afterwards.

    Resumes from the newest checkpoint in ``around.folder``. Raises :class:`Interrupted` after saving one when asked
    to stop, and leaves diverged replicas with the weights they had before the step that broke them.
    """
    group = _Group.prepare(model, task, examples, options, runs, around)
    while True:
        if validation and group.evaluation_is_due:
            group.validate(validation)
        if group.at.step == group.steps or not group.active:
            return group.finish()
        losses, norms = group.forward_backward()
        for replica, loss, norm in zip(group.replicas, losses.tolist(), norms.tolist(), strict=True):
            if replica.active:
                replica.watch(group.at.step, loss, norm, options)
        group.log_step(losses, norms)
        if group.active:
            group.update(norms)
            group.save_if_due()


@dataclass
class _Group:
    """One run group in training: the model, where it stands, and the few verbs of the loop above."""

    options: TrainOptions
    around: Surroundings
    passes: Passes
    parameters: dict[str, torch.nn.Parameter]
    optimizer: Any
    steps: int
    steps_per_epoch: int
    replicas: list[Replica]
    best: list[dict[str, torch.Tensor]]
    at: Position = field(default_factory=Position)
    log: MetricsLog = field(init=False)
    clock: Clock = field(init=False)
    saved_at: float = field(init=False)
    """When the newest checkpoint was written, on the clock."""

    @classmethod
    def prepare(
        cls,
        model: torch.nn.Module,
        task: Task,
        examples: Sequence[Example],
        options: TrainOptions,
        runs: Sequence[Streams],
        around: Surroundings,
    ) -> _Group:
        """Put everything in place, from the newest checkpoint where there is one."""
        parameters = trained_parameters(model)
        for parameter in parameters.values():
            # Each replica's row is read and written through views, which a transposed weight has none of.
            parameter.data = parameter.data.contiguous()
        plans = [plan_batches(examples, options, streams) for streams in runs]
        epoch = plans[0].steps_per_epoch
        steps = total_steps(epoch, options.epochs, options.min_steps, options.max_steps)
        model, optimizer = around.accelerator.prepare(model, make_optimizer(parameters, options, len(runs)))
        set_training_mode(model)
        passes = Passes(model, task, examples, plans, options.micro_batch_size or options.batch_size, around)
        replicas, best = [Replica() for _ in runs], [dict[str, torch.Tensor]() for _ in runs]
        group = cls(options, around, passes, parameters, optimizer, steps, epoch, replicas, best)
        group._resume()
        group._announce()
        return group

    def _resume(self) -> None:
        """Go on from the newest checkpoint, where there is one."""
        found = checkpoint.load(self.around.folder.checkpoints)
        if found:
            state, tensors = found
            self.replicas = [Replica(**replica) for replica in state["replicas"]]
            self.at = Position(**state["position"])
            self.at.resumed += 1
            self.best = [tensors.get("best", {}).get(str(number), {}) for number in range(len(self.replicas))]
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(tensors["weights"][name])
            moments = {int(number): entry for number, entry in tensors.get("optimizer", {}).items()}
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        main = self.around.accelerator.is_main_process
        self.log = MetricsLog(self.around.folder.metrics, self.at.step, self.at.validated, main)
        self.clock = Clock(self.at.seconds)
        self.saved_at = self.clock.seconds

    def _announce(self) -> None:
        self.around.progress.start(self.around.title, self.steps)
        self.around.progress.step(self.at.step)

    @property
    def active(self) -> bool:
        """Whether any replica still learns."""
        return any(replica.active for replica in self.replicas)

    @property
    def evaluation_is_due(self) -> bool:
        """Whether this is one of the steps, evenly spaced, the last at the end, after which validation is scored."""
        count = min(self.options.evaluations, self.steps)
        due = {round(number * self.steps / count) for number in range(1, count + 1)}
        return self.active and self.at.step in due and self.at.step > self.at.validated

    def forward_backward(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the next optimizer batch; its losses and gradient norms, both (R,)."""
        losses, counted = self.passes.run(self.at.step)
        self.at.count(**counted)
        return losses, gradient_norms(self.parameters.values(), len(self.replicas))

    def update(self, norms: torch.Tensor) -> None:
        """Clip each replica's gradient by its own norm, and take the step."""
        # Without a gradient too, momentum and decay would move the weights of a replica that has ended.
        ended = [number for number, replica in enumerate(self.replicas) if not replica.active]
        final = {name: self._rows(parameter)[ended] for name, parameter in self.parameters.items()} if ended else {}
        if self.options.clip is not None:
            factors = (self.options.clip / (norms + 1e-6)).clamp(max=1.0)
            scale_gradients(self.parameters.values(), factors)
        set_rate(self.optimizer, self.rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for name, weights in final.items():
            self._rows(self.parameters[name])[ended] = weights
        self.at.step += 1

    def _rows(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Each replica's weights in ``parameter``, (R, its size): a view."""
        return parameter.detach().view(len(self.replicas), -1)

    @property
    def rate(self) -> float:
        options = self.options
        return options.learning_rate * rate_factor(self.at.step, self.steps, options.warmup, options.schedule)

    def log_step(self, losses: torch.Tensor, norms: torch.Tensor) -> None:
        """One row in `metrics.jsonl` (a thousand or so in a long run), and the live line."""
        self.at.seconds = self.clock.seconds
        step, loss, norm = self.at.step + 1, float(losses[0]), float(norms[0])
        speed = self.at.tokens / max(self.at.seconds - self.at.seconds_validating, 1e-9)
        self.around.progress.step(step, f"loss {loss:.3f} · {speed:,.0f} tokens/s")
        diverged = self.replicas[0].diverged is not None
        if step % max(1, self.steps // 1000) == 0 or step in (1, self.steps) or diverged:
            self.log.write(
                kind="train",
                step=step,
                epoch=self._epoch(step),
                loss=_finite(loss),
                learning_rate=self.rate,
                gradient_norm=_finite(norm),
                tokens=self.at.tokens,
                seconds=round(self.at.seconds, 3),
            )

    def _epoch(self, step: int) -> float:
        return round(step / self.steps_per_epoch, 4)

    def validate(self, validation: Validation) -> None:
        """Score the validation split, remember the best weights, stop replicas that no longer improve."""
        begun = self.clock.seconds
        try:
            found = validation.score()
        except Interrupted:
            self.save()
            raise
        for number, (replica, scores) in enumerate(zip(self.replicas, found, strict=True)):
            if replica.active and replica.judge(
                self.at.step, scores[validation.select], validation.higher_is_better, self.options
            ):
                self.best[number] = {
                    name: self._rows(parameter)[number].clone() for name, parameter in self.parameters.items()
                }
            self.log.write(
                kind="evaluation",
                step=self.at.step,
                epoch=self._epoch(self.at.step),
                scores={name: _finite(value) for name, value in scores.items()},
                seconds=round(self.clock.seconds, 3),
            )
        self.at.validated = self.at.step
        self.at.seconds_validating += self.clock.seconds - begun
        set_training_mode(self.passes.model)

    def save_if_due(self) -> None:
        """Write a checkpoint when the last is old enough, or when asked to stop, which then happens."""
        stopping = self.around.must_stop()
        if stopping or self._is_over(self.clock.seconds - self.saved_at):
            self.save()
        if stopping:
            raise Interrupted(f"stopped after step {self.at.step} of {self.steps}, which is saved")

    def _is_over(self, seconds: float) -> bool:
        """Whether a checkpoint is worth so many seconds. Clocks differ, and processes have to save together."""
        return self.around.total(seconds >= self.options.checkpoint_seconds) > 0

    def save(self) -> None:
        """Write a checkpoint."""
        self.at.seconds = self.clock.seconds
        if self.around.accelerator.is_main_process:
            moments = self.optimizer.state_dict()["state"]
            checkpoint.save(
                self.around.folder.checkpoints,
                self.at.step,
                {"position": vars(self.at), "replicas": [asdict(replica) for replica in self.replicas]},
                {
                    "weights": dict(self.parameters),
                    "optimizer": {str(key): entry for key, entry in moments.items()},
                    "best": {str(number): weights for number, weights in enumerate(self.best)},
                },
            )
        self.around.accelerator.wait_for_everyone()
        self.saved_at = self.clock.seconds

    def finish(self) -> list[Trained]:
        """Put the weights that are kept into the model, and say how it went."""
        outcomes = []
        self.at.seconds = self.clock.seconds
        if self._is_over(self.at.seconds):
            # What follows takes time too; an interruption there must not cost the training.
            self.save()
        for number, replica in enumerate(self.replicas):
            kept = self.options.keep == "best" and self.best[number] and replica.diverged is None
            if kept:
                for name, parameter in self.parameters.items():
                    self._rows(parameter)[number] = self.best[number][name]
            training = self.at.seconds - self.at.seconds_validating
            facts = {
                "steps": self.at.step,
                "epochs": self._epoch(self.at.step),
                "examples": self.at.examples,
                "tokens": self.at.tokens,
                "tokens_per_second": round(self.at.tokens / max(training, 1e-9), 1),
                "padding": round(1 - self.at.tokens / max(self.at.padded, 1), 4),
                "best_step": replica.best_step if kept else None,
                "stopped_early": replica.stopped_early,
                "resumed": self.at.resumed,
                "seconds": round(self.at.seconds, 3),
            }
            outcomes.append(Trained(replica.diverged, facts))
        # The accelerator holds on to everything it has prepared, and a study trains many models.
        self.around.accelerator.free_memory()
        return outcomes


def _finite(value: float) -> float | None:
    """JSON has no word for NaN or infinity."""
    return value if np.isfinite(value) else None
