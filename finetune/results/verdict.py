"""The study's answer in a sentence, and what one must know beside it.

There is one mechanism: all of it is read from `comparisons` and `estimates`, as the tables of the page are, so that no
sentence can say what a table does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune import stats
from finetune.core.numbers import listing, p_value, share
from finetune.core.run_dir import BASE
from finetune.metrics import unit
from finetune.results.measure import SOLVED_METHOD
from finetune.results.ranking import headline_key, headline_row, ranked
from finetune.results.remarks import cheap_remarks, remarks_of
from finetune.results.schema import PairResult, Results, VariantResult

NBSP = "\N{NO-BREAK SPACE}"

WHEN_IT_WORKS = "when it works"

LEAST = 0.5
"""The least difference, in points, that it is worth to ask a plan about: of equals, no number of seeds is enough."""

MANY = 4
"""Rivals that a sentence names; of more, some are counted."""

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
    remarks = remarks_of(results)
    scored = ranked(results)
    if not scored:
        if not any(variant.failures.count for variant in results.tuned):
            return Verdict("undecided", "No answer yet", "No run has been scored.", remarks)
        sentence = "Every run that has ended failed. “Failed and unfinished runs” says why."
        return Verdict("undecided", "No run works", sentence, remarks)
    best = scored[0]
    reached = _reached(results, best)
    others = [other.name for other in scored[1:] if results.baseline in (None, best.name, other.name)]
    gaps = [gap_of(results, best.name, other) for other in others]
    if not gaps:
        return _alone(results, best, reached, remarks)
    told, rivals = _told(gaps[:2]), [gap.other for gap in gaps]
    still = [gap for gap in gaps if gap.open]
    if still:
        end = "highest" if results.tasks[0].higher_is_better else "lowest"
        why = [gap.row.reason for gap in still if gap.row.reason and gap.row.ci is not None]
        said = f"{best.name} has the {end} score{_if_it_fails(best)}: {reached}. {told}"
        untold = f"{_untold(results, still)}{''.join(f' {reason}.' for reason in dict.fromkeys(why))}"
        sentence = f"{said} {untold}{_failures_of(results, best.name, rivals)}{deciding(results, still)}"
        return Verdict("undecided", "Undecided", sentence, remarks)
    overall = all(gap.overall == "better" for gap in gaps)
    when = "" if overall else f" {WHEN_IT_WORKS}"
    word, cheap = f"{best.name} is best{when}", _cheaper(results, best.name)
    sentence = f"{best.name} reaches {reached}{when}. {told}{_failures_of(results, best.name, rivals, bool(when))}"
    if cheap:
        # Not in the colour of an answer: among the contestants is one that needs no training and may be as good.
        word = f"{word}, but {_not_better(cheap)}"
        return Verdict("undecided", word, f"{sentence} {_told(cheap)}", remarks)
    return Verdict("decided", word, sentence, remarks)


def _told(gaps: Sequence[Gap]) -> str:
    """The differences in a sentence."""
    return f"The difference is {listing([f'{gap.told} against {gap.other}' for gap in gaps])}."


def _not_better(gaps: Sequence[Gap]) -> str:
    """What may be said of a variant beside others that it is not better than, as far as the runs show."""
    said = "worse than" if all(gap.verdict == "worse" for gap in gaps) else "not shown to be better than"
    return f"{said} {listing([gap.other for gap in gaps], 'or')}"


def _cheaper(results: Results, best: str) -> list[Gap]:
    """The cheap baselines that the leader is not better than."""
    rows = [gap_of(results, best, cheap.name) for cheap in results.baselines if headline_row(results, best, cheap.name)]
    return [gap for gap in rows if gap.open and gap.row.difference is not None]


def _reached(results: Results, best: VariantResult) -> str:
    metric, found = unit(results.tasks[0].metric), best.estimates[headline_key(results)]
    seeds = "one seed alone" if found.n == 1 else f"mean of {found.n} seeds"
    seeds = "the same for every seed" if found.method == SOLVED_METHOD else seeds
    interval = f", {share(results.level, 1)} interval {metric.interval(found.ci)}" if found.ci else ""
    return f"{metric.value(found.mean)} {metric.label} on {results.tasks[0].name} ({seeds}{interval})"


def _if_it_fails(best: VariantResult) -> str:
    return f" {WHEN_IT_WORKS}" if best.failures.count else ""


def _alone(results: Results, best: VariantResult, reached: str, remarks: list[str]) -> Verdict:
    row = headline_row(results, best.name, BASE)
    if row is None or row.difference is None:
        return _against_cheap(results, best, reached, remarks)
    gap = gap_of(results, best.name, BASE)
    sentence = f"{best.name} reaches {reached}. The difference is {gap.told} against the untuned base model."
    if gap.verdict == "undecided":
        failing = _failures_of(results, best.name, [])
        sentence = f"{sentence} {_untold(results, [gap])}{failing}{deciding(results, [gap])}"
        return Verdict("undecided", "Undecided", sentence, remarks)
    when = "" if gap.overall == gap.verdict else f" {WHEN_IT_WORKS}"
    failing = _failures_of(results, best.name, [], bool(when))
    return Verdict("decided", f"{best.name} is {gap.verdict} than the base{when}", f"{sentence}{failing}", remarks)


def _against_cheap(results: Results, best: VariantResult, reached: str, remarks: list[str]) -> Verdict:
    """Hold the only variant against what needs no tuning, where that was scored."""
    said = f"{best.name} reaches {reached}{_if_it_fails(best)}."
    gaps = [
        gap_of(results, best.name, cheap.name)
        for cheap in results.baselines
        if headline_row(results, best.name, cheap.name)
    ]
    gaps = [gap for gap in gaps if gap.row.difference is not None]
    if not gaps:
        sentence = f"{said} Nothing else has been scored to compare it with."
        return Verdict("undecided", "One variant", sentence, remarks)
    still = [gap for gap in gaps if gap.open]
    if still:
        # The remark on cheap baselines would say of the only variant what the answer says.
        others = [remark for remark in remarks if remark not in cheap_remarks(results)]
        sentence = f"{said} {_told(still)}{_failures_of(results, best.name, [])}"
        return Verdict("undecided", f"{best.name} is {_not_better(still)}", sentence, others)
    when = "" if all(gap.overall == "better" for gap in gaps) else f" {WHEN_IT_WORKS}"
    sentence = f"{said} {_told(gaps)}{_failures_of(results, best.name, [], bool(when))}"
    return Verdict("decided", f"{best.name} is better than no tuning{when}", sentence, remarks)


def _untold(results: Results, gaps: Sequence[Gap]) -> str:
    """Say of what the leader is not shown to be better; of many rivals the nearest, as the table has all."""
    most = max((variant.estimates[headline_key(results)].n for variant in results.tuned), default=0)
    others = ["the untuned base model" if gap.other == BASE else gap.other for gap in gaps]
    if len(others) > MANY:
        others = [*others[: MANY - 1], f"{len(others) - MANY + 1} others"]
    runs, them = "One seed does" if most == 1 else "These runs do", "it" if len(gaps) == 1 else "each of them"
    return f"{runs} not show that it is better than {listing(others, 'or')}: {them} may be as good or better."


def _failures_of(results: Results, best: str, others: Sequence[str], costly: bool = False) -> str:
    """Say how often the leader fails, how often it could, and whether its rivals differ in that.

    ``costly``: as many failures as it could have may cost more than it is ahead.
    """
    failures = results.variant(best).failures
    if failures.limit is None or results.variant(best).estimates[headline_key(results)].method == SOLVED_METHOD:
        return ""
    told = (
        f" Of {failures.n} runs of {best} {failures.count} failed; of new ones up to {share(failures.limit, 1)} could"
    )
    told += ", and so many could cost it the lead." if costly else "."
    rivals = {name: results.variant(name).failures for name in others}
    rivals = {name: each for name, each in rivals.items() if each.n}
    if not rivals:
        return told
    counts = listing(list(dict.fromkeys(f"{each.count} of {each.n}" for each in rivals.values())))
    p_values = [stats.told_apart(failures, each) for each in rivals.values()]
    apart = any(p is not None and p < 1 - results.level for p in p_values)
    whose = next(iter(rivals)) if len(rivals) == 1 else "the others"
    differ = "the failure rates differ" if len(rivals) == 1 else "at least one of these failure rates is another"
    return f"{told} Of {whose} {counts} failed: {differ if apart else 'no difference in failure rates is shown'}."


def gap_of(results: Results, left: str, right: str) -> Gap:
    """Look at a pair from the side of ``left``, whichever way it is stored. Raises KeyError where there is none."""
    row = headline_row(results, left, right)
    if row is not None:
        return Gap(right, _written(row, 1), row.verdict, row.verdict_overall, row)
    row = headline_row(results, right, left)
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
    p = p_value(row.p_value_adjusted)
    equals = "" if p.startswith("<") else f"={NBSP}"
    tested = "" if row.p_value_adjusted is None else f" (p{NBSP}{equals}{p})"
    return f"{metric.gap(sign * row.difference)}{interval}{tested}"


def deciding(results: Results, gaps: Sequence[Gap]) -> str:
    """The command that says how many seeds and examples would decide it, where the runs give it something to go by."""
    row = gaps[0].row
    if row.se is None or not row.difference:
        return ""
    metric = unit(row.metric)
    detect = f"{max(abs(row.difference) / (metric.point or 1.0), LEAST):.2g}"
    size = f"{detect} {metric.difference}".rstrip()
    if metric.point and not metric.difference:
        size = f"{float(detect) * metric.point:.2g} ({detect} points)"
    command = f"finetune plan runs/{results.study} --detect {detect}"
    return f" How many seeds and examples it takes to see a difference of {size}: {command}"
