"""A study's results for a program or a notebook: numbers, tables and figures."""

from __future__ import annotations

import html as escaping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from markupsafe import Markup

from finetune import report
from finetune.core.errors import bad_input, did_you_mean
from finetune.core.run_dir import FAILED, write_text
from finetune.report import content, html
from finetune.report.drawing.plots import seed_plot
from finetune.results.compute import results_of
from finetune.results.frames import estimates_table, pairs_table, predictions_table, scores_table
from finetune.results.reading import Study, read_study
from finetune.results.schema import EvaluationSet, Results
from finetune.results.verdict import Verdict, verdict_of


@dataclass(frozen=True)
class Figure:
    """A drawing that stands alone: notebooks show it."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> None:
        """Write it as an SVG file."""
        write_text(Path(path), self.svg)


@dataclass(frozen=True)
class StudyReport:
    """A study as its folder shows it now; a notebook shows the page. It needs no torch.

    The tables are Arrow's: ``report.scores.to_pandas()`` is a frame.
    """

    study: Study
    """What the folder says: runs with their results, predictions and metrics."""
    results: Results
    """What `results.json` holds."""

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.study.folder.path

    @property
    def verdict(self) -> Verdict:
        """The study's answer, in a word and a sentence."""
        return verdict_of(self.results)

    @property
    def failed(self) -> list[tuple[str, int | None, str]]:
        """List the runs that failed: variant, seed, and the status with its reason."""
        return [
            (variant.name, run.seed, f"{run.status}: {run.reason}")
            for variant in self.results.variants
            for run in variant.runs
            if run.status in FAILED
        ]

    @cached_property
    def scores(self) -> pa.Table:
        """Every score of every run."""
        return scores_table(self.results)

    @cached_property
    def estimates(self) -> pa.Table:
        """Every variant's mean over seeds, with its uncertainty."""
        return estimates_table(self.results)

    @cached_property
    def comparisons(self) -> pa.Table:
        """Every pair of variants held together."""
        return pairs_table(self.results.comparisons)

    def predictions(self, name: str | None = None) -> pa.Table:
        """Read every run's prediction for every example of the evaluation set ``name``, by default the first."""
        return predictions_table(self.study, self._set(name).name)

    def figure(self, name: str | None = None, narrow: bool = False) -> Figure:
        """Draw every seed's headline score on the evaluation set ``name``, by default the first."""
        drawing = seed_plot(self.results, self._set(name), narrow)
        start, _, rest = drawing.partition(">")
        style = Markup("<style>{}</style>").format(Markup(html.template("drawing.css")))
        font = 'font-family="system-ui, sans-serif" xmlns="http://www.w3.org/2000/svg"'
        return Figure(f"{start} {font}>{style}{rest}")

    def write(self) -> Path:
        """Write the report's files again, and give the page's path."""
        report.build(self.folder, self.study.baseline)
        return self.study.folder.report / "index.html"

    def _set(self, name: str | None) -> EvaluationSet:
        names = [task.name for task in self.results.tasks]
        if not names or name not in (None, *names):
            found = f"there is no evaluation set called '{name}'" if names else "nothing has been scored yet"
            raise bad_input(None, found, did_you_mean(str(name), names) if names else "run the study first")
        return self.results.tasks[0 if name is None else names.index(name)]

    def _repr_html_(self) -> str:
        page = escaping.escape(html.render(content.document(self.study, self.results)), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 40rem; border: 0"></iframe>'

    def __repr__(self) -> str:
        return f"<study {self.results.study} in {self.folder}: {self.verdict.word}. {self.verdict.sentence}>"


def study_report(path: str | Path, baseline: str | None = None) -> StudyReport:
    """Read the study in ``path``, and compute its results from its runs.

    ``baseline`` is the variant that all others are compared with, where it is not to be the recipe's. Raises InputError
    when the folder is not a study's, or no variant has the baseline's name.
    """
    study = read_study(Path(path), baseline)
    return StudyReport(study, results_of(study))
