"""The options of a recipe's `compute:` section: how arithmetic is done, which decides what it costs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune.core.options import OPERATIONAL, Options

Attention = Literal["auto", "sdpa", "eager", "flash", "flex"]


class ComputeOptions(Options):
    """How arithmetic is done: memory and time depend on it, and what comes out by no more than rounding. Which type
    it is done in, and on which device, stands in `model`. `moe_auxiliary_loss` alone changes what is learnt."""

    attention: Attention = "auto"
    """Kernel of attention: torch's own (`sdpa`), written out (`eager`), FlashAttention 2 (`flash`) or FlexAttention
    (`flex`), the last two on a GPU. `auto`: the one that transformers chooses."""
    gradient_checkpointing: bool = Field(False, json_schema_extra=OPERATIONAL)
    """Keep of every block only what goes into it, and compute the rest again in the backward pass (Chen et al. 2016,
    "Training deep nets with sublinear memory cost"): a third more time, and a fraction of the memory for activations.
    Gradients are equal in every bit."""
    shard: bool = Field(False, json_schema_extra=OPERATIONAL)
    """Split weights, gradients and what the optimizer remembers over the processes of a run, so that none has the whole
    model (FSDP2; Rajbhandari et al. 2020, "ZeRO", stage 3): for models that do not fit one device. Costs communication.
    One process alone has nothing to split. A run may go on with another number of processes."""
    tf32: bool = False
    """Multiply float32 matrices in TensorFloat-32, whose factors have 10 bits of precision instead of 23: several times
    as fast on a GPU that has it."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """Type of trained matrices. In bfloat16, 8 bits of precision, most steps are smaller than what a weight can tell:
    see `rounding`. Biases and norms, which take next to no memory, stay float32."""
    rounding: Literal["stochastic", "compensated", "nearest"] = "stochastic"
    """How a step is added to a weight in bfloat16: up or down at random, so that small steps arrive on average; with
    what was lost kept beside the weight, another 2 bytes each (Zamirai et al. 2020, "Revisiting BFloat16 training",
    section 3); or to the nearest number, which loses them."""
    states: Literal["float32", "bfloat16", "8bit"] = "float32"
    """Type of what the optimizer remembers of each weight. `8bit`: in blocks of 256 with a scale of their own (Dettmers
    et al. 2022, "8-bit optimizers via block-wise quantization"); of parameters under 4,096 weights it is float32."""
    moe_auxiliary_loss: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Coefficient of the load-balancing loss of a mixture of experts, which keeps routers from using few of them (Fedus
    et al. 2022, "Switch Transformers", section 2.2, who take 0.01); 0: none, whatever the model's configuration says.
    It multiplies E times the sum over E experts of f * P, the share of tokens that go to an expert and its mean
    probability: with k experts for each token, k where all are used alike, and mostly more where not. That is
    transformers' `load_balancing_loss_func` of one layer and one example without padding; here, the mean over layers.
    Each example has its own (DeepSeek-V3, 2024, section 2.1.2): packing, accumulation and processes change nothing.
    What is added to the mean loss of a label token, in nats, is its mean over the batch, in which an example counts its
    label tokens; where losses are means over examples, so is this. Logged training losses contain it, scores do not."""

    offload: bool = False
    """Keep what the optimizer remembers in the host's memory instead of the GPU's, and bring it there a part at a time
    when a step is taken (as in Ren et al. 2021, "ZeRO-Offload", and in paged optimizers): AdamW's 8 bytes a weight, for
    a slower step. The same numbers, but for the last bits of AdamW, whose fused kernel it is done without."""

    @property
    def compact(self) -> bool:
        """Tell whether weights or what the optimizer remembers of them are in fewer bits than 32."""
        return self.weights != "float32" or self.states != "float32"
