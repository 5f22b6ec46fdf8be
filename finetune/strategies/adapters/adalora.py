"""AdaLoRA's part in training: ranks go where they matter, and factors are kept orthogonal (Zhang et al. 2023, section
3, and its appendix for the schedules).

Importance, budget and masks are peft's. The regulariser is that of the authors' code, from which their numbers come:
the mean over all factors of ‖PᵀP − I‖, the norm itself and not its square as in their equation 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from finetune.core.errors import FinetuneError
from finetune.core.hooks import TrainingState
from finetune.strategies.base import Strategy

WARMUP, FINAL = 0.15, 0.5
"""Shares of training before ranks are taken away, and after. The authors' differ from task to task about these."""
UNKNOWN_STEPS = 1 << 30
"""Stands for the number of steps until training begins."""
REMEMBERED = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What peft's allocator remembers of each weight."""
KEPT = "kept"


class Allocation(Strategy):
    """The allocation of ranks by AdaLoRA from step to step, for one run: a rank is weighed against those of all other
    layers. Its options are those of peft's that the recipe gives."""

    name: ClassVar[str] = "adapter"

    options: Mapping[str, Any]

    @property
    def can_stack(self) -> bool:
        return False

    def begin(self, training_state: TrainingState) -> None:
        super().begin(training_state)
        steps = training_state.steps
        tuner: Any = training_state.model
        self.tuner, self.config = tuner.base_model, tuner.active_peft_config
        self.config.total_step = steps
        self.config.tinit = self.options.get("tinit", round(WARMUP * steps))
        self.config.tfinal = self.options.get("tfinal", round(FINAL * steps))
        # peft weighs ranks until the step before the last phase, and takes them away by what it has weighed.
        if max(self.config.tinit, 1) + self.config.tfinal >= steps:
            given = f"tinit {self.config.tinit} and tfinal {self.config.tfinal}"
            raise FinetuneError(f"AdaLoRA's {given} leave none of {steps} steps for taking ranks away")

    def gradients(self) -> None:
        parameters = self.training_state.parameters
        factors = [name for name in parameters if ".lora_A." in name or ".lora_B." in name]
        with torch.enable_grad():
            rows = [parameters[name] if ".lora_A." in name else parameters[name].T for name in factors]
            loss = self.config.orth_reg_weight * torch.stack([_from_orthogonal(each) for each in rows]).mean()
            slopes = torch.autograd.grad(loss, [parameters[name] for name in factors])
        for name, slope in zip(factors, slopes, strict=True):
            gradient = parameters[name].grad
            parameters[name].grad = slope if gradient is None else gradient + slope

    def stepped(self, rate: float) -> None:
        self.tuner.update_and_allocate(self.training_state.step + 1)

    def state(self) -> dict[str, torch.Tensor]:
        allocator = self.tuner.rankallocator
        found = {
            f"{kind}.{name}": value[None] for kind in REMEMBERED for name, value in getattr(allocator, kind).items()
        }
        kept = {f"{KEPT}.{name}": torch.tensor([ranks]) for name, ranks in (self.config.rank_pattern or {}).items()}
        return {**found, **kept}

    def resume(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, value in state.items():
            kind, _, parameter = name.partition(".")
            if kind == KEPT:
                self.config.rank_pattern = {**(self.config.rank_pattern or {}), parameter: value[0].tolist()}
            else:
                device = self.tuner.model.get_parameter(parameter).device
                getattr(self.tuner.rankallocator, kind)[parameter] = value[0].to(device)

    def end(self) -> None:
        # With it peft would save fewer ranks, whose sums round differently; those that are gone are zero anyway.
        self.config.rank_pattern = None


def _from_orthogonal(rows: torch.Tensor) -> torch.Tensor:
    """Compute how far ``rows`` (r, any) are from orthonormal: the Frobenius norm of what their products miss."""
    return torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device, dtype=rows.dtype))
