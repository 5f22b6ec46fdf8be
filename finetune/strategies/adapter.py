"""Small added weights learn and the base model stays frozen, by any method of peft's that can train here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.core.registry import STRATEGIES
from finetune.strategies.base import Strategy

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

RATIO = 16.0
WITHIN = ["adalora", "boft", "dora", "fourierft", "ia3", "ln_tuning", "loha", "lokr", "lora", "oft", "vera"]
"""Methods whose trained weights all lie in the layers that they change, and change nothing below."""
STACKING = {
    # method: options under which it still stacks
    "lora": {"init_lora_weights", "layers_pattern", "layers_to_transform", "use_rslora"},
    "ln_tuning": set(),
    "p_tuning": {"encoder_hidden_size", "num_virtual_tokens"},
    "prefix_tuning": {"encoder_hidden_size", "num_virtual_tokens", "prefix_projection"},
    "prompt_tuning": {"num_virtual_tokens", "prompt_tuning_init"},
}
"""Methods whose trained weights all lie in layers that can be stacked."""
STARTS = (True, "gaussian", "orthogonal", "pissa")
"""Ways for LoRA to start that change the frozen weights for all seeds alike, or not at all."""


class AdapterOptions(Options):
    """LoRA adds (alpha / rank) * B A to each target weight, with B zero at the start; other methods differ."""

    type: Literal["adapter"]
    method: str = "lora"
    """`lora`, `rslora`, `dora`, `pissa`, `lora+`, `qlora`, `prefix`, `prompt`; or what peft calls it: `adalora`,
    `boft`, `fourierft`, `ia3`, `ln_tuning`, `loha`, `lokr`, `oft`, `p_tuning`, `vera` and others."""
    rank: int | None = Field(None, ge=1)
    """Inner dimension of the update, where the method has one. Default: 8 for LoRA and its kin, else peft's own. For
    AdaLoRA the mean at the end, which begins half as large again."""
    alpha: float | None = Field(None, gt=0)
    """Scale of the update, times 1/rank (rsLoRA: 1/√rank). Default for LoRA and its kin: 2 * rank (rsLoRA: 16, as its
    scale is not to grow with the rank), else peft's own."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input, where the method has it."""
    targets: str | list[str] | None = None
    """`all-linear`, or names of the layers to adapt, such as `[query, value]`. Default: all linear layers; for IA3,
    LN-tuning and others whose papers say where they go: there."""
    ratio: float | None = Field(None, ge=1)
    """`lora+` only: how many times A's learning rate B's is. Default: 16 (Hayou et al. 2024, section 5)."""
    quantize: Literal["4bit", "8bit"] | None = None
    """Keep the frozen linear layers in so many bits (bitsandbytes, on a CUDA GPU). Default for `qlora`: 4bit."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the method, by the names of peft's configuration class for it."""

    @model_validator(mode="after")
    def _ratio_has_a_meaning(self) -> AdapterOptions:
        if self.ratio is not None and self.word != "lora+":
            raise ValueError("ratio is for method lora+, whose B learns faster than its A; leave it out")
        return self

    @property
    def word(self) -> str:
        """Give the method's name, as peft spells it."""
        return self.method.lower().replace("-", "_")


