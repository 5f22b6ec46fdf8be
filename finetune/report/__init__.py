"""The report of a study, from its run folders alone: `index.html`, `report.md`, `model-card.md` and `results.json`.

It needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.results.schema import Results


def build(study_dir: Path, baseline: str | None = None) -> Results:
    """Write the report of the study in ``study_dir``, and give what its `results.json` holds.

    Works at any time: runs that have not ended are listed as interrupted, or left out when they have not begun. The
    model card is written as soon as a variant has a score.
    ``baseline`` is the variant that all others are compared with, where it is not to be the recipe's.
    Raises InputError when the folder is not a study's, or no variant has the baseline's name.
    """
    from finetune.core.run_dir import StudyDir, write_json, write_text
    from finetune.core.signals import stop_here
    from finetune.report import card, content, html, markdown
    from finetune.results.compute import results_of
    from finetune.results.ranking import best_variant
    from finetune.results.reading import read_study

    study = read_study(Path(study_dir), baseline)
    stop_here("writing the report")
    results = results_of(study)
    stop_here("writing the report")
    document = content.document(study, results)
    stop_here("writing the report")
    folder = StudyDir(Path(study_dir)).report
    write_text(folder / "index.html", html.render(document))
    write_text(folder / "report.md", markdown.render(document))
    best = best_variant(results)
    if best is not None:
        write_text(folder / "model-card.md", card.render(study, results, best))
    write_json(folder / "results.json", results.to_json())
    return results


def read(study_dir: Path) -> Results:
    """Read what the `results.json` of the study in ``study_dir`` holds, which :func:`build` has written."""
    from finetune.core.run_dir import StudyDir, read_json
    from finetune.results.schema import from_json

    return from_json(read_json(StudyDir(Path(study_dir)).report / "results.json"))
