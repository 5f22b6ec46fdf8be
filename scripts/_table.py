"""Writes the table of a study into recipes/RESULTS.md, between markers that name it: no number there is typed by hand.

python -m scripts._table runs/strategies/report/results.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

from finetune.core.numbers import THIN, memory, seconds, short_count
from finetune.metrics import unit
from finetune.metrics.unit import Unit
from finetune.results.ranking import headline_key, ranked
from finetune.results.reading import computed_on
from finetune.results.schema import Results, from_json
from finetune.results.verdict import verdict_of
from scripts._pages import RESULTS, put


def markers(study: str) -> tuple[str, str]:
    """What stands before and after the table."""
    return f"<!-- table of {study}: written by scripts/_table.py -->", f"<!-- end of {study} -->"


def table(results: Results) -> str:
    """The variants by their first held-out score, the best first and the others last, then the cheap baselines.

    How many weights learn, a run's median time (one that was paused says nothing of the others) and memory, the mean
    over seeds with its interval, raw and corrected spread, and failed runs; under it the report's verdict.
    """
    task, key = results.tasks[0], headline_key(results)
    shown, scored = unit(task.metric), ranked(results)
    others = [variant for variant in results.variants if variant not in scored]
    lines = [
        f"| variant | learns | a run takes | memory | {shown.heading} | SD | without test-set noise | failed |",
        "| --- " * 8 + "|",
    ]
    for variant in [*scored, *others, *results.baselines]:
        estimate, runs = variant.estimates[key], variant.runs
        spent = [run.seconds for run in runs if run.seconds is not None]
        peaks = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes is not None]
        cells = [
            f"*{variant.name}*" if variant in results.baselines else variant.name,
            short_count(None if variant.parameters is None else variant.parameters.trainable),
            seconds(median(spent) if spent else None),
            memory(max(peaks, default=None)),
            f"{shown.number(estimate.mean)} {shown.interval(estimate.ci)}",
            shown.number(estimate.sd, more=1),
            f"{shown.number(estimate.sd_corrected, more=1)} {_ends(shown, estimate.sd_corrected_ci)}".rstrip(),
            f"{variant.failures.count} of {variant.failures.n}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    verdict = verdict_of(results)
    computed = computed_on(results.environment)
    about = f"{results.level:.0%} intervals; {task.examples:,} held-out examples; {computed}."
    return "\n".join([*lines, "", f"**{verdict.word}.** {verdict.sentence} {about}".replace(THIN, " ")])


def _ends(shown: Unit, bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"[{', '.join(shown.number(bound, more=1) for bound in bounds)}]"


def write(results: Results, page: Path = RESULTS) -> None:
    """Put the table between its markers."""
    put(table(results), page, *markers(results.study))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    write(from_json(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
