"""Puts a method on a model, and says in a recipe's words why peft would not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import peft
import torch
from transformers import PreTrainedModel

from finetune.core.errors import bad_input, first_line
from finetune.strategies.adapters.methods import Method, named_option
from finetune.strategies.adapters.places import places_of
from finetune.strategies.adapters.prompted import Prompted

OBJECTIONS = (ValueError, TypeError, KeyError, AttributeError, AssertionError, ImportError, NotImplementedError)
"""What peft raises when a method does not fit a model."""


def wrapped(
    model: PreTrainedModel,
    method: Method,
    settings: Mapping[str, Any],
    head: Collection[torch.nn.Parameter],
    given: Collection[str],
) -> torch.nn.Module:
    """Wrap ``model`` with the adapter that ``settings`` describe; ``given`` names those that the recipe gives.

    A method that looks at weights cannot be put on a model without any: there only the ``head`` is made to learn.
    """
    if model.device.type == "meta" and isinstance(settings.get("init_lora_weights"), str):
        settings = {**settings, "init_lora_weights": True}  # from a decomposition of weights that are not there
    advice = f"its strategy.options are {', '.join(method.options)}"
    try:
        with warnings.catch_warnings():
            # peft asks transformers for a property by a name that is going away, and tells what it makes of options
            # that it corrects: nothing a person can act on.
            warnings.simplefilter("ignore")
            config = method.config(**settings)
            adapted = Prompted(model, config) if method.prompts else peft.get_peft_model(model, config)
    except (*OBJECTIONS, RuntimeError) as error:
        if model.device.type == "meta" and "meta" in str(error):
            model.requires_grad_(False)
            for parameter in head:
                parameter.requires_grad = True
            return model
        if not isinstance(error, OBJECTIONS):
            raise
        said = first_line(error)
        at = named_option(said, given) or ("strategy.targets" if "target_modules" in said else "strategy.method")
        if at == "strategy.targets":
            fitting = sorted(
                {name.rpartition(".")[2] for name in places_of(method.name, model, (), "all-linear") or ()}
            )
            advice = f"write strategy.targets: all-linear, or some of [{', '.join(fitting)}]"
        raise bad_input(at, f"peft's '{method.word}' does not fit: {said}", advice) from error
    for name, value in adapted.named_parameters():
        value.requires_grad &= ".ranknum." not in name  # AdaLoRA's counts, which peft lets learn in a dry run
    learning = [name for name, value in adapted.named_parameters() if value.requires_grad and value.numel()]
    if all(".modules_to_save." in name for name in learning):
        raise bad_input("strategy.method", f"nothing of '{method.word}' would learn", advice)
    for module in adapted.modules():
        layer: Any = module
        plain = isinstance(module, peft.tuners.lora.Linear) and not layer.lora_variant
        if plain and not any(layer.lora_bias.values()):
            vars(module)["forward"] = _lean(module, module.forward)
    return adapted


def _lean(layer: Any, own: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Compute the same as the layer, in another order: scaled where it is narrow (alpha / r on A x instead of on B A
    x), and its input not cast to the adapter's float32 and back again."""

    def forward(values: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1 or "adapter_names" in kwargs:
            return own(values, *args, **kwargs)
        [name] = layer.active_adapters
        result = layer.base_layer(values, *args, **kwargs)
        narrow = layer.lora_A[name](layer.lora_dropout[name](values)) * layer.scaling[name]
        return (result + layer.lora_B[name](narrow)).to(result.dtype)

    return forward
