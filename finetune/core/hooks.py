"""Training hooks: what a strategy or a mitigation may do while training is under way.

Every verb does nothing unless a hook says otherwise. The training loop calls those of all hooks, the strategy's first,
then the mitigations' in the recipe's order. Shapes: R replicas; trained parameters are (R, ...) where several runs are
trained side by side, and of their own shape where one is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import torch

    from finetune.core.examples import Batch, Example, Outputs
    from finetune.core.randomness import Streams


class Noise(Protocol):
    """Random numbers that belong to the examples of the pass under way, however they are cut into parts."""

    def uniform(self, shape: torch.Size) -> torch.Tensor:
        """Draw numbers between -1 and 1 of ``shape`` (rows, ...), others at every call."""


class Losses(Protocol):
    """Of a task, what computes losses of a collated batch of N examples."""

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        """Put examples into one batch."""

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute each example's loss, (N,), nats."""

    def margins(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute by how much each pair's chosen answer is likelier than its rejected one, (N,), nats."""

    def pair_losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the loss of each pair's chosen and rejected answer, (N, 2), nats."""

    def pair_tokens(self, batch: Batch) -> torch.Tensor:
        """Count the tokens that each pair's chosen and rejected answer have, (N, 2)."""

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        """Run the model and give what losses are computed from."""


@dataclass
class TrainingState:
    """Training as its hooks see it."""

    model: torch.nn.Module
    """Of all replicas."""
    parameters: Mapping[str, torch.nn.Parameter]
    """What learns, by name."""
    fresh: frozenset[str]
    """Names of trained parameters without a pretrained value: of the head, of adapters, of what was drawn afresh."""
    streams: Sequence[Streams]
    """(R,) one for each replica."""
    steps: int
    """How many optimizer steps there are in all."""
    gradients: Callable[[Sequence[Example]], None]
    """Leaves the gradient of the mean loss over some examples, the same for all replicas, in the parameters."""
    examples: Sequence[Example]
    """What is trained on."""
    step: int = 0
    """The step under way, from 0."""
    noise: Noise | None = None
    """Within a forward pass of training."""
    batch: Batch | None = None
    """What passes through the model: within a forward pass of training."""
    epoch: int = 1
    """How many steps an epoch has."""

    @property
    def pretrained(self) -> dict[str, torch.nn.Parameter]:
        """Give the trained parameters that have a pretrained value, by name."""
        return {name: value for name, value in self.parameters.items() if name not in self.fresh}

    def rows(self, value: torch.Tensor) -> torch.Tensor:
        """Reshape ``value``, of a trained parameter's shape, by replica: (R, its size), a view where there can be."""
        return value.reshape(len(self.streams), -1)

    @contextmanager
    def passing(self, noise: Noise, batch: Batch) -> Iterator[None]:
        """Note that within the context ``batch`` passes through the model, and ``noise`` belongs to its examples."""
        self.noise, self.batch = noise, batch
        try:
            yield
        finally:
            self.noise = self.batch = None

    def uniform(self, like: torch.Tensor, *address: int) -> torch.Tensor:
        """Draw numbers from 0 to 1 in the shape of a trained parameter, from each replica's own `noise` stream: always
        the same at the same address. They are drawn on the CPU, so that every device gets the same."""
        import torch

        drawn = torch.empty(len(self.streams), like.numel() // len(self.streams))
        for own, streams in zip(drawn, self.streams, strict=True):
            own.uniform_(generator=torch.Generator().manual_seed(streams.seed_of("noise", *address)))
        return drawn.view(like.shape).to(like.device)


class TrainingHook:
    """A strategy or a mitigation, as the loop meets it."""

    name: ClassVar[str]
    options: Any
    training_state: TrainingState
    """There from :meth:`begin` on."""
    shapes_losses: ClassVar[bool] = False
    """True when :meth:`losses` is at work, for which the task's outputs are needed."""

    @property
    def can_stack(self) -> bool:
        """Tell whether several runs can be trained side by side under it."""
        return True

    @property
    def can_cache_prefix(self) -> bool:
        """Tell whether the output of the frozen bottom of the model for an example stays the same under it."""
        return True

    @property
    def optimizer_only(self) -> bool:
        """Tell whether the optimizer alone changes what learns, all of it alike, from the first step to the last."""
        verbs = ("rate", "decays", "gradients", "stepped")
        return all(getattr(type(self), verb) is getattr(TrainingHook, verb) for verb in verbs)

    @property
    def can_shard(self) -> bool:
        """Tell whether it works where each process has some rows of every parameter that learns, and the model's own
        are no plain tensors between passes. What changes weights or gradients itself has to say so."""
        verbs = ("gradients", "stepped", "scored", "state")
        return not self.differentiates and all(
            getattr(type(self), verb) is getattr(TrainingHook, verb) for verb in verbs
        )

    @property
    def differentiates(self) -> bool:
        """Tell whether it takes derivatives inside the model's forward pass, which our own kernels do not have."""
        return False

    def begin(self, training_state: TrainingState) -> None:
        """Get ready for the first step, from the weights training starts with, also if a checkpoint is loaded next."""
        self.training_state = training_state

    def rate(self, parameter: str) -> float:
        """Give the factor of a parameter's learning rate."""
        return 1.0

    def decays(self, parameter: str) -> bool:
        """Tell whether a parameter may decay, where the optimizer has weight decay for it."""
        return True

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Surround the forward passes of a part in training."""
        yield

    def objective(self, task: Losses, model: torch.nn.Module, batch: Batch) -> Callable[[], torch.Tensor] | None:
        """Give what computes the losses (N,) of a collated batch, where they are not the task's own; None: they are.

        Asked before :meth:`passing`: what is computed here already has nothing of what others do to the passes.
        """
        return None

    def losses(self, losses: torch.Tensor, outputs: Outputs, again: Callable[[], Outputs]) -> torch.Tensor:
        """Change the losses (N,) of a part's examples. ``again`` runs the model on them once more."""
        return losses

    def gradients(self) -> None:
        """Change the gradients of a whole batch, before they are clipped. Without any a parameter stays as it is."""

    def stepped(self, rate: float) -> None:
        """Do what follows the optimizer's step, which was at the learning rate ``rate``."""

    def scored(self) -> dict[str, torch.Tensor] | None:
        """Give the weights to be scored and kept instead of those that learn, by name; None: these."""
        return None

    def state(self) -> dict[str, torch.Tensor]:
        """Give the tensors that a checkpoint must remember: (R, ...) each, views of what is changed in place, so that a
        step can be undone for replicas that have ended."""
        return {}

    def resume(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what :meth:`state` gave."""

    def end(self) -> None:
        """Leave the model as training found it, but for its weights."""


class TrainingHooks(Sequence[TrainingHook]):
    """All hooks of a run, called as one."""

    def __init__(self, hooks: Sequence[TrainingHook] = ()):
        self._all = list(hooks)

    def __getitem__(self, index: Any) -> Any:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    @property
    def shaping(self) -> list[TrainingHook]:
        """Find the hooks that change losses."""
        return [each for each in self if each.shapes_losses]

    def rate(self, parameter: str) -> float:
        """Multiply the factors that all of them give to a parameter's learning rate."""
        return prod(each.rate(parameter) for each in self)

    def decays(self, parameter: str) -> bool:
        """Tell whether all of them let a parameter decay."""
        return all(each.decays(parameter) for each in self)

    def begin(self, training_state: TrainingState) -> None:
        """Tell all of them that training begins."""
        self._training_state = training_state
        for each in self:
            each.begin(training_state)

    def begin_step(self, step: int) -> None:
        """Note that ``step``, from 0, is under way from now on."""
        self._training_state.step = step

    @contextmanager
    def passing(self, noise: Noise, batch: Batch) -> Iterator[None]:
        """Surround the forward passes of ``batch``, to whose examples ``noise`` belongs."""
        with ExitStack() as stack:
            stack.enter_context(self._training_state.passing(noise, batch))
            for each in self:
                stack.enter_context(each.passing())
            yield

    def objective(self, task: Losses, model: torch.nn.Module, batch: Batch) -> Callable[[], torch.Tensor] | None:
        """Give the objective of the one hook that has its own; None where none has."""
        return next((found for each in self if (found := each.objective(task, model, batch))), None)

    def losses(
        self,
        task: Losses,
        model: torch.nn.Module,
        batch: Batch,
        objective: Callable[[], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Compute losses (N,) of a collated batch, the task's own or an ``objective``'s, as hooks change them."""
        if not self.shaping:
            return objective() if objective else task.losses(model, batch)
        outputs = task.outputs(model, batch)
        losses = objective() if objective else outputs.losses()
        for each in self.shaping:
            losses = each.losses(losses, outputs, lambda: task.outputs(model, batch))
        return losses

    def gradients(self) -> None:
        """Let each change the gradients of a whole batch."""
        for each in self:
            each.gradients()

    def stepped(self, rate: float) -> None:
        """Tell all of them that the optimizer has taken its step, at the learning rate ``rate``."""
        for each in self:
            each.stepped(rate)

    def end(self) -> None:
        """Tell all of them that training has ended."""
        for each in self:
            each.end()

    def scored(self) -> dict[str, torch.Tensor] | None:
        """Give the weights to be scored, from the one hook that has others; None where none has."""
        found = [weights for each in self if (weights := each.scored()) is not None]
        return found[0] if found else None

    def state(self) -> dict[str, torch.Tensor]:
        """Collect the tensors that a checkpoint has to remember of all of them."""
        return {f"{number}.{name}": value for number, each in enumerate(self) for name, value in each.state().items()}

    def resume(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        for number, each in enumerate(self):
            start = f"{number}."
            each.resume({name.removeprefix(start): value for name, value in state.items() if name.startswith(start)})
