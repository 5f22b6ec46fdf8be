"""Robust representations through regularised fine-tuning, R3F (Aghajanyan et al. 2021, section 2)."""

from __future__ import annotations

from typing import ClassVar, Literal

from finetune.core.registry import MITIGATIONS
from finetune.mitigations.noised import Noised, NoiseOptions


class R3FOptions(NoiseOptions):
    """How much noise the input embeddings get, and how much it matters what the model makes of it."""

    type: Literal["r3f"]


@MITIGATIONS.register
class R3F(Noised):
    """Keeps predictions the same under noise on the input embeddings, so that representations do not collapse.

    To the loss it adds strength times the symmetric Kullback-Leibler divergence between what the model says of an
    example and what it says with noise on the input embeddings, for each label. The model runs twice, the second time
    with other dropout masks, as in the authors' code: part of the divergence is dropout's. Gradients flow through both
    passes into the embeddings; the authors' code cuts them off there in the noised one.

    Source: Aghajanyan et al. 2021, "Better Fine-Tuning by Reducing Representational Collapse", section 2.

    Not for: bfloat16 arithmetic at the default eps, which is lost there in rounding; write `model.dtype: float32` or a
    larger eps. Nor where time is short: a step takes about twice as long.
    """

    name: ClassVar[str] = "r3f"
    Options = R3FOptions
