"""The study's answer in a sentence, and what one must know beside it.

There is one mechanism: all of it is read from `comparisons` and `estimates`, as the tables of the page are, so that no
sentence can say what a table does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune import stats
from finetune.core.numbers import count, listing, p_value, share
from finetune.core.run_dir import BASE
from finetune.metrics import unit
from finetune.results.measure import SOLVED_METHOD
from finetune.results.ranking import headline_key, ranked
from finetune.results.schema import PairResult, Results, VariantResult

NBSP = "\N{NO-BREAK SPACE}"

WHEN_IT_WORKS = "when it works"

LEAST = 0.5
"""The least difference, in points, that it is worth to ask a plan about: of equals, no number of seeds is enough."""

MIRRORED: dict[stats.Verdict, stats.Verdict] = {"better": "worse", "worse": "better", "undecided": "undecided"}


@dataclass(frozen=True)
class Verdict:
    """The study's answer: one word, one sentence, and what one must know beside it."""

    state: Literal["decided", "undecided"]
    word: str
    sentence: str
    remarks: list[str]


@dataclass(frozen=True)
class Gap:
    """A pair of variants seen from one side: how far it is ahead of the other, and what that allows to say."""

    other: str
    told: str
    """The difference, with its interval and p-value."""
    verdict: stats.Verdict
    """Between runs that work."""
    overall: stats.Verdict
    """Over all runs."""
    row: PairResult

    @property
    def open(self) -> bool:
        """Tell whether the other may be as good."""
        return self.verdict != "better"


def verdict_of(results: Results) -> Verdict:
    """Tell which variant is best on the first evaluation set's headline metric, and whether the runs decide it."""
    remarks = [
        *_cheap_remarks(results),
        *_base_remarks(results),
        *_failure_remarks(results),
        *_ground_remarks(results),
        *_seed_remarks(results),
    ]
    scored = ranked(results)
    if not scored:
        word = "No run works" if any(variant.failures.count for variant in results.tuned) else "No answer yet"
        sentence = "Every run that has ended failed." if word == "No run works" else "No run has been scored."
        return Verdict("undecided", word, sentence, remarks)
    best = scored[0]
    reached = _reached(results, best)
    others = [other.name for other in scored[1:] if results.baseline in (None, best.name, other.name)]
    gaps = [gap_of(results, best.name, other) for other in others]
    if not gaps:
        return _alone(results, best, reached, remarks)
    told = listing([f"{gap.told} against {gap.other}" for gap in gaps[:2]])
    failing = _failures_of(results, best.name, [gap.other for gap in gaps])
    still = [gap for gap in gaps if gap.open]
    if still:
        end = "highest" if results.tasks[0].higher_is_better else "lowest"
        why = [gap.row.reason for gap in still if gap.row.reason and gap.row.ci is not None]
        said = f"{best.name} has the {end} score{_if_it_fails(best)}, {reached}: {told}."
        untold = f"{_untold(results, still)}{''.join(f' {reason}.' for reason in dict.fromkeys(why))}"
        sentence = f"{said} {untold}{failing}{_deciding(results, still)}"
        return Verdict("undecided", "Undecided", sentence, remarks)
    overall = all(gap.overall == "better" for gap in gaps)
    when = "" if overall else f" {WHEN_IT_WORKS}"
    word, cheap = f"{best.name} is best{when}", _cheaper(results, best.name)
    sentence = f"{best.name} reaches {reached}{when}: {told}.{failing}"
    if cheap:
        names = listing([gap.other for gap in cheap])
        told = listing([f"{gap.told} against {gap.other}" for gap in cheap])
        # Not in the colour of an answer: among the contestants is one that needs no training and is as good.
        return Verdict("undecided", f"{word}, and not better than {names}", f"{sentence} But {told}.", remarks)
    return Verdict("decided", word, sentence, remarks)


def _cheaper(results: Results, best: str) -> list[Gap]:
    """The cheap baselines that the leader is not better than."""
    rows = [gap_of(results, best, cheap.name) for cheap in results.baselines if _row(results, best, cheap.name)]
    return [gap for gap in rows if gap.open and gap.row.difference is not None]


def _reached(results: Results, best: VariantResult) -> str:
    metric, found = unit(results.tasks[0].metric), best.estimates[headline_key(results)]
    seeds = "one seed alone" if found.n == 1 else f"mean of {found.n} seeds"
    seeds = "one fit for all seeds" if found.method == SOLVED_METHOD else seeds
    interval = f" {metric.interval(found.ci)}" if found.ci else ""
    return f"{metric.value(found.mean)}{interval} {metric.label} on {results.tasks[0].name}, {seeds}"


def _if_it_fails(best: VariantResult) -> str:
    return f" {WHEN_IT_WORKS}" if best.failures.count else ""


def _alone(results: Results, best: VariantResult, reached: str, remarks: list[str]) -> Verdict:
    row = _row(results, best.name, BASE)
    if row is None or row.difference is None:
        return _against_cheap(results, best, reached, remarks)
    gap = gap_of(results, best.name, BASE)
    failing = _failures_of(results, best.name, [])
    sentence = f"{best.name} reaches {reached}: {gap.told} against the untuned base model."
    if gap.verdict == "undecided":
        sentence = f"{sentence} {_untold(results, [gap])}{failing}{_deciding(results, [gap])}"
        return Verdict("undecided", "Undecided", sentence, remarks)
    when = "" if gap.overall == gap.verdict else f" {WHEN_IT_WORKS}"
    return Verdict("decided", f"{best.name} is {gap.verdict} than the base{when}", f"{sentence}{failing}", remarks)


