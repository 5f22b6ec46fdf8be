"""Learns which of two answers is the better one, by direct preference optimisation (DPO: Rafailov et al. 2023,
"Direct Preference Optimization: Your Language Model is Secretly a Reward Model", section 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union

from pydantic import Field

from finetune.core.errors import InputError
from finetune.core.options import Options
from finetune.core.registry import STRATEGIES
from finetune.strategies.base import Strategy

INSIDE = {name: plugin for name, plugin in STRATEGIES.all().items() if plugin.only_chooses}
"""What may stand in `of`, by name; this strategy is not registered yet."""

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch
    from transformers import PreTrainedModel

    from finetune.core.examples import Batch
    from finetune.core.hooks import Losses, TrainingState

    WhatLearns: TypeAlias = Any
else:
    WhatLearns = Union[tuple(plugin.Options for plugin in INSIDE.values())]  # noqa: UP007


def one_of(names: Iterable[str]) -> str:
    """Write names as `a`, `b` or `c`."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} or {last}"


class PreferenceOptions(Options):
    """The loss, and which parameters learn by it."""

    type: Literal["preference"]
    method: Literal["dpo"] = "dpo"
    """The loss of a pair: `dpo` is -log sigmoid(beta * m), where m is by how much training has raised the chosen
    answer's log-likelihood above the rejected one's (equation 7)."""
    beta: float = Field(0.1, gt=0)
    """How soon a pair counts as learnt, per nat of m: the smaller, the further the model may move from where it
    started. Rafailov et al. use 0.1, and 0.5 for summaries (appendix B)."""
    of: WhatLearns = Field(
        INSIDE["adapter"].Options(type="adapter"),
        discriminator="type",
        description=f"Which parameters learn: a strategy of its own with its options, {one_of(INSIDE)}; LoRA by "
        "default. Full tuning keeps a second copy of the weights in memory.",
    )


@STRATEGIES.register
class Preference(Strategy):
    """Trains the model to prefer chosen to rejected answers, without a reward model (DPO).

    The loss is that of trl's `DPOTrainer`. The frozen model that it compares with is the one that training starts
    from, which runs on each batch beside the one that learns: a step takes a third to a half longer. The base model's
    dropout is off, as in the authors' code and in trl: both have to see a pair alike.

    Source: Rafailov, Sharma, Mitchell, Ermon, Manning & Finn 2023, "Direct Preference Optimization: Your Language Model
    is Secretly a Reward Model", section 4 and equation 7.

    Not for: a base model that cannot answer yet, which learns from good answers first (strategy adapter or full, on the
    same data); answers without worse ones beside them. The chosen answers themselves may become less likely, as long
    as the rejected ones do faster: watch `loss` beside `preference_accuracy`. Learning rates are lower than for answers
    alone (the paper: 1e-6 for full tuning).
    """

    name: ClassVar[str] = "preference"
    Options = PreferenceOptions
    pairs: ClassVar[bool] = True
    only_chooses: ClassVar[bool] = False

    options: PreferenceOptions
    start: dict[str, torch.Tensor]
    """What training starts from: (R, ...) each, by name of a trained parameter."""

    def __init__(self, options: PreferenceOptions, changed: frozenset[str] = frozenset()):
        super().__init__(options, changed)
        self.inner: Strategy = STRATEGIES.get(options.of.type)(options.of, changed)

    @property
    def hooks(self) -> list[Strategy]:
        return [self, *self.inner.hooks]

    @property
    def can_stack(self) -> bool:
        return self.inner.can_stack

    @property
    def optimizer_only(self) -> bool:
        return self.inner.optimizer_only

    @property
    def differentiates(self) -> bool:
        return self.inner.differentiates

    @property
    def library(self) -> Literal["transformers", "peft", "finetune"]:
        return self.inner.library

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        _without_dropout(model)
        try:
            return self.inner.prepare(model, head)
        except InputError as error:
            raise InputError(replace(problem, path=_inside(problem.path)) for problem in error.problems) from error

    def save(self, model: Any, folder: Path) -> None:
        self.inner.save(model, folder)

    def restore(self, model: Any, folder: Path) -> None:
        self.inner.restore(model, folder)

    def begin(self, training_state: TrainingState) -> None:
        super().begin(training_state)
        self.start = {name: value.detach().clone() for name, value in training_state.parameters.items()}

    def objective(self, task: Losses, model: torch.nn.Module, batch: Batch) -> Callable[[], torch.Tensor]:
        from torch.nn.functional import logsigmoid

        with self._at_the_start():
            before = task.margins(model, batch)
        return lambda: -logsigmoid(self.options.beta * (task.margins(model, batch) - before))

    @contextmanager
    def _at_the_start(self) -> Iterator[None]:
        """Within the context, make the model the one that training starts from, with nothing about it random."""
        import torch

        own = {name: value.data for name, value in self.training_state.parameters.items()}
        training = [module for module in self.training_state.model.modules() if module.training]
        self._stand_in(self.start)
        self.training_state.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True
            self._stand_in(own)

    def _stand_in(self, weights: dict[str, torch.Tensor]) -> None:
        import torch

        for name, value in weights.items():
            self.training_state.parameters[name].data = value
        torch.clear_autocast_cache()  # which takes a parameter for the same as before


def _inside(path: str | None) -> str | None:
    """Give the place in the recipe of what the inner strategy takes for its own."""
    if path is None or not path.startswith("strategy."):
        return path
    return f"strategy.of.{path.removeprefix('strategy.')}"


def _without_dropout(model: torch.nn.Module) -> None:
    """Turn off dropout: its layers, and the shares that modules hand to functions."""
    import torch

    for module in model.modules():
        shares = [name for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]
        for name in [*shares, *(["p"] if isinstance(module, torch.nn.Dropout) else [])]:
            setattr(module, name, 0.0)
