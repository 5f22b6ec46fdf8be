"""What the study says about the field's rules of thumb."""

from __future__ import annotations

from finetune.report.blocks import Bullets, Code, Section, Text
from finetune.results.reading import Study
from finetune.results.rules_of_thumb import rules_of_thumb
from finetune.results.schema import Results


def sections(study: Study, results: Results) -> list[Section]:
    """Each rule with the study's answer; those that it does not answer, with the variants that would."""
    found = rules_of_thumb(study, results)
    if not found:
        return []
    items = [(each.rule, each.answer if each.shown else "Not answered by this study.") for each in found]
    blocks: list[Bullets | Text | Code] = [Bullets(items)]
    if variants := [each.variant for each in found if each.variant]:
        told = "Not answered is what no two variants differ in alone. These variants, beside those there are, would:"
        blocks += [Text(told), Code("\n".join(["variants:", *(f"  {each}" for each in variants)]))]
    return [Section("rules-of-thumb", "What this study says about rules of thumb", [*blocks])]
