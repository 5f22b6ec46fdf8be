"""Every parameter learns (Devlin et al. 2019, section 3.2)."""

from __future__ import annotations

from typing import ClassVar, Literal

from finetune.core.options import Options
from finetune.core.registry import STRATEGIES
from finetune.strategies.whole_model import WholeModel


class FullOptions(Options):
    """Full tuning has nothing to choose."""

    type: Literal["full"]


@STRATEGIES.register
class Full(WholeModel):
    """Trains every parameter of the model.

    Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
    section 3.2; trained as Mosbach et al. 2021, "On the Stability of Fine-tuning BERT", section 6, which the defaults
    of `train` follow.

    Not for: a few hundred examples and a large model, unless a mitigation stands beside it: some seeds then end no
    better than the majority class. Held-out examples of another domain: Kumar et al. 2022 find a linear probe 7 %
    ahead there. Many runs to keep: each saves a whole model.
    """

    name: ClassVar[str] = "full"
    Options = FullOptions
