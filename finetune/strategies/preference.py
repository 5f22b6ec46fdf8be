"""Learns which of two answers is the better one, by direct preference optimisation (DPO: Rafailov et al. 2023,
"Direct Preference Optimization: Your Language Model is Secretly a Reward Model", section 4) or one of its relatives:
IPO, ORPO, KTO, SimPO. Their losses, with sources, are in `pairs/losses.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union

from pydantic import Field, model_validator

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


DEFAULTS = {"kto": {"desirable": 1.0, "undesirable": 1.0}, "simpo": {"beta": 2.0, "gamma": 1.0}}
"""What options of a method are where they are left out, if no other method has them or they are not the same there."""

POINTS = 8
"""Pairs from which KTO's reference point is estimated at each step. The authors use those of a micro-batch; a number of
our own, drawn for the step, makes losses not depend on how a batch is cut."""


def one_of(names: Iterable[str]) -> str:
    """Write names as `a`, `b` or `c`."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} or {last}"


class PreferenceOptions(Options):
    """The loss, and which parameters learn by it."""

    type: Literal["preference"]
    method: Literal["dpo", "ipo", "orpo", "kto", "simpo"] = "dpo"
    """The loss of a pair. With m, by how much training has raised the chosen answer's log-likelihood above the rejected
    one's: `dpo` is -log sigmoid(beta * m) (equation 7). `ipo` is (m - 1 / (2 * beta))², of log-likelihoods that are
    means over tokens (Azar et al. 2023, equation 17). `kto` takes the two answers for a desirable and an undesirable
    example (Ethayarajh et al. 2024). Without a model to compare with, and so faster: `orpo`, the chosen answer's own
    loss and beta times that of its odds (Hong et al. 2024, equation 6), which may start from a model that cannot answer
    yet; and `simpo`, -log sigmoid(beta * d - gamma), d the difference of log-likelihoods, means over tokens, of the
    model alone (Meng et al. 2024, equation 6)."""
    beta: float = Field(0.1, gt=0, allow_inf_nan=False)
    """How soon a pair counts as learnt, per nat: the smaller, the further the model may move from where it started.
    Rafailov et al. use 0.1, and 0.5 for summaries (appendix B). `ipo`: what its paper calls tau, per nat of a token.
    `orpo`: its paper's lambda, the weight of the odds' loss. `simpo`: 2 where it is left out, as in its authors'
    code."""
    gamma: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Of `simpo`: by how much a better answer should be ahead, in units of beta * d. 1 where it is left out, half of
    beta as the authors advise."""
    desirable: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Of `kto`: weight of chosen answers, its paper's lambda_D; 1 where it is left out."""
    undesirable: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Of `kto`: weight of rejected answers, its paper's lambda_U; 1 where it is left out: there are as many of both."""
    of: WhatLearns = Field(
        INSIDE["adapter"].Options(type="adapter"),
        discriminator="type",
        description=f"Which parameters learn: a strategy of its own with its options, {one_of(INSIDE)}; LoRA by "
        "default. Full tuning keeps a second copy of the weights in memory, where the method compares with it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, given: Any) -> Any:
        known = DEFAULTS.get(str(given.get("method", "dpo")), {}) if isinstance(given, dict) else {}
        return (
            {**given, **{name: value for name, value in known.items() if given.get(name) is None}} if known else given
        )

    @model_validator(mode="after")
    def _of_the_method(self) -> PreferenceOptions:
        for method, own in DEFAULTS.items():
            for name in own.keys() - {"beta"}:
                if method != self.method and getattr(self, name) is not None:
                    found = f"{name} is about method {method}, and the method is {self.method}; leave it out"
                    raise ValueError(found)
        return self


@STRATEGIES.register
class Preference(Strategy):
    """Trains the model to prefer chosen to rejected answers, without a reward model (DPO, IPO, ORPO, KTO, SimPO).

    The losses are those of trl's trainers. The frozen model that dpo, ipo and kto compare with is the one that training
    starts from, which runs on each batch beside the one that learns: a step takes a third to a half longer, and with
    kto, which also looks at a few answers to other prompts, somewhat more. The base model's dropout is off, as in the
    authors' code and in trl: both have to see a pair alike.

    Source: Rafailov, Sharma, Mitchell, Ermon, Manning & Finn 2023, "Direct Preference Optimization: Your Language Model
    is Secretly a Reward Model", section 4 and equation 7. Azar et al. 2023, "A General Theoretical Paradigm to
    Understand Learning from Human Preferences", equation 17. Hong, Lee & Thorne 2024, "ORPO: Monolithic Preference
    Optimization without Reference Model", equations 3 to 7. Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect
    Theoretic Optimization", section 4. Meng, Xia & Chen 2024, "SimPO: Simple Preference Optimization with a
    Reference-Free Reward", equation 6.

    Not for: a base model that cannot answer yet, which learns from good answers first (strategy adapter or full, on the
    same data) or by orpo; answers without worse ones beside them. The chosen answers themselves may become less likely,
    as long as the rejected ones do faster: watch `loss` beside `preference_accuracy`. Learning rates are lower than for
    answers alone (the paper: 1e-6 for full tuning).
    """

    name: ClassVar[str] = "preference"
    Options = PreferenceOptions
    pairs: ClassVar[bool] = True
    only_chooses: ClassVar[bool] = False

    options: PreferenceOptions
    start: dict[str, torch.Tensor]
    """Where training starts: (R, ...) each, by name of a trained parameter; only where the loss compares with it."""

    def __init__(self, options: PreferenceOptions, changed: frozenset[str] = frozenset()):
        super().__init__(options, changed)
        self._point: tuple[int, torch.Tensor] | None = None
        self.inner: Strategy = STRATEGIES.get(options.of.type)(options.of, changed)

    @property
    def hooks(self) -> list[Strategy]:
        return [self, *self.inner.hooks]

    @property
    def compares(self) -> bool:
        """Tell whether the loss is about what training has changed, and not about the model alone."""
        return self.options.method not in ("orpo", "simpo")

    @property
    def can_stack(self) -> bool:
        # KTO's reference point is of one model.
        return self.inner.can_stack and self.options.method != "kto"

    @property
    def can_shard(self) -> bool:
        return self.inner.can_shard

    @property
    def can_cache_prefix(self) -> bool:
        # It is computed from pairs that are no training examples, in the middle of a batch of these.
        return self.options.method != "kto"

    @property
    def last_answers(self) -> bool:
        # What two answers have in common cancels out in differences of sums alone.
        return self.options.method != "dpo"

    @property
    def reward_scale(self) -> float | None:
        return self.options.beta if self.compares else None

    @property
    def optimizer_only(self) -> bool:
        return self.inner.optimizer_only

    @property
    def differentiates(self) -> bool:
        return self.inner.differentiates

    @property
    def reads_weights(self) -> bool:
        return self.inner.reads_weights

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
        if self.compares:
            self.start = {name: value.detach().clone() for name, value in training_state.parameters.items()}

    def objective(self, task: Losses, model: torch.nn.Module, batch: Batch) -> Callable[[], torch.Tensor]:
        from torch.nn.functional import logsigmoid

        from finetune.strategies.pairs.losses import LOSSES

        if self.options.method == "dpo":  # which needs no more than differences
            with self._at_the_start():
                margins = task.margins(model, batch)
            return lambda: -logsigmoid(self.options.beta * (task.margins(model, batch) - margins))
        compute, tokens = LOSSES[self.options.method], task.pair_tokens(batch)
        if not self.compares:
            return lambda: compute(-task.pair_losses(model, batch), tokens, self.options)
        with self._at_the_start():
            before = task.pair_losses(model, batch)
        if self.options.method == "kto":
            before = before - self._reference_point(task, model, batch)
        return lambda: compute(before - task.pair_losses(model, batch), tokens, self.options)

    def _reference_point(self, task: Losses, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Estimate KTO's reference point, once in a step, from answers of some pairs to the prompts of others."""
        from finetune.strategies.pairs.losses import reference_point
        from finetune.tasks.causal.pairs import mismatched

        state = self.training_state
        if self._point is None or self._point[0] != state.step:
            draws = state.streams[0].numpy("noise", state.step, -1)
            places = draws.permutation(len(state.examples))[:POINTS].tolist()
            some = [state.examples[place] for place in places]
            others = task.collate([mismatched(one, other) for one, other in pairwise([*some, some[0]])])
            others, found = others.to(batch.example.device), []
            for weights in (self.start, {}):
                with self._frozen(weights):
                    found.append(task.pair_losses(model, others))
            self._point = state.step, reference_point(found[0] - found[1])
        return self._point[1]

    def _at_the_start(self) -> AbstractContextManager[None]:
        """Within the context, make the model the one that training starts from, with nothing about it random."""
        return self._frozen(self.start)

    @contextmanager
    def _frozen(self, weights: dict[str, torch.Tensor]) -> Iterator[None]:
        """Within the context, put ``weights`` into the model, by name; nothing learns and nothing is random."""
        import torch

        training = [module for module in self.training_state.model.modules() if module.training]
        own = self._stand_in(weights)
        self.training_state.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True
            self._stand_in(own)

    def _stand_in(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        from finetune.core.sharding import stand_in

        own = stand_in(self.training_state.parameters, weights)
        torch.clear_autocast_cache()  # which takes a parameter for the same as before
        return own


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