@STRATEGIES.register
class Adapter(Strategy):
    """Trains a small adapter beside the frozen weights, by any method of peft's (LoRA, DoRA, IA3, ...), and the head.

    Source: Hu et al. 2021, "LoRA", section 4. rsLoRA: Kalajdzievski 2023, section 3. DoRA: Liu et al. 2024, section 4.
    PiSSA: Meng et al. 2024, section 3. LoRA+: Hayou et al. 2024, section 4: only the matrices B of linear layers learn
    faster; biases, norms, factors of embeddings and the head keep the plain rate, since the argument, that B's input is
    narrow where A's is wide, says nothing of them. QLoRA: Dettmers et al. 2023, section 3. AdaLoRA: Zhang et al. 2023,
    section 3. IA3: Liu et al. 2022, section 3.3. Prefix: Li & Liang 2021, section 4. Prompt: Lester et al. 2021,
    section 2. P-tuning: Liu et al. 2021, section 2. Others: as peft's documentation says. Places and projections that a
    method draws at random (VeRA, FourierFT) come from a seed among its options, and are the same in all runs.

    Not for: tasks far from pretraining with much data, where full tuning learns more. Under prompt and p-tuning an
    encoder's class is read off its first token, which is a virtual one, as in peft: prefix suits encoders better.
    """

    name: ClassVar[str] = "adapter"
    Options = AdapterOptions

    options: AdapterOptions

    def __init__(self, options: AdapterOptions, changed: frozenset[str] = frozenset()):
        super().__init__(options, changed)
        self._beside: list[Strategy] = []

    @property
    def hooks(self) -> list[Strategy]:
        return [self, *self._beside]

    @property
    def _peft_name(self) -> str:
        """Give peft's name of the method, as far as it is known without peft."""
        word = self.options.word
        known = {"prefix": "prefix_tuning", "prompt": "prompt_tuning", "dora": "dora"}
        return known.get(word, "lora" if word in ("rslora", "pissa", "lora+") else word)

    @property
    def can_stack(self) -> bool:
        """Tell whether all that it trains lies in layers that can be stacked, beside weights that all seeds share."""
        options = self.options
        known = STACKING.get(self._peft_name)
        start = options.options.get("init_lora_weights", True)
        return known is not None and options.options.keys() <= known and start in STARTS and not options.quantize

    @property
    def reads_weights(self) -> bool:
        """Tell whether the method starts from the weights that it is put on."""
        start = self.options.options.get("init_lora_weights", True) in (True, "gaussian", "orthogonal")
        plain = self.options.word in ("lora", "rslora", "lora+") and self.options.options.keys() <= STACKING["lora"]
        return not (plain and start) or self.quantizes

    @property
    def can_cache_prefix(self) -> bool:
        """Tell whether the outputs of frozen blocks stay the same: virtual tokens, for one, change them."""
        return self._peft_name in WITHIN

    def prepare(self, model: PreTrainedModel, head: set[str]) -> torch.nn.Module:
        from finetune.strategies.adapters import adalora, methods, places, quantised, settings, wrapping

        method = methods.find(self.options.word, "strategy.method")
        heads = places.outermost(model, head)
        given = settings.settings_of(self.options, method, model)
        if heads and "modules_to_save" not in method.fields:
            found = f"'{method.word}' leaves no room for a new head, which this task needs"
            raise bad_input("strategy.method", found, "use another method, or a task without a new head")
        if "target_modules" in method.fields:
            given["target_modules"] = places.places_of(method.name, model, heads, self.options.targets)
        elif self.options.targets is not None:
            raise bad_input("strategy.targets", f"'{method.word}' is put on no layers", "leave it out")
        if heads:
            given["modules_to_save"] = heads
        if bits := self._bits:
            quantised.check_possible(method.name, method.prompts)
            if model.device.type != "meta":
                quantised.quantise(model, heads, bits)
        if method.name == "adalora":
            self._beside = [adalora.Allocation(given)]
        learning = [model.get_parameter(name) for name in head]
        return wrapping.wrapped(model, method, given, learning, self.options.options)

    @property
    def _bits(self) -> Literal["4bit", "8bit"] | None:
        return self.options.quantize or ("4bit" if self.options.word == "qlora" else None)

    @property
    def quantizes(self) -> bool:
        return self._bits is not None

    @property
    def library(self) -> Literal["peft"]:
        return "peft"

    def rate(self, parameter: str) -> float:
        """LoRA+ lets B learn faster. Nothing else: see the class."""
        faster = self.options.word == "lora+" and ".lora_B." in parameter and parameter.endswith(".weight")
        return self.options.ratio or RATIO if faster else 1.0

    def save(self, model: Any, folder: Path) -> None:
        """Write an adapter folder, which `PeftModel.from_pretrained` loads."""
        # The vocabulary is never changed here, so there are no embeddings to save beside the adapter.
        model.save_pretrained(folder, save_embedding_layers=False)

    def restore(self, model: Any, folder: Path) -> None:
        import peft
        from safetensors.torch import load_file

        weights = load_file(folder / "adapter_model.safetensors")
        if "prompt_embeddings" in weights:
            model.read(weights["prompt_embeddings"])
        peft.set_peft_model_state_dict(model, weights)
