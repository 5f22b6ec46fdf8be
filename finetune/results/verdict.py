"""The study's answer in a sentence, and what one must know beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune import stats
from finetune.core.numbers import count, listing, p_value
from finetune.core.run_dir import BASE
from finetune.metrics import unit
from finetune.results.measure import SOLVED_METHOD
from finetune.results.ranking import headline_key, ranked
from finetune.results.schema import PairResult, Results

NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Verdict:
    """The study's answer: one word, one sentence, and what one must know beside it."""

    state: Literal["decided", "undecided"]
    word: str
    sentence: str
    remarks: list[str]


def verdict_of(results: Results) -> Verdict:
    """Tell which variant is best on the first evaluation set's headline metric, and whether the seeds decide it."""
    remarks = [*_base_remarks(results), *_failure_remarks(results), *_seed_remarks(results)]
    scored = ranked(results)
    if not scored:
        return Verdict("undecided", "No answer yet", "No run has been scored.", remarks)
    best, task = scored[0], results.tasks[0]
    metric = unit(task.metric)
    found = best.estimates[headline_key(results)]
    seeds = "one seed alone" if found.n == 1 else f"mean of {found.n} seeds"
    seeds = "one fit for all seeds" if found.method == SOLVED_METHOD else seeds
    interval = f" {metric.interval(found.ci)}" if found.ci else ""
    reached = f"{metric.value(found.mean)}{interval} {metric.label} on {task.name}, {seeds}"
    if len(scored) == 1:
        return _alone(results, best.name, reached, remarks)
    rivals = [other.name for other in scored[1:] if results.baseline in (None, best.name, other.name)]
    if not rivals:
        return _alone(results, best.name, reached, remarks)
    open_to = [other for other in rivals if _gap(results, best.name, other)[1] != "better"]
    gaps = listing([_gap(results, best.name, other)[0] for other in rivals[:2]])
    if not open_to:
        return Verdict("decided", f"{best.name} is best", f"{best.name} reaches {reached}: {gaps}.", remarks)
    end = "highest" if task.higher_is_better else "lowest"
    most = max(variant.estimates[headline_key(results)].n for variant in scored)
    sentence = f"{best.name} has the {end} score, {reached}: {gaps}. {_untold(most, listing(open_to))}"
    return Verdict("undecided", "Undecided", sentence, remarks)


def _alone(results: Results, name: str, reached: str, remarks: list[str]) -> Verdict:
    row = _row(results, name, BASE)
    if row is None or row.difference is None:
        sentence = f"{name} reaches {reached}. Nothing else has been scored to compare it with."
        return Verdict("undecided", "One variant", sentence, remarks)
    sentence = f"{name} reaches {reached}: {_written(row, 1)} against the untuned base model."
    if row.verdict == "undecided":
        sentence = f"{sentence} {_untold(row.n, 'the base')}"
        return Verdict("undecided", "Undecided", sentence, remarks)
    return Verdict("decided", f"{name} is {row.verdict} than the base", sentence, remarks)


def _untold(seeds: int, others: str) -> str:
    return f"{'One seed does' if seeds == 1 else 'These seeds do'} not tell it apart from {others}."


def _gap(results: Results, left: str, right: str) -> tuple[str, str]:
    """Say how far ``left`` is ahead of ``right``, and the verdict from its side, whichever way it is stored."""
    row = _row(results, left, right)
    if row is not None:
        return f"{_written(row, 1)} against {right}", row.verdict
    row = _row(results, right, left)
    assert row is not None, "every pair is compared"
    mirrored = {"better": "worse", "worse": "better", "undecided": "undecided"}[row.verdict]
    return f"{_written(row, -1)} against {right}", mirrored


def _written(row: PairResult, sign: int) -> str:
    if row.difference is None:
        return "no seed in common"
    metric = unit(row.metric)
    interval = ""
    if row.ci:
        interval = f" {metric.interval(sorted(sign * bound for bound in row.ci), signed=True)}"
    p = row.p_value_adjusted
    sign_ = "" if p is None or p < 0.001 else f"={NBSP}"
    tested = "" if p is None else f" (p{NBSP}{sign_}{p_value(p)})"
    return f"{metric.gap(sign * row.difference)}{interval}{tested}"


def _row(results: Results, left: str, right: str) -> PairResult | None:
    task = results.tasks[0]
    wanted = (task.name, task.metric, left, right)
    rows = results.comparisons
    return next((row for row in rows if (row.task, row.metric, row.left, row.right) == wanted), None)


def _base_remarks(results: Results) -> list[str]:
    """Say how several variants compare with the untuned base model; a single one has it in its sentence."""
    names = [variant.name for variant in ranked(results)]
    if len(names) < 2:
        return []
    rows = {name: row for name in names if (row := _row(results, name, BASE)) and row.difference is not None}
    titles = {
        "better": "Better than the untuned base model",
        "worse": "Worse than the untuned base model",
        "undecided": "Not told apart from the untuned base model",
    }
    groups = {word: [name for name, row in rows.items() if row.verdict == word] for word in titles}
    return [f"{titles[word]}: {listing(group)}." for word, group in groups.items() if group]


def _failure_remarks(results: Results) -> list[str]:
    remarks = []
    tuned = results.tuned
    failed = {v.name: v.failures.count for v in tuned if v.failures.count}
    if failed:
        ended = sum(variant.failures.n for variant in tuned)
        by_variant = listing([f"{number} of {name}" for name, number in failed.items()])
        remarks.append(
            f"{sum(failed.values())} of {ended} runs failed ({by_variant}). "
            "A failed run that was scored counts in every mean; one without a score cannot."
        )
    expected = len(tuned) * len(results.seeds)
    missing = expected - sum(variant.failures.n for variant in tuned)
    if missing:
        remarks.append(f"{missing} of {expected} runs have not ended: this report is not final.")
    return remarks


def _seed_remarks(results: Results) -> list[str]:
    """Say what so few seeds can and cannot show (SCIENCE.md, section 3)."""
    if results.crossed:
        return ["These runs are a crossed design and no independent seeds, so the intervals below are too narrow."]
    n = len(results.seeds)
    if n < 2:
        return ["One seed says nothing about the spread, so there is no interval; run at least two, better ten."]
    low, high = stats.sd_factors(n)
    range_ = f"an SD from {count(n)} seeds may truly be {low:.2f} to {high:.2f} times what is shown"
    if n < 10:
        return [f"{n} seeds are a smoke test: {range_}. Ten make a report, twenty a claim about stability."]
    if n < 20:
        return [f"{n} seeds make a report; a claim about stability wants twenty, because {range_}."]
    return []
