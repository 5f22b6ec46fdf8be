"""The base class of mitigations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from finetune.core import options
from finetune.core.hooks import TrainingHook

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Runs(Protocol):
    """A variant's finished runs, as a mitigation that combines them is given them."""

    @property
    def seeds(self) -> Sequence[int]:
        """Give the seeds of all the runs, in ascending order."""

    def validated(self, seeds: Sequence[int]) -> float:
        """Score the mean of some runs' weights on the validation split: more is better, whatever the metric."""


class Mitigation(TrainingHook):
    """A known cure for unstable fine-tuning: it changes the model before training, what training does, or combines what
    came out under several seeds."""

    name: ClassVar[str]
    Options: ClassVar[type[options.Options]]
    contradicts: ClassVar[dict[str, str]] = {}
    """Other mitigations that cannot stand beside it, and strategies under which it cannot stand, with the reason."""
    needs_head: ClassVar[bool] = False
    """True when it is about the task's new head, and cannot stand where there is none."""
    redraws: ClassVar[bool] = False
    """True when what it changes before training has no pretrained value any more."""
    combines: ClassVar[Literal["weights", "predictions"] | None] = None
    """What of a variant's finished runs it makes the mean of; None: it is at work while each of them is trained."""

    def __init__(self, options: Any):
        self.options = options

    def prepare(self, model: PreTrainedModel, head: set[str], at: str) -> set[str]:
        """Change the base model's weights in place, before the strategy decides what learns; names what it changed.

        What is changed has to be trained, or it would be missing from the saved model: a strategy that leaves it
        frozen is refused. Draws come from torch's global generator, which the caller has set to the run's `init`
        stream. ``at`` is the mitigation's place in the recipe, for errors.
        """
        return set()

    def check(self, model: torch.nn.Module, fresh: frozenset[str], at: str) -> None:
        """Raise :class:`InputError` when it can do nothing for the prepared ``model``, which may be without weights.

        ``fresh`` names the trained parameters without a pretrained value.
        """

    @property
    def makes(self) -> tuple[str, ...]:
        """Name what it combines finished runs into; each becomes a folder beside those of the seeds."""
        return ()

    @property
    def validates(self) -> bool:
        """Tell whether :meth:`choose` asks for validation scores."""
        return False

    def choose(self, made: str, runs: Runs) -> Sequence[int]:
        """Choose the seeds of the runs that go into one of what it :attr:`makes`; there is at least one finished
        run."""
        return runs.seeds
