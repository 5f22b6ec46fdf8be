"""Puts a report together: which sections it has, top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from finetune.core.numbers import count, seconds
from finetune.report.blocks import Document, Section
from finetune.report.sections import (
    across,
    agreement,
    calibration,
    choosing,
    combined,
    cost,
    curves,
    data,
    diagnosis,
    differences,
    domains,
    entities,
    environment,
    failures,
    forgetting,
    methods,
    mistakes,
    overfitting,
    portions,
    recipe,
    rules_of_thumb,
    scores,
    steps,
)
from finetune.results.reading import Study
from finetune.results.schema import Results
from finetune.results.verdict import verdict_of

SECTIONS: tuple[Callable[[Study, Results], list[Section]], ...] = (
    diagnosis.sections,
    scores.sections,
    differences.sections,
    across.sections,
    agreement.sections,
    combined.sections,
    choosing.sections,
    curves.sections,
    domains.sections,
    forgetting.sections,
    calibration.sections,
    steps.sections,
    overfitting.sections,
    rules_of_thumb.sections,
    entities.sections,
    mistakes.sections,
    failures.sections,
    portions.sections,
    data.sections,
    cost.sections,
    recipe.sections,
    environment.sections,
    methods.sections,
)
"""Top to bottom; each gives its section, several, or none where it has nothing to say."""


def document(study: Study, results: Results) -> Document:
    """The whole report."""
    shown = [section for sections in SECTIONS for section in sections(study, results)]
    return Document(results.study, verdict_of(results), _facts(study, results), shown)


def _facts(study: Study, results: Results) -> list[tuple[str, str]]:
    """The study in a few small numbers, under the verdict."""
    tuned = results.tuned
    ended = sum(variant.failures.n for variant in tuned)
    return [
        ("variants", count(len(tuned))),
        ("seeds", count(len(study.seeds))),
        ("runs ended", f"{ended} of {len(tuned) * len(study.seeds)}"),
        ("failed", count(sum(variant.failures.count for variant in tuned))),
        ("computing time", seconds(cost.spent(study))),
        ("device", study.computed_on),
        *([("mixed", mixed)] if (mixed := environment.mixed(study)) else []),
        ("digest", study.digest[:12]),
    ]
