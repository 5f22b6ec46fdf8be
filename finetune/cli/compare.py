"""`finetune compare`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.output import fitted, wrapped

if TYPE_CHECKING:
    from finetune.results.compare import ComparedStudy, StudyComparison
    from finetune.results.schema import PairResult

DISPENSABLE = ("SD ratio", "seeds", "P(left wins)", "could see", "p", "95 % interval")
"""Columns in the order in which a narrow terminal loses them."""


def add_arguments(parser: ArgumentParser) -> None:
    for side in ("a", "b"):
        parser.add_argument(
            f"runs_{side}",
            type=Path,
            metavar=f"RUNS_{side.upper()}",
            help="folder of a study or of one variant: runs/topics, runs/topics/lora",
        )
    parser.add_argument("--metric", metavar="M", help="default: each task's headline metric")
    parser.add_argument("--task", metavar="T", help="held-out task; default: all that both studies have")
    parser.add_argument("--variants", default="", metavar="A,B", help="only these, of either study")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there too")


def run(args: Namespace) -> int:
    """Compare variants of two studies, if they were scored on the same held-out examples."""
    from finetune.results.compare import compare_studies

    variants = [name.strip() for name in args.variants.split(",") if name.strip()]
    found = compare_studies(args.runs_a, args.runs_b, args.metric, args.task, variants)
    print("\n".join(_lines(found)))
    if args.json:
        from finetune.core.run_dir import write_json

        write_json(args.json, found.to_json())
    return 0


def _lines(found: StudyComparison) -> Iterator[str]:
    """A table for each task, and a sentence for each pair."""
    from finetune.metrics import unit

    left, right = _names(found.left, found.right)
    for task in found.tasks:
        rows = [row for row in found.comparisons if row.task == task.name]
        metric = unit(rows[0].metric)
        yield wrapped(f"{task.name}: {metric.heading}, {left} minus {right} ({task.examples:,} examples)")
        yield from fitted([_cells(row) for row in rows], DISPENSABLE)
        yield ""
    for row in found.comparisons:
        yield wrapped(_sentence(row, left, right), hanging="  ")


def _names(left: ComparedStudy, right: ComparedStudy) -> tuple[str, str]:
    """The studies' names, or their folders where these are the same."""
    return (left.study, right.study) if left.study != right.study else (left.folder, right.folder)


def _cells(row: PairResult) -> dict[str, str]:
    from finetune.core.numbers import MINUS, NONE, p_value
    from finetune.metrics import unit

    metric, improvement = unit(row.metric), row.probability_of_improvement
    return {
        "left minus right": f"{row.left} {MINUS} {row.right}",
        "difference": metric.number(row.difference, signed=True),
        "95 % interval": metric.interval(row.ci, signed=True),
        "p": p_value(row.p_value_adjusted),
        "P(left wins)": NONE if improvement is None else f"{improvement:.2f}",
        "SD ratio": NONE if row.sd_ratio is None else f"{row.sd_ratio:.2f}",
        "could see": metric.number(row.could_see),
        "seeds": str(row.n),
        "verdict": row.verdict,
    }


def _sentence(row: PairResult, left: str, right: str) -> str:
    """Tell the outcome of one comparison in a sentence, with the reason where there is none."""
    from finetune.core.numbers import THIN, p_value
    from finetune.metrics import unit

    metric = unit(row.metric)
    one, other = f"{row.left} ({left})", f"{row.right} ({right})"
    where = f"{metric.label} on {row.task}"
    if row.difference is None:
        return f"{one} and {other} cannot be compared by {where}: {row.reason}."
    gap = metric.gap(row.difference)
    if row.ci is None:
        mcnemar = row.p_mcnemar
        models = "" if mcnemar is None else f" Between these two models alone, McNemar's exact p is {p_value(mcnemar)}."
        return f"Undecided between {one} and {other}: {gap} {where}, but {row.reason}.{models}".replace(THIN, " ")
    p = p_value(row.p_value_adjusted)
    gap = f"{gap} {metric.interval(row.ci, signed=True)} {where}, p {p if p.startswith('<') else f'= {p}'}"
    if row.verdict == "undecided":
        seen = metric.gap(row.could_see).lstrip("+")
        said = f"Undecided between {one} and {other}: {gap}. A true difference of {seen} would be seen 4 times in 5."
    else:
        said = f"{one} is {row.verdict} than {other}: {gap}."
    if row.spread_verdict != "undecided" and row.sd_ratio_ci is not None:
        low, high = row.sd_ratio_ci
        said += f" It is {row.spread_verdict}: {row.sd_ratio:.2f} [{low:.2f}, {high:.2f}] times the SD over seeds."
    return said.replace(THIN, " ")
