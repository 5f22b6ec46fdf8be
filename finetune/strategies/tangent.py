"""The tangent model: a network made linear in its weights, where they start.

f_lin(x; w) = f(x; w0) + J(x; w0) (w - w0), where J is the derivative of the logits f by the weights (Jacot et al. 2018,
"Neural Tangent Kernel"; Ortiz-Jimenez et al. 2023, "Task Arithmetic in the Tangent Space", sections 3 and 5). One pass
with forward-mode derivatives gives both terms, without J ever being there.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ORIGIN = "_origin"
"""What is added to a parameter's name to name the buffer beside it that holds its value in w0."""


def linearise(model: PreTrainedModel, own: set[str]) -> None:
    """Let ``model`` compute its tangent model: in place, so that names, tokens and what surrounds it stay the same.

    w0 is what the weights are now; of the parameters in ``own`` it is this run's alone, and not the base model's. From
    now on the model is in evaluation mode, whatever mode it is put into: a tangent is one of a network without dropout.
    Raises :class:`InputError` for encoder-decoder language models, which generate from an encoder that has run before.
    """
    if getattr(model.config, "is_encoder_decoder", False) and model.get_output_embeddings() is not None:
        found = "is linearised, and answers of an encoder-decoder model cannot be generated from its tangent model"
        raise bad_input("strategy.mode", found, "use strategy full, partial or adapter")
    for name, parameter in list(model.named_parameters()):
        module, _, key = name.rpartition(".")
        origin = parameter.detach().clone()
        model.get_submodule(module).register_buffer(f"{key}{ORIGIN}", origin, persistent=name in own)
    model.eval()
    for each in model.modules():
        vars(each)["train"] = lambda mode=True, module=each: module
    vars(model)["forward"] = _tangent(model, model.forward)
    if hasattr(model, "generate"):
        vars(model)["generate"] = _without_cache(model)


def own_origin(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Give the part of w0 that is the run's alone, by the buffers' names: not copies."""
    return {name: value for name, value in model.state_dict().items() if name.endswith(ORIGIN)}


def _without_cache(model: Any) -> Callable[..., Any]:
    """Make the model's ``generate`` without a cache, in which earlier tokens would be without their derivative."""
    plain = model.generate

    @wraps(plain)
    def generate(*args: Any, generation_config: Any = None, **kwargs: Any) -> Any:
        settings = copy.deepcopy(generation_config or model.generation_config)
        settings.use_cache = False
        return plain(*args, generation_config=settings, **kwargs)

    return generate


def _tangent(model: PreTrainedModel, plain: Callable[..., Any]) -> Callable[..., Any]:
    """Make the tangent model's ``forward`` from the ``plain`` one: its logits, in float32."""
    from torch.func import functional_call, jvp
    from torch.nn.attention import SDPBackend, sdpa_kernel

    caches = "use_cache" in inspect.signature(plain).parameters

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        weights = dict(model.named_parameters())
        origin = {name: model.get_buffer(f"{name}{ORIGIN}") for name in weights}
        change = {name: value - origin[name] for name, value in weights.items()}
        kinds: list[Any] = []

        def logits(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            output = functional_call(model, weights, args, kwargs)
            kinds.append(type(output))
            return {name: value for name, value in output.items() if name.endswith("logits")}

        if caches:  # it would be of no use to the next call
            kwargs["use_cache"] = False
        vars(model)["forward"] = plain
        try:
            # torch's other kernels for attention have no forward-mode derivative.
            with sdpa_kernel(SDPBackend.MATH):
                found: Any = jvp(logits, (origin,), (change,))
        finally:
            vars(model)["forward"] = forward
        start, moved = found
        return kinds[0](**{name: value.float() + moved[name].float() for name, value in start.items()})

    return forward
