"""Questions to a person, each with the proposal as its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from finetune.core.errors import InputError, did_you_mean
from finetune.core.registry import TASKS
from finetune.init.proposal import Proposal, Wishes

Ask = Callable[[str], str]
"""Shows a line, and gives what was typed."""
NONE = "none"


def asked(proposal: Proposal, again: Callable[[Wishes], Proposal], ask: Ask, say: Callable[[str], None]) -> Proposal:
    """Ask what a person may know better than the file says: what is learnt, from which columns, with which model, and
    under how many seeds. ``again`` proposes with what was said."""
    wishes = Wishes()
    names = [column.name for column in proposal.columns]

    def changed(**said: object) -> None:
        nonlocal wishes, proposal
        wanted = replace(wishes, **said)  # type: ignore[arg-type]
        try:
            proposal, wishes = again(wanted), wanted
        except InputError as error:
            say(f"that does not work: {error.problems[0].found}; {error.problems[0].advice}")

    found = proposal.understood
    task = _choice("What is learnt?", found.task, [*TASKS.all()], ask, say)
    if task != found.task:
        changed(task=task, answer=())
    found = proposal.understood
    if found.answer:
        said = _columns("Which column says what is right?", found.answer, names, ask, say)
        if said != found.answer:
            changed(answer=said)
    if group := proposal.sections["task"].get("group"):
        said = _columns("Rows with the same value of which column belong together?", (group,), [*names, NONE], ask, say)
        if said != (group,):
            changed(group="" if said == (NONE,) else said[0])
    source = proposal.sections["model"]["source"]
    if (said_model := _answer("Which base model?", source, ask)) != source:
        changed(model=said_model)
    seeds = str(proposal.sections["seeds"])
    while (said_seeds := _answer("How many seeds?", seeds, ask)) != seeds:
        if said_seeds.isdecimal() and 1 <= int(said_seeds) <= 100:
            changed(seeds=int(said_seeds))
            break
        say("a whole number from 1 to 100")
    return proposal


def _answer(question: str, default: str, ask: Ask) -> str:
    return ask(f"{question} [{default}] ").strip() or default


def _choice(question: str, default: str, choices: Sequence[str], ask: Ask, say: Callable[[str], None]) -> str:
    while (said := _answer(question, default, ask)) not in choices:
        say(did_you_mean(said, choices))
    return said


def _columns(
    question: str, default: Sequence[str], names: Sequence[str], ask: Ask, say: Callable[[str], None]
) -> tuple[str, ...]:
    while True:
        said = _answer(question, ", ".join(default), ask)
        columns = (said,) if said in names else tuple(each.strip() for each in said.split(","))
        unknown = [each for each in columns if each not in names]
        if not unknown:
            return columns
        say(f"there is no column '{unknown[0]}': {did_you_mean(unknown[0], names)}")
