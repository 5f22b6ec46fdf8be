"""Every parameter learns, at a rate that adapts: over time (Schedule-Free: Defazio et al. 2024, algorithm 1; Prodigy:
Mishchenko & Defazio 2024) or from one part of the model to another (Howard & Ruder 2018, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from finetune.core.options import Options
from finetune.core.registry import STRATEGIES
from finetune.strategies.rates import by_height, by_pattern
from finetune.strategies.whole_model import WholeModel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DECAY = 0.95


class RateGroup(Options):
    """Parameters that have a learning rate of their own."""

    pattern: str
    """Shell-style pattern over parameter names, such as `*.attention.*`; a parameter is in the first group that
    matches it, and keeps the recipe's rate when none does."""
    factor: float = Field(gt=0)
    """What their learning rate is multiplied with."""


class AdaptiveOptions(Options):
    """What the rate adapts to."""

    type: Literal["adaptive"]
    method: Literal["plateau", "schedule-free", "prodigy", "layerwise", "groups"]
    """`plateau`: falls when the validation score no longer improves, as `train.plateau` says. `schedule-free`: stays,
    and the weights are averaged instead. `prodigy`: is found while training, as `train.prodigy` says. `layerwise`:
    falls from block to block towards the embeddings. `groups`: differs by parameter name. The first three are set in
    `train`, where every strategy can have them."""
    decay: float | None = Field(None, gt=0, le=1)
    """With `layerwise`: a block's rate as a share of that of what stands above it. Default: 0.95 (Zhang et al. 2021);
    Howard & Ruder use 1/2.6, about 0.38."""
    groups: list[RateGroup] = Field(default_factory=list)
    """With `groups`: which parameters learn how much faster or more slowly."""

    @model_validator(mode="after")
    def _method_takes_them(self) -> AdaptiveOptions:
        if self.decay is not None and self.method != "layerwise":
            raise ValueError(f"decay belongs to method layerwise, and the method is {self.method}; leave it out")
        if self.groups and self.method != "groups":
            raise ValueError(f"groups belong to method groups, and the method is {self.method}; leave them out")
        if self.method == "groups" and not self.groups:
            raise ValueError("method groups has no groups; give groups: [{pattern: '*embed*', factor: 0.1}, ...]")
        return self


@STRATEGIES.register
class Adaptive(WholeModel):
    """Trains every parameter of the model, at a learning rate that adapts.

    Source: Defazio et al. 2024, "The Road Less Scheduled", algorithm 1 (schedule-free), and Mishchenko & Defazio 2024,
    "Prodigy: An Expeditiously Adaptive Parameter-Free Learner" (prodigy), both in their authors' own code; Howard &
    Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.2 (groups, layerwise); Zhang
    et al. 2021, "Revisiting Few-sample BERT Fine-tuning", section 6 (layerwise).

    Not for: training of few steps, over which Prodigy only begins to find its rate and Schedule-Free averages what the
    first steps made; a validation split so small that its score falls and rises by chance, for plateau. Prodigy and
    plateau train one seed at a time; Prodigy needs twice AdamW's memory.
    """

    name: ClassVar[str] = "adaptive"
    Options = AdaptiveOptions
    only_chooses: ClassVar[bool] = False

    options: AdaptiveOptions

    @property
    def training(self) -> dict[str, Any]:
        method = self.options.method
        if method == "plateau":
            return {"schedule": method}
        return {"optimizer": method} if method in ("schedule-free", "prodigy") else {}

    @property
    def optimizer_only(self) -> bool:
        return self.options.method not in ("layerwise", "groups")

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        self._factors: dict[str, float] = {}
        if self.options.method == "layerwise":
            self._factors = by_height(model, self.options.decay or DECAY, "strategy.method")
        elif self.options.method == "groups":
            groups = [(group.pattern, group.factor) for group in self.options.groups]
            self._factors = by_pattern(model, groups, "strategy.groups")
        return super().prepare(model, head)

    def rate(self, parameter: str) -> float:
        return self._factors.get(parameter, 1.0)
