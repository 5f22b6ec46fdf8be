"""`finetune init`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.collecting import uncollected
from finetune.cli.output import shown_aside, wrapped

if TYPE_CHECKING:
    from finetune.init.proposal import Proposal


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="file, folder, package:NAME/path or hub:ORG/NAME with examples")
    parser.add_argument("--model", metavar="SOURCE", help="base model, as model.source has it; default: a small one")
    parser.add_argument("-o", "--output", type=Path, metavar="RECIPE", help="recipe to write; default: the data's name")
    parser.add_argument("--yes", action="store_true", help="ask nothing: take what is proposed")


def run(args: Namespace) -> int:
    """Look at a data file and write a recipe for it, with a reason for each choice; starts nothing."""
    from finetune.core.errors import bad_input

    name = _name(args.data)
    output = args.output or Path(f"{name}.yaml")
    if os.path.exists(output):
        raise bad_input(None, f"there is a '{output}' already, and it is not overwritten", "name another file with -o")
    if not output.absolute().parent.is_dir():
        raise bad_input(
            None, f"there is no folder '{output.absolute().parent}' to write the recipe in", "make it first"
        )
    with uncollected():
        proposal = _proposed(args, output.stem if args.output else name)
        for line in summary(proposal):
            print(line)
        if not args.yes and not sys.stdin.isatty():
            # What nobody was asked is not written down in anybody's name.
            found = "nothing was written: there is no terminal to ask on"
            raise bad_input(None, found, "add --yes to take what is proposed above")
        if not args.yes:
            proposal = _asked(args, proposal)
        _write(proposal, output)
    print("", wrapped(f"written: {output}"), wrapped(f"next: finetune run {output}", hanging="  "), sep="\n")
    return 0


def _name(data: str) -> str:
    """A recipe's name from that of its data: of `train.csv`, the folder's."""
    import re

    parts = [part for part in re.split(r"[/\\:#@]+", data.rstrip("/")) if part]
    stem = parts[-1].partition(".")[0] if parts else ""
    if stem.lower() in ("train", "training", "data") and len(parts) > 1:
        stem = parts[-2]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "recipe"


def _proposed(args: Namespace, name: str) -> Proposal:
    from finetune.init.proposal import Wishes, propose
    from finetune.init.reading import find

    with shown_aside("looking at the data"):
        read = find(args.data)
        args.again = lambda wishes: propose(read, name, wishes)
        return propose(read, name, Wishes(model=args.model))


def summary(proposal: Proposal) -> Iterator[str]:
    """What is proposed, and why, in lines that fit."""
    from finetune.recipe.yaml_text import one_line

    task = proposal.sections["task"]
    roles = {key: value for key, value in task.items() if key in proposal.understood.options}
    yield wrapped(f"task: {task['type']} {one_line(roles) if roles else ''}".rstrip(), hanging="  ")
    yield wrapped(proposal.understood.why, "    ", "    ")
    for key in ("model", "data", "strategy", "variants", "train", "seeds"):
        if key in proposal.sections and (reason := proposal.why.get(key)):
            value = proposal.sections[key]
            shown = list(value) if key == "variants" else value.get("split", "") if key == "data" else value
            yield wrapped(f"{key}: {one_line(shown) if shown else ''}".rstrip(), hanging="  ")
            yield wrapped(reason, "    ", "    ")
    for note in proposal.notes:
        yield wrapped(f"note: {note}", hanging="  ")


def _asked(args: Namespace, proposal: Proposal) -> Proposal:
    from dataclasses import replace

    from finetune.core.errors import Interrupted
    from finetune.init.asking import asked

    def again(wishes: object) -> Proposal:
        made: Proposal = args.again(replace(wishes, model=wishes.model or args.model))  # type: ignore[type-var, attr-defined]
        return made

    def ask(question: str) -> str:
        try:
            return input(question)
        except EOFError as end:
            raise Interrupted("nothing was written") from end

    print()
    return asked(proposal, again, ask, lambda line: print(wrapped(line, "  ", "  ")))


def _write(proposal: Proposal, output: Path) -> None:
    """Write the recipe once it has passed a check."""
    from finetune.cli.check import show_check
    from finetune.init.writing import written
    from finetune.recipe import load

    part = output.with_name(f".{output.name}.part")
    try:
        part.write_text(written(proposal, output.parent), encoding="utf-8")
        show_check(load(part), fresh=False, output=Path("runs"))
        os.link(part, output)  # fails where somebody has written one meanwhile
    finally:
        part.unlink(missing_ok=True)
