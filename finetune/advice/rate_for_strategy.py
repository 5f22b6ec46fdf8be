"""The learning rate is one that the strategy can use."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE

SMALL = 50e6
"""Parameters under which models are tuned at higher rates."""

BANDS = {
    "full": ((1e-6, 1e-4), (1e-5, 8e-4)),
    "adapter": ((5e-5, 2e-3), (3e-4, 3e-2)),
    "preference": ((1e-7, 1e-3), (1e-6, 1e-2)),
    "partial": ((5e-6, 5e-3), (1e-5, 1e-2)),
    "linear": ((1e-4, 1e-1), (1e-4, 1e-1)),
}
"""By strategy: lowest and highest rate that work as a rule, of models of usual size and of small ones."""
TIMES = {"lion": 0.2, "schedule-free": 5.0, "muon": 1.0, "adamw": 1.0}
"""By optimizer: what these rates are multiplied with, as `train.learning_rate` explains."""


@ADVICE.register
class RateForStrategy(Rule):
    """Choose the learning rate for what learns: adapters want about ten times the rate of all weights."""

    name = "rate-for-strategy"
    why = "below it little is learnt in the steps there are; above it runs scatter, or fail"
    source = (
        "Devlin et al. 2019, appendix A.3 (all weights); Turc et al. 2019, with the rates of its models (small ones); "
        "Biderman et al. 2024, LoRA Learns Less and Forgets Less (adapters)"
    )

    def look(self, seen: Seen) -> Iterator[Saw]:
        train, strategy = seen.recipe.train, seen.recipe.strategy
        bands = BANDS.get(strategy.type)
        if seen.solved or bands is None or train.optimizer not in TIMES:
            return
        if strategy.type == "linear" and strategy.mode != "probe":
            bands = BANDS["full"]
        if strategy.type == "adapter" and strategy.method in ("ia3", "prompt", "prefix", "p-tuning"):
            return  # a few vectors, which want far higher rates
        low, high = (rate * TIMES[train.optimizer] for rate in bands[seen.parameters["total"] < SMALL])
        if low <= train.learning_rate <= high:
            return
        side = "below" if train.learning_rate < low else "above"
        size = f"a model of {seen.parameters['total'] / 1e6:,.0f} M parameters"
        found = (
            f"train.learning_rate is {train.learning_rate:g}, {side} what {strategy.type} tuning of {size} works with"
        )
        yield Saw(found, f"a rate from {low:g} to {high:g}; variants with several show which is best")
