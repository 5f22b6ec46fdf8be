"""The last blocks, or parameters chosen by name, learn; everything below stays frozen."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from finetune.errors import bad_input, did_you_mean
from finetune.options import Options
from finetune.registry import STRATEGIES
from finetune.strategies.base import Strategy, train_only
from finetune.strategies.blocks import last_blocks, parameters_above

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class PartialOptions(Options):
    """Which part learns; at least one of the two, and both together train their union."""

    type: Literal["partial"]
    last: int | None = Field(None, ge=1)
    """The last so many blocks (transformer layers), and what lies above them (final norm, pooler)."""
    patterns: list[str] = Field(default_factory=list)
    """Shell-style patterns over parameter names, such as `*.attention.*` or `*.bias`."""

    @model_validator(mode="after")
    def _something_learns(self) -> PartialOptions:
        if self.last is None and not self.patterns:
            raise ValueError("nothing says what learns; give last: 2, or patterns: [...]")
        return self


@STRATEGIES.register
class Partial(Strategy):
    """Trains the last blocks, or the parameters whose names match a pattern, and the task's head."""

    name: ClassVar[str] = "partial"
    Options = PartialOptions

    options: PartialOptions

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        names = [name for name, _ in model.named_parameters()]
        chosen = set(head)
        if self.options.last is not None:
            chosen |= parameters_above(model, last_blocks(model, self.options.last, "strategy.last")[0])
        for number, pattern in enumerate(self.options.patterns):
            matching = {name for name in names if fnmatchcase(name, pattern)}
            if not matching:
                raise bad_input(
                    f"strategy.patterns.{number}",
                    f"'{pattern}' matches no parameter of this model",
                    did_you_mean(pattern, _shapes(names)),
                )
            chosen |= matching
        train_only(model, chosen)
        return model


def _shapes(names: list[str]) -> list[str]:
    """Parameter names with block numbers replaced by `*`, each once: a list short enough to read."""
    return sorted({".".join("*" if part.isdecimal() else part for part in name.split(".")) for name in names})
