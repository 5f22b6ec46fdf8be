"""From a recipe's options to what peft's config class is given."""

from __future__ import annotations

import math
from typing import Any, Literal

from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune.core.errors import bad_input
from finetune.strategies.adapters.adalora import UNKNOWN_STEPS
from finetune.strategies.adapters.methods import DEFAULTS, Method, checked
from finetune.strategies.blocks import find_blocks

KINDS: tuple[Literal["rank", "alpha", "dropout"], ...] = ("rank", "alpha", "dropout")


def settings_of(options: Any, method: Method, model: PreTrainedModel) -> dict[str, Any]:
    """Put together the settings of peft's config class: the method's presets, the options that all methods share, and
    the recipe's further ones.

    Raises :class:`InputError` for those that the method does not have.
    """
    given = checked(method, options.options, "strategy.options")
    settings = {**DEFAULTS.get(method.name, {}), **method.preset, **given}
    for kind in KINDS:
        value, name = getattr(options, kind), method.option(kind)
        if not value:
            continue
        if name is None:
            advice = f"leave it out; it has strategy.options {', '.join(method.options)}"
            raise bad_input(f"strategy.{kind}", f"method '{method.word}' has no {kind}", advice)
        if name in given:
            raise bad_input(f"strategy.options.{name}", f"is strategy.{kind} once more", "leave one of them out")
        settings[name] = int(value) if float(value).is_integer() else value
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    if transposed and "fan_in_fan_out" in method.fields:
        settings.setdefault("fan_in_fan_out", True)
    if method.name in ("lora", "adalora"):
        _complete_lora(method, settings)
    if method.name == "oft" and settings.get("r"):
        settings.setdefault("oft_block_size", 0)  # the other way to say the same, and peft takes only one
    if method.name == "adaption_prompt":
        settings.setdefault("adapter_layers", max(1, len(find_blocks(model)) - 2))  # the paper: 30 of LLaMA's 32
    if method.name in ("prompt_tuning", "p_tuning") and not hasattr(model.config, "num_attention_heads"):
        settings.setdefault("num_attention_heads", 1)  # peft asks for it, and needs it for prefixes only
    if method.name == "ia3" and options.targets is not None:
        settings.setdefault("feedforward_modules", [])  # layers that are named are scaled at their outputs
    if "progressbar" in method.fields:
        settings.setdefault("progressbar", False)
    return settings


def _complete_lora(method: Method, settings: dict[str, Any]) -> None:
    """Ranks and scales of LoRA and AdaLoRA that follow from each other."""
    rank = settings.setdefault(str(method.option("rank")), 8)
    settings.setdefault("lora_alpha", 16 if settings.get("use_rslora") else 2 * rank)
    if method.name == "adalora":
        first = settings.setdefault("init_r", math.ceil(1.5 * rank))
        settings["total_step"] = UNKNOWN_STEPS
        if first <= rank:
            found = f"is {first}, not above the {rank} that ranks are to fall to"
            raise bad_input("strategy.options.init_r", found, f"leave it out, or write {math.ceil(1.5 * rank)}")
