"""The course of training: the loss by step."""

from __future__ import annotations

from finetune.report.blocks import Panels, Section, Text
from finetune.report.drawing.curves import LOSS, MANY, step_panels
from finetune.results.reading import Study
from finetune.results.schema import Results


def sections(study: Study, results: Results) -> list[Section]:
    """The loss's curves, of every variant that has begun."""
    variants = {name: runs for name, runs in study.variants.items() if runs}
    losses = step_panels(LOSS, variants)
    if not losses:
        return [Section("curves", "Training curves", [Text("No training step has been recorded.", "muted")])]
    most = max(map(len, variants.values()))
    lines = "one line per seed" if most <= MANY else f"of more than {MANY} seeds the median, with their range as a band"
    caption = f"Loss by step: {lines}. Solid: training; dashed: validation; a cross: a diverged run."
    return [Section("curves", "Training curves", [Panels(losses, caption)])]
