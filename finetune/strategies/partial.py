"""A chosen part of the model learns: its last blocks, biases (BitFit: Ben Zaken et al. 2022, section 3), norms, ...;
all at once, or block by block from the top (gradual unfreezing: Howard & Ruder 2018, section 3.3)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from finetune.core.errors import bad_input, did_you_mean
from finetune.core.options import Options
from finetune.core.registry import STRATEGIES
from finetune.strategies.base import Strategy, train_only
from finetune.strategies.blocks import heights, last_blocks, named_blocks, parameters_above, shapes
from finetune.strategies.parts import biases, embeddings, norms

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Part = Literal["bias", "norm", "embeddings", "head"]
FINDERS = {"bias": biases, "norm": norms, "embeddings": embeddings}


class PartialOptions(Options):
    """Which part learns, beside the task's head; where several say it, their union learns."""

    type: Literal["partial"]
    last: int | None = Field(None, ge=1)
    """The last so many blocks (transformer layers), and what lies above them (final norm, pooler). Of an
    encoder-decoder the decoder's blocks are the last, and the encoder's come before them."""
    blocks: list[int | str] = Field(default_factory=list)
    """Blocks by number, from 0 at the bottom or from -1 at the top, or by name, such as `encoder.layer.5`; nothing
    that lies above them."""
    parts: Part | list[Part] = Field(default_factory=list)
    """One or more of `bias` (BitFit; its learning rates are about 1e-3), `norm` (gains and biases of every
    normalisation), `embeddings` (tables of tokens, positions and types; an output layer that is tied to them learns
    with them), and `head` (alone: a linear probe)."""
    patterns: list[str] = Field(default_factory=list)
    """Shell-style patterns over parameter names, such as `*.attention.*` or `*.bias`; `*` is all of them."""
    unfreeze: Annotated[float, Field(gt=0, le=1)] | Literal["epoch"] | None = None
    """When what learns begins to: at once, or one block after the other from the top, and what lies below them last.
    `epoch`: one more with each epoch (Howard & Ruder 2018); a share of the steps: evenly over it, such as 0.5. The
    head, and what lies above the blocks, learn from the start; what training does not get to stays as it was."""

    @model_validator(mode="after")
    def _something_learns(self) -> PartialOptions:
        if self.last is None and not (self.blocks or self.parts or self.patterns):
            raise ValueError(
                "nothing says what learns; give last: 2, or blocks: [...], or parts: bias, or patterns: [...]"
            )
        return self


@STRATEGIES.register
class Partial(Strategy):
    """Trains the last blocks, or chosen blocks, parts or parameters, and the task's head.

    Source: Lee, Tang & Lin 2019, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", section 3 (last
    blocks); Ben Zaken, Ravfogel & Goldberg 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based
    Masked Language-models", section 3 (biases); Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text
    Classification", section 3.3 (gradual unfreezing).

    Not for: tasks far from pretraining with data enough to tune everything, where what stays frozen holds the model
    back; and biases of models that have none, such as Llama and T5. Unfreezing gradually saves no time: what is
    frozen for a while takes part in every step.
    """

    name: ClassVar[str] = "partial"
    Options = PartialOptions

    options: PartialOptions
    levels: list[set[str]]
    """Names of parameters that begin to learn together, in that order."""

    @property
    def optimizer_only(self) -> bool:
        return self.options.unfreeze is None

    @property
    def reads_weights(self) -> bool:
        return False

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        chosen = set(head) | self._blocks(model) | self._parts(model, head) | self._matching(model)
        train_only(model, chosen)
        top = max(heights(model).values())
        height = {name: top if name in head else own for name, own in heights(model).items() if name in chosen}
        levels = sorted({*height.values()}, reverse=True)
        self.levels = [{name for name, own in height.items() if own == level} for level in levels]
        if self.options.unfreeze is not None and len(self.levels) == 1:
            raise bad_input(
                "strategy.unfreeze",
                "what learns lies all at one height of the model",
                "leave it out, or let blocks learn, such as last: 2, or all there is: patterns: ['*']",
            )
        return model

    def _blocks(self, model: PreTrainedModel) -> set[str]:
        """Name the parameters of the last blocks and what is above, and of chosen blocks."""
        chosen: set[str] = set()
        if self.options.last is not None:
            chosen |= parameters_above(model, last_blocks(model, self.options.last, "strategy.last")[0])
        inside = tuple(f"{block}." for block in named_blocks(model, self.options.blocks, "strategy.blocks"))
        return chosen | {name for name, _ in model.named_parameters() if name.startswith(inside)}

    def _parts(self, model: PreTrainedModel, head: set[str]) -> set[str]:
        """Name the parameters of the chosen parts."""
        wanted, chosen = self.options.parts, set[str]()
        for number, part in enumerate([wanted] if isinstance(wanted, str) else wanted):
            # The head learns anyway: its bias does not make a model one that has biases.
            found = {name: find(model) - head for name, find in FINDERS.items()} | {"head": head}
            if not found[part]:
                has = " or ".join(sorted(name for name, names in found.items() if names))
                path = "strategy.parts" if isinstance(wanted, str) else f"strategy.parts.{number}"
                raise bad_input(path, f"is {part}, and this model and task have none", f"write {has}, or last: 2")
            chosen |= found[part]
        return chosen

    def _matching(self, model: PreTrainedModel) -> set[str]:
        """Name the parameters whose names match a pattern."""
        names = [name for name, _ in model.named_parameters()]
        chosen: set[str] = set()
        for number, pattern in enumerate(self.options.patterns):
            matching = {name for name in names if fnmatchcase(name, pattern)}
            if not matching:
                raise bad_input(
                    f"strategy.patterns.{number}",
                    f"'{pattern}' matches no parameter of this model",
                    did_you_mean(pattern, shapes(names)),
                )
            chosen |= matching
        return chosen

    @property
    def can_shard(self) -> bool:
        return True

    def gradients(self) -> None:
        """Take the gradients of what does not learn yet: without one, a parameter is not decayed either, and the
        optimizer's memory of it begins when it does."""
        for number, names in enumerate(self.levels):
            if self.training_state.step < self.begins(number):
                for name in names:
                    self.training_state.parameters[name].grad = None

    def begins(self, level: int) -> int:
        """Give the first step in which a level learns."""
        if self.options.unfreeze is None:
            return 0
        if self.options.unfreeze == "epoch":
            return level * self.training_state.epoch
        return round(level / (len(self.levels) - 1) * self.options.unfreeze * self.training_state.steps)
