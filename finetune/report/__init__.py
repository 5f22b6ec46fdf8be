"""The report of a study, from its run folders alone: `index.html`, `report.md` and `results.json`; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def build(study_dir: Path) -> dict[str, Any]:
    """Write the report of the study in ``study_dir`` and return what stands in its `results.json`.

    Works at any time: runs that have not ended are listed as interrupted, or left out when they have not begun.
    Raises InputError when the folder is not a study's.
    """
    from finetune.report import content, html, markdown
    from finetune.report.reading import read_study
    from finetune.report.results import results_of
    from finetune.run_dir import StudyDir, write_json, write_text

    study = read_study(Path(study_dir))
    results = results_of(study)
    document = content.document(study, results)
    folder = StudyDir(Path(study_dir)).report
    write_text(folder / "index.html", html.render(document))
    write_text(folder / "report.md", markdown.render(document))
    write_json(folder / "results.json", results)
    return results
