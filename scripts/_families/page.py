"""The page with the table: written by a whole run, read by those that look whether it is still true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scripts._families.extras import EXTRAS, OF
from scripts._families.rows import STRATEGIES, TASKS
from scripts._families.zoo import FAMILIES

PATH = Path(__file__).parents[2] / "recipes" / "FAMILIES.md"
COLUMNS = [(task, strategy) for task in TASKS for strategy in STRATEGIES]
NONE = "–"
OPENING = """# Model families

What works, family by family, with tiny models of random weights: made from a configuration, trained for a few steps,
scored in batches, saved, and loaded again from the run's folder by plain transformers (`AutoModelFor…`), or, for LoRA,
by peft's `AutoPeftModelFor…`, which is told nothing else. ✓: each example's loss is then the same alone as in its
batch, to 1e-4, and so is what the model answers. A number: refused before it starts, for the reason below. –: not
tried. Written by `scripts/families`; `scripts/families --share 0.2 --seed 1` looks at a fifth again.
"""
BESIDES = """
## Besides

*preference*: DPO. *kill and resume*: SIGKILL while it trains; what goes on ends, bit by bit, where an uninterrupted run
does. *accumulation*: parts of three examples train like the whole batch. *two processes*: they train like one. *added
tokens*: a base whose tokenizer and embeddings have grown.
"""


def write(found: Mapping[tuple[str, str, str], str]) -> None:
    """Write the page."""
    reasons: dict[str, int] = {}

    def cell(name: str, what: str, strategy: str) -> str:
        came = found.get((name, what, strategy), found.get((name, what, ""), NONE))
        kind, _, why = came.partition(": ")
        if kind == "refused":
            return str(reasons.setdefault(why, len(reasons) + 1))
        return {"works": "✓"}.get(kind, "fails" if kind == "FAILS" else kind)

    head = ["family", *(f"{task}, {strategy}" for task, strategy in COLUMNS)]
    main = [[name, *(cell(name, *column) for column in COLUMNS)] for name in FAMILIES]
    more = [[name, *(cell(name, what, "") for what in EXTRAS)] for name in OF]
    lines = [*_table(head, main), "", *(f"{number}. {why}" for why, number in reasons.items())]
    PATH.write_text(
        OPENING + "\n" + "\n".join(lines) + "\n" + BESIDES + "\n" + "\n".join(_table(["family", *EXTRAS], more)) + "\n",
        encoding="utf-8",
    )


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


def read() -> dict[tuple[str, str, str], str]:
    """What the page says of each cell."""
    lines = PATH.read_text(encoding="utf-8").splitlines() if PATH.exists() else []
    numbered = [line.partition(". ") for line in lines if line.partition(". ")[0].isdecimal()]
    reasons = {number: f"refused: {why}" for number, _, why in numbered}
    said, head = {}, [""]
    for line in lines:
        first, *rest = line.strip("| ").split(" | ")
        if first == "family":
            head = rest
        for column, mark in zip(head, rest if line.startswith("| ") else [], strict=False):
            what, _, strategy = column.partition(", ")
            said[first, what, strategy] = reasons.get(mark, "works" if mark == "✓" else mark)
    return said


def differing(found: Mapping[tuple[str, str, str], str]) -> dict[tuple[str, str, str], str]:
    """What was found that is not as the page says, with what it says."""
    said = read()
    wrong = {}
    for (name, what, strategy), came in found.items():
        strategies = [strategy] if strategy or what not in TASKS else list(STRATEGIES)
        for one in strategies:
            written = said.get((name, what, one), "nothing")
            if written != came:
                wrong[name, what, one] = f"{came} (the page: {written})"
    return wrong
