"""Averages the predicted probabilities of a variant's seeds (Lakshminarayanan et al. 2017, section 2.4)."""

from __future__ import annotations

from typing import ClassVar, Literal

from finetune.core.options import Options
from finetune.core.registry import MITIGATIONS
from finetune.mitigations.base import Mitigation


class EnsembleOptions(Options):
    """Nothing to choose. Adding it to a study that is finished trains nothing again."""

    identifies: ClassVar[bool] = False

    type: Literal["ensemble"]


@MITIGATIONS.register
class Ensemble(Mitigation):
    """Averages the probabilities that the finished seeds give to each label.

    Source: Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
    section 2.4.

    Not for: tasks that answer with text, of which there is no mean; nor where using the model has to be cheap, since
    every seed's model has to be asked. An ensemble is one number: it says nothing about the spread over seeds.
    """

    name: ClassVar[str] = "ensemble"
    Options = EnsembleOptions
    combines = "predictions"

    @property
    def makes(self) -> tuple[str, ...]:
        return ("ensemble",)
