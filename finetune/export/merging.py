"""A trained model without what a strategy has wrapped it in: adapters are merged, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def can_merge(model: torch.nn.Module) -> bool:
    """Tell whether what was trained beside a model's weights is a change of these; True where nothing is beside."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return True
    return not any(config.is_prompt_learning for config in model.peft_config.values())


def merged_copy(model: Any) -> Any:
    """Merge the adapters of ``model``, which is changed and given back without its wrapper. ValueError where it has
    virtual tokens, which are no change of weights."""
    if not can_merge(model):
        raise ValueError("virtual tokens cannot be merged into weights")
    plain = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    return plain.float().eval().requires_grad_(False)