def _against_cheap(results: Results, best: VariantResult, reached: str, remarks: list[str]) -> Verdict:
    """Hold the only variant against what needs no tuning, where that was scored."""
    said, failing = f"{best.name} reaches {reached}{_if_it_fails(best)}", _failures_of(results, best.name, [])
    gaps = [
        gap_of(results, best.name, cheap.name) for cheap in results.baselines if _row(results, best.name, cheap.name)
    ]
    gaps = [gap for gap in gaps if gap.row.difference is not None]
    if not gaps:
        sentence = f"{said}. Nothing else has been scored to compare it with."
        return Verdict("undecided", "One variant", sentence, remarks)
    still = [gap for gap in gaps if gap.open]
    told = listing([f"{gap.told} against {gap.other}" for gap in still or gaps])
    if still:
        names = listing([gap.other for gap in still])
        return Verdict("undecided", f"{best.name} is not better than {names}", f"{said}: {told}.{failing}", remarks)
    when = "" if all(gap.overall == "better" for gap in gaps) else f" {WHEN_IT_WORKS}"
    return Verdict("decided", f"{best.name} is better than no tuning{when}", f"{said}: {told}.{failing}", remarks)


def _untold(results: Results, gaps: Sequence[Gap]) -> str:
    most = max((variant.estimates[headline_key(results)].n for variant in results.tuned), default=0)
    others = listing(["the base" if gap.other == BASE else gap.other for gap in gaps])
    return f"{'One seed does' if most == 1 else 'These seeds do'} not tell it apart from {others}."


def _failures_of(results: Results, best: str, others: Sequence[str]) -> str:
    """Say how often the leader fails, how often it could, and whether its rivals differ in that."""
    failures = results.variant(best).failures
    if failures.limit is None or results.variant(best).estimates[headline_key(results)].method == SOLVED_METHOD:
        return ""
    told = f" Failures: {failures.count} of {failures.n} (up to {share(failures.limit, 1)} could)"
    rivals = [results.variant(name).failures for name in others]
    rivals = [each for each in rivals if each.n]
    if not rivals:
        return f"{told}."
    counts = listing(list(dict.fromkeys(f"{each.count} of {each.n}" for each in rivals)))
    p_values = [stats.told_apart(failures, each) for each in rivals]
    apart = any(p is not None and p < 1 - results.level for p in p_values)
    return f"{told} against {counts}: {'told apart' if apart else 'not told apart'}."


def gap_of(results: Results, left: str, right: str) -> Gap:
    """Look at a pair from the side of ``left``, whichever way it is stored. Raises KeyError where there is none."""
    row = _row(results, left, right)
    if row is not None:
        return Gap(right, _written(row, 1), row.verdict, row.verdict_overall, row)
    row = _row(results, right, left)
    if row is None:
        raise KeyError((left, right))
    return Gap(right, _written(row, -1), MIRRORED[row.verdict], MIRRORED[row.verdict_overall], row)


def _written(row: PairResult, sign: int) -> str:
    if row.difference is None:
        return "nothing to compare"
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


def _cheap_remarks(results: Results) -> list[str]:
    """Name the cheap baselines that a tuned variant is not better than."""
    remarks = []
    for cheap in results.baselines:
        rows = [row for variant in results.tuned if (row := _row(results, variant.name, cheap.name))]
        rows = [row for row in rows if row.difference is not None]
        for word, said in (("worse", "is worse than"), ("undecided", "is not told apart from")):
            names = [row.left for row in rows if row.verdict == word]
            if names:
                verb = said if len(names) == 1 else said.replace("is ", "are ", 1)
                remarks.append(f"{listing(names)} {verb} {cheap.name}, which trains no model.")
    return remarks


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
            f"{sum(failed.values())} of {ended} runs failed ({by_variant}). Means are of the runs that work; “in all” "
            "counts the others too."
        )
    expected = len(tuned) * len(results.seeds)
    missing = expected - sum(variant.failures.n for variant in tuned)
    if missing:
        remarks.append(f"{missing} of {expected} runs have not ended: this report is not final.")
    return remarks


def _ground_remarks(results: Results) -> list[str]:
    """Say what the answer rests on: what was the same in every run, what was cut, and how settings were chosen."""
    remarks = []
    training = results.training
    if training is not None and not training.varies and len(results.seeds) > 1:
        remarks.append(
            f"Every run learnt from the same {count(training.examples)} training examples: what others would give is "
            "not covered."
        )
    cut = [("training texts", training.cut, training.examples)] if training is not None else []
    cut += [(f"texts of {task.name}", task.cut, task.examples) for task in results.tasks]
    told = [f"{count(number)} of {count(of)} {what}" for what, number, of in cut if number]
    if told:
        remarks.append(f"Longer than max_length and cut: {listing(told)}.")
    stepped = [variant for variant in results.tuned if variant.learning_rate is not None]
    ways: dict[str, list[str]] = {}
    for variant in stepped:
        ways.setdefault(variant.chosen_by or "", []).append(variant.name)
    for way, names in ways.items():
        whose = "The settings" if len(names) == len(stepped) else f"Those of {listing(names)}"
        said = f"were chosen by: {way}" if way else "are given, and nobody says how they were chosen (train.chosen_by)"
        remarks.append(f"{whose} {said}.")
    return remarks


def _deciding(results: Results, gaps: Sequence[Gap]) -> str:
    """The command that says how many seeds and examples would decide it, where the runs give it something to go by."""
    row = gaps[0].row
    if row.se is None or not row.difference:
        return ""
    point = unit(row.metric).point or 1.0
    detect = f"{max(abs(row.difference) / point, LEAST):.2g}"
    return f" What would decide it: finetune plan runs/{results.study} --detect {detect}"


def _seed_remarks(results: Results) -> list[str]:
    """Say what so few seeds can and cannot show."""
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
