"""The recipe of a study."""

from __future__ import annotations

from finetune.report.blocks import Block, Code, Fold, Section
from finetune.results.reading import Study
from finetune.results.schema import Results


def sections(study: Study, results: Results) -> list[Section]:
    """The recipe as written, and with every default filled in."""
    blocks: list[Block] = []
    if study.recipe_text:
        blocks.append(Fold("The recipe as it was written", [Code(study.recipe_text)]))
    blocks.append(Fold("The recipe with every default filled in", [Code(study.resolved_text)]))
    return [Section("recipe", "Recipe", blocks)]
