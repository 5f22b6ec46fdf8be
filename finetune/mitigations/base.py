"""What a mitigation is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from finetune import options

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Mitigation:
    """A known cure for unstable fine-tuning: it changes the model before training, and says so in the report."""

    name: ClassVar[str]
    Options: ClassVar[type[options.Options]]

    def __init__(self, options: Any):
        self.options = options

    def prepare(self, model: PreTrainedModel, head: set[str], at: str) -> set[str]:
        """Change the base model's weights in place, before the strategy decides what learns; names what it changed.

        What is changed has to be trained, or it would be missing from the saved model: a strategy that leaves it
        frozen is refused. Draws come from torch's global generator, which the caller has set to the run's `init`
        stream. ``at`` is the mitigation's place in the recipe, for errors.
        """
        raise NotImplementedError
