"""The course of training: learning rate and gradient norm by step."""

from __future__ import annotations

from finetune.report.blocks import Panels, Section
from finetune.report.drawing.curves import NORM, RATE, step_panels
from finetune.results.reading import Study
from finetune.results.schema import Results


def sections(study: Study, results: Results) -> list[Section]:
    """Draw learning rate and gradient norm, where training has recorded them."""
    variants = {name: runs for name, runs in study.variants.items() if runs}
    norms, rates = (step_panels(quantity, variants) for quantity in (NORM, RATE))
    if not norms:
        return []
    norm = "The gradient's L2 norm by step, before clipping; lines as above."
    rate = "The learning rate by step: the median over seeds, and their range as a band where they differ."
    return [Section("steps", "Learning rate and gradient norm", [Panels(rates, rate), Panels(norms, norm)])]
