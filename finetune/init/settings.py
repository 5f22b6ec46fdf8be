"""How to begin: strategy, rate, epochs, batch and seeds, each with a reason and where that comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from finetune.init.base_model import LARGE, SMALL, Base
from finetune.init.understood import Understood

STEPS = 1000
"""Steps that a small model is to have to learn a task with a new head, where data are few."""
SENTENCE_STEPS, SENTENCE_RATE = 250, 1.0e-4
"""The same for a small encoder that was made for sentences, of which the head reads just that: it forgets more than it
learns in many steps at a high rate. Tried with MiniLM on STS-B and BBC News, in other examples than those of
recipes/RESULTS.md; not with larger ones, nor with sets of labels."""
LABEL_STEPS = 12
"""Of these, for each label where labels are many. On banking77, 1e-4 to 3e-4 made no difference in so many."""
MOST_EPOCHS = 20
"""Mosbach et al. 2021, section 6: their stable recipe for small data."""
RANK = 8


@dataclass(frozen=True)
class Settings:
    """What a recipe says beside its data and its task: sections, and the reason of each by its name."""

    sections: dict[str, Any]
    why: dict[str, str] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    """Options of the task that go with the strategy."""


def settings_for(found: Understood, base: Base, rows: int, labels: int = 0) -> Settings:
    """Propose settings for ``rows`` training examples, of one out of so many ``labels``; 0: of no label."""
    if found.preference:
        return _preference(base, rows)
    if found.task == "embedding":
        train = {"epochs": 1, "batch_size": 32, "learning_rate": 2.0e-5}
        why = "an encoder of sentences changes little: one pass, 2e-5 (Reimers and Gurevych 2019, section 3.1)"
        return _one("full", train, "all weights learn", why, seeds=3)
    if base.family == "decoder" and found.task in ("chat", "language", "label-words", "multiple-choice"):
        return _written(found, base, rows)
    if found.task == "seq2seq":
        train = {"epochs": _epochs(rows, 16, STEPS), "batch_size": 16, "learning_rate": _full_rate(base)}
        return _one(
            "full", train, "all weights learn, as encoder-decoders are usually tuned", _rate_reason(base), seeds=3
        )
    return _headed(found, base, rows, labels)


def _headed(found: Understood, base: Base, rows: int, labels: int) -> Settings:
    """Settings for a new head on a model."""
    batch = 32 if rows >= 4000 else 16
    pooled = found.task in ("classification", "regression", "multi-label-classification") and base.pooling
    gently = bool(pooled and found.task != "multi-label-classification" and base.parameters < SMALL)
    steps = max(SENTENCE_STEPS, LABEL_STEPS * labels) if gently else STEPS
    train: dict[str, Any] = {"epochs": _epochs(rows, batch, steps), "batch_size": batch}
    task = {"pooling": base.pooling} if pooled else {}
    large = base.parameters >= LARGE or base.family == "decoder"
    train["learning_rate"] = _adapter_rate(base) if large else SENTENCE_RATE if gently else _full_rate(base)
    tuned: dict[str, Any] = {
        "strategy": {"type": "adapter", "method": "lora", "rank": RANK} if large else {"type": "full"}
    }
    name, all_learn = (
        ("lora", "LoRA, since all weights would take much memory") if large else ("full", "all weights learn")
    )
    why = {"train": f"{_steps_reason(train, rows)}; {_rate_reason(base, large, gently)}", "seeds": _seeds_reason(5)}
    if found.task in ("classification", "regression") and "ordinal" not in found.options:
        # A probe is solved: it has no steps, and no settings.
        variants = {"probe": {"strategy": {"type": "linear"}}, name: {**tuned, **({"task": task} if task else {})}}
        why["variants"] = (
            f"a probe of the frozen model, solved in seconds, beside {name} ({all_learn}): the study shows whether "
            "tuning more than a head pays"
        )
        return Settings({"seeds": 5, "train": train, "variants": variants}, why)
    why["strategy"] = all_learn
    return Settings({"seeds": 5, **tuned, "train": train}, why, task)


def _written(found: Understood, base: Base, rows: int) -> Settings:
    """Settings for a model that writes."""
    epochs = 1 if rows > 2000 or found.task == "language" else 2 if rows > 500 else 3
    train = {"epochs": epochs, "batch_size": 8, "learning_rate": _adapter_rate(base), "evaluations": 2}
    strategy = {"type": "adapter", "method": "lora", "rank": RANK}
    reason = "LoRA: a model that writes is tuned so with a fraction of the memory (Hu et al. 2021, section 5)"
    why = {"strategy": reason, "train": f"{_steps_reason(train, rows)}; {_rate_reason(base, True)}"}
    return Settings({"seeds": 3, "strategy": strategy, "train": train}, {**why, "seeds": _seeds_reason(3)})


def _preference(base: Base, rows: int) -> Settings:
    train = {
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": round(_adapter_rate(base) / 5, 6),
        "evaluations": 2,
    }
    strategy = {"type": "preference", "method": "dpo", "of": {"type": "adapter", "method": "lora", "rank": RANK}}
    why = {
        "strategy": "direct preference optimisation of a LoRA (Rafailov et al. 2023, equation 7)",
        "train": f"{_steps_reason(train, rows)}; a fifth of LoRA's usual rate, since answers are only to be reordered",
        "seeds": _seeds_reason(3),
    }
    return Settings({"seeds": 3, "strategy": strategy, "train": train}, why)


def _one(strategy: str, train: dict[str, Any], what: str, why: str, seeds: int) -> Settings:
    sections = {"seeds": seeds, "strategy": {"type": strategy}, "train": train}
    return Settings(sections, {"strategy": what, "train": why, "seeds": _seeds_reason(seeds)})


def _epochs(rows: int, batch: int, steps: int) -> int:
    return min(max(round(steps * batch / max(rows, 1)), 3 if rows < 50_000 else 1), MOST_EPOCHS)


def _steps_reason(train: dict[str, Any], rows: int) -> str:
    steps = max(round(train["epochs"] * rows / train["batch_size"]), train.get("min_steps", 100))
    few = ", many for few data (Mosbach et al. 2021, section 6)" if train["epochs"] > 3 else ""
    return f"about {steps:,} steps in {train['epochs']} epoch{'' if train['epochs'] == 1 else 's'}{few}"


def _full_rate(base: Base) -> float:
    return 3.0e-4 if base.parameters < SMALL else 5.0e-5 if base.parameters < LARGE else 1.0e-5


def _adapter_rate(base: Base) -> float:
    return 3.0e-3 if base.parameters < SMALL else 1.0e-3 if base.parameters < LARGE else 2.0e-4


def _rate_reason(base: Base, adapter: bool = False, gently: bool = False) -> str:
    size = f"{base.parameters / 1e6:,.0f} M parameters"
    if adapter:
        return f"LoRA wants about ten times the rate of full tuning (Biderman et al. 2024), at {size}"
    if gently:
        return (
            f"a model of {size} takes a high rate (Turc et al. 2019), and one that was made for sentences a lower one"
        )
    if base.parameters < SMALL:
        return f"a model of {size} wants a higher rate than a large one (Turc et al. 2019)"
    return f"the rates at which models of {size} are usually tuned (Devlin et al. 2019, appendix A.3)"


def _seeds_reason(seeds: int) -> str:
    if seeds < 5:
        return f"{seeds} seeds are a first look: a claim wants ten"
    return f"{seeds} seeds show large differences; `finetune plan` says how many a small one takes"
