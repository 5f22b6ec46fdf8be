"""Small added weights learn and the base model stays frozen, through peft: LoRA (Hu et al. 2021, section 4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from finetune.errors import bad_input, did_you_mean
from finetune.options import Options
from finetune.registry import STRATEGIES
from finetune.strategies.base import Strategy

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class AdapterOptions(Options):
    """LoRA adds (alpha / rank) * B A to each target weight, with B zero at the start."""

    type: Literal["adapter"]
    method: Literal["lora"] = "lora"
    """peft's method."""
    rank: int = Field(8, ge=1)
    """Inner dimension of the update."""
    alpha: float | None = Field(None, gt=0)
    """Scale of the update, times 1/rank; default 2 * rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    targets: str | list[str] = "all-linear"
    """`all-linear`, or names of the layers to adapt, such as `[query, value]`."""


@STRATEGIES.register
class Adapter(Strategy):
    """Trains a small adapter beside the frozen weights (peft's LoRA), and the task's head."""

    name: ClassVar[str] = "adapter"
    Options = AdapterOptions

    options: AdapterOptions

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        import peft

        heads = sorted({name.rpartition(".")[0] for name in head})
        config = peft.LoraConfig(
            r=self.options.rank,
            lora_alpha=self.options.alpha or 2 * self.options.rank,  # type: ignore[arg-type]  # a float works
            lora_dropout=self.options.dropout,
            target_modules=self._targets(model, heads),
            modules_to_save=heads or None,
        )
        with warnings.catch_warnings():
            # peft asks transformers for a property by a name that is going away: nothing a person can act on.
            warnings.simplefilter("ignore", FutureWarning)
            adapted = peft.get_peft_model(model, config)
        for module in adapted.modules():
            if isinstance(module, peft.tuners.lora.Linear) and not module.lora_variant:
                vars(module)["forward"] = _lean(module, module.forward)
        return adapted

    def _targets(self, model: PreTrainedModel, heads: list[str]) -> list[str]:
        """Full names of the layers to adapt: never the head, which learns as a whole, nor the output layer."""
        import torch

        output = model.get_output_embeddings()
        linear = {
            name
            for name, module in model.named_modules()
            if _is_linear(module) and module is not output and not _inside(name, heads)
        }
        if self.options.targets == "all-linear":
            return sorted(linear)
        wanted = [self.options.targets] if isinstance(self.options.targets, str) else self.options.targets
        adaptable = linear | {name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)}
        chosen: set[str] = set()
        for target in wanted:
            matching = {name for name in adaptable if name == target or name.endswith(f".{target}")}
            if not matching:
                endings = {name.rpartition(".")[2] for name in linear}
                raise bad_input(
                    "strategy.targets", f"'{target}' matches no layer of this model", did_you_mean(target, endings)
                )
            chosen |= matching
        return sorted(chosen)

    def save(self, model: Any, folder: Path) -> None:
        """An adapter folder, which `PeftModel.from_pretrained` loads."""
        # The vocabulary is never changed here, so there are no embeddings to save beside the adapter.
        model.save_pretrained(folder, save_embedding_layers=False)

    def restore(self, model: Any, folder: Path) -> None:
        import peft
        from safetensors.torch import load_file

        peft.set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))


def _lean(layer: Any, own: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """What the layer does, in another order: scaled where it is narrow (alpha / r on A x instead of on B A x), and its
    input not cast to the adapter's float32 and back again."""

    def forward(values: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1 or "adapter_names" in kwargs:
            return own(values, *args, **kwargs)
        [name] = layer.active_adapters
        result = layer.base_layer(values, *args, **kwargs)
        narrow = layer.lora_A[name](layer.lora_dropout[name](values)) * layer.scaling[name]
        return (result + layer.lora_B[name](narrow)).to(result.dtype)

    return forward


def _is_linear(module: torch.nn.Module) -> bool:
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


def _inside(name: str, modules: list[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
