"""The findings of `finetune diagnose`, in words and in a table: on the page of its design, and in the terminal."""

from __future__ import annotations

from typing import Any

from finetune.core.numbers import NONE, p_value
from finetune.core.run_dir import read_json
from finetune.metrics import unit
from finetune.report.blocks import Block, Cell, Column, Section, Table, Text
from finetune.results.reading import Study
from finetune.results.schema import Results

Content = dict[str, Any]
"""Of `diagnosis.json`."""

HEADINGS = {
    "source": "Seeds of a stream of randomness; interactions are what several do together and none alone",
    "share": "Of the variance of a run's score",
    "95 % interval": "Of the share; wide, because each source has few levels",
    "SD": "Of scores, were this the only source",
    "of it test-set noise": "What a test set of this size causes alone, as an SD",
    "levels": "How many seeds of its own each source had",
}

INTRO = (
    "These runs are a crossed design: a digit of each seed is the seed of one source, in the order split, init, order, "
    "dropout, noise. They share levels, so that intervals which take them for independent seeds are too narrow here."
)

WORDS = {
    "helps": "It helps",
    "harms": "It harms",
    "mixed": "It does what it was for, and the mean is worse",
    "undecided": "These seeds do not decide whether it helps",
}


def sections(study: Study, results: Results) -> list[Section]:
    """The diagnosis; none on the page of a study that is no such design."""
    if not study.folder.diagnosis.exists():
        return []
    content = read_json(study.folder.diagnosis)
    blocks: list[Block] = [Text(text) for text in sentences(content)]
    found = content["decomposition"]
    if found:
        columns = [Column(name, about, numeric=name != "source") for name, about in HEADINGS.items()]
        cells = [[Cell(row[name]) for name in HEADINGS] for row in rows(content)]
        blocks.append(Table(columns, cells, [f"Method: {found['method']}."]))
    return [Section("diagnosis", "Where the spread comes from", [*blocks, Text(INTRO, "muted")])]


def rows(content: Content) -> list[dict[str, str]]:
    """Fill the table by heading: a row for each source, for interactions, and for all together."""
    found, shown = content["decomposition"], unit(content["metric"])
    made = []
    for part in [*found["sources"], found["interactions"]]:
        noise = None if part["noise"] is None else max(0.0, part["noise"]) ** 0.5
        share = NONE if part["share"] is None else _percent(part["share"])
        clipped = " (below zero)" if part["clipped"] else ""
        levels = NONE if part is found["interactions"] else str(content["levels"])
        values = (part["source"], share + clipped, _shares(part["ci"]), shown.number(part["sd"], 1))
        made.append(dict(zip(HEADINGS, (*values, shown.number(noise, 1), levels), strict=True)))
    noise = None if found["noise"] is None else found["noise"] ** 0.5
    total = ("all", NONE if found["sd"] == 0 else "100%", NONE, shown.number(found["sd"], 1), shown.number(noise, 1))
    return [*made, dict(zip(HEADINGS, (*total, NONE), strict=True))]


def _shares(bounds: list[float] | None) -> str:
    return NONE if bounds is None else f"{_percent(bounds[0])} to {_percent(bounds[1])}"


def _percent(share: float) -> str:
    """Write a share in per cent, such that more than nothing is not shown as nothing."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def sentences(content: Content) -> list[str]:
    """The answer: what causes most, what to try, and whether it has helped."""
    found, shown = content["decomposition"], unit(content["metric"])
    said = [f"{_capital(content['cause']['reason'])}."]
    if found is None:
        said.append(f"By source nothing can be said: {content['reason']}.")
    elif found["sd_ci"]:
        noise = found["noise_share"]
        known = noise is not None and content["cause"]["name"] != "test set"  # whose reason has said it
        told = f"; {noise:.0%} of the variance is what a test set of this size causes alone" if known else ""
        interval = shown.interval(found["sd_ci"])
        sd = f"{shown.number(found['sd'], 1)} {shown.difference}".strip()
        said.append(f"The SD of a run's {shown.label} is {sd} {interval}{told}.")
    if content["left_out"]:
        said.append(f"Held still: {'; '.join(f'{name} ({why})' for name, why in content['left_out'].items())}.")
    for name, problems in content["refused"].items():
        said.append(f"Not possible here: {name} ({'; '.join(problems)}).")
    if content["cure"]:
        said.append(f"To try: {', '.join(content['cure']['write'])}. {_capital(content['cure']['why'])}.")
    else:
        said.append(f"Nothing to try: {content['advice']}.")
    return [*said, *([_judged(content)] if content["trial"] else [])]


def _judged(content: Content) -> str:
    """Tell the outcome of the trial in a sentence."""
    trial, shown = content["trial"], unit(content["metric"])
    before, after = trial["before"], trial["after"]
    ratio = "" if trial["sd_ratio"] is None else f", {trial['sd_ratio']:.2f} times"
    ci = "" if trial["sd_ratio_ci"] is None else " [{:.2f}, {:.2f}]".format(*trial["sd_ratio_ci"])
    facts = [
        f"SD {shown.number(before['sd'], 1)} before and {shown.number(after['sd'], 1)} after"
        f"{ratio}{ci} (p {_p(trial['p_spread'])})",
        f"mean {shown.gap(trial['difference'])} {shown.interval(trial['difference_ci'], signed=True)} "
        f"(p {_p(trial['p_difference'])})",
        f"{before['failed']} of {before['runs']} runs failed before and {after['failed']} of {after['runs']} after",
    ]
    return f"{WORDS[trial['verdict']]}, on {len(trial['seeds'])} fresh seeds: {'; '.join(facts)}."


def _p(value: float | None) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
