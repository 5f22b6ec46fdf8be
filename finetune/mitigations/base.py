"""What a mitigation is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from finetune import options
from finetune.technique import Technique

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Mitigation(Technique):
    """A known cure for unstable fine-tuning: it changes the model before training, or what training does."""

    name: ClassVar[str]
    Options: ClassVar[type[options.Options]]
    contradicts: ClassVar[dict[str, str]] = {}
    """Other mitigations that cannot stand beside it, and strategies under which it cannot stand, with the reason."""
    redraws: ClassVar[bool] = False
    """True when what it changes before training has no pretrained value any more."""

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
