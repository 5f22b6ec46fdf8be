"""`finetune init`."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.collecting import uncollected
from finetune.cli.output import shown_aside, wrapped
from finetune.core.errors import InputError, Interrupted, bad_input

if TYPE_CHECKING:
    from finetune.init.proposal import Proposal


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="file, folder, package:NAME/path or hub:ORG/NAME with examples")
    parser.add_argument("--model", metavar="SOURCE", help="base model, as model.source has it; default: a small one")
    parser.add_argument("-o", "--output", type=Path, metavar="RECIPE", help="recipe to write; default: the data's name")
    parser.add_argument("--yes", action="store_true", help="ask nothing: take what is proposed")


def run(args: Namespace) -> int:
    """Look at a data file and write a recipe for it, with a reason for each choice; starts nothing."""
    name = _name(args.data)
    output = args.output or Path(f"{name}.yaml")
    if os.path.exists(output):
        raise _there(output)
    if not output.absolute().parent.is_dir():
        raise bad_input(
            None, f"there is no folder '{output.absolute().parent}' to write the recipe in", "make it first"
        )
    with _part(output, ""):
        pass  # where no file can be made, none is proposed
    with uncollected():
        proposal = _proposed(args, _cleaned(output.stem) if args.output else name)
        for line in summary(proposal):
            print(line)
        if not args.yes and not sys.stdin.isatty():
            # What nobody was asked is not written down in anybody's name.
            found = "nothing was written: there is no terminal to ask on"
            raise bad_input(None, found, "add --yes to take what is proposed above")
        if not args.yes:
            proposal = _asked(args, proposal)
        _write(proposal, output)
    next_one = wrapped(f"next: finetune run {shlex.quote(str(output))}", hanging="  ")
    print("", wrapped(f"written: {output}"), next_one, sep="\n")
    return 0


def _name(data: str) -> str:
    """A recipe's name from that of its data: of `train.csv`, the folder's."""
    parts = [part for part in re.split(r"[/\\:#@]+", data.rstrip("/")) if part]
    stem = parts[-1].partition(".")[0] if parts else ""
    if stem.lower() in ("train", "training", "data") and len(parts) > 1:
        stem = parts[-2]
    return _cleaned(stem).replace(".", "-")


def _cleaned(stem: str) -> str:
    """The part of a file's name that a study may be called."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-_.")[:200] or "recipe"


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
    """Write the recipe once it has passed a check; what has not is kept as a draft."""
    from finetune.cli.check import show_check
    from finetune.init.writing import written
    from finetune.recipe import load

    text = written(proposal, output.parent)
    with _part(output, text) as part:
        try:
            show_check(load(part), fresh=False, output=Path("runs"))
        except InputError as error:
            raise _kept(error, part, output, text) from error
        _place(part, output, text)


@contextmanager
def _part(output: Path, text: str) -> Iterator[Path]:
    """Give a file beside ``output`` that holds ``text``, and that nobody else writes, while it is looked at."""
    part = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
    _create(part, text, output)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _place(part: Path, output: Path, text: str) -> None:
    """Let ``output`` be ``part``, which holds ``text``, at once, unless somebody has written one meanwhile."""
    try:
        os.link(part, output)
    except FileExistsError as error:
        raise _there(output) from error
    except OSError:  # a disk without hard links
        _create(output, text, output)


def _create(path: Path, text: str, output: Path) -> None:
    """Write a file that is not there yet; ``output`` is what a person calls it."""
    made = False
    try:
        with open(path, "x", encoding="utf-8") as file:
            made = True
            file.write(text)
    except FileExistsError as error:
        raise _there(output) from error
    except OSError as error:
        if made:
            path.unlink(missing_ok=True)
        raise bad_input(
            None, f"'{output}' cannot be written: {error.strerror or error}", "name another file with -o"
        ) from error


def _there(output: Path) -> InputError:
    return bad_input(None, f"there is a '{output}' already, and it is not overwritten", "name another file with -o")


def _kept(error: InputError, part: Path, output: Path, text: str) -> InputError:
    """Keep what did not pass the check under a name of its own; give the ``error`` that calls it so."""
    from finetune.recipe.tree import shown

    names = (f"{output.stem}.draft{'' if number == 1 else f'-{number}'}.yaml" for number in count(1))
    draft = next(path for name in names if not os.path.lexists(path := output.with_name(name)))
    _place(part, draft, text)

    def told(said: str) -> str:
        return said.replace(shown(part), shown(draft))

    *others, last = [
        replace(each, where=each.where and told(each.where), found=told(each.found), advice=told(each.advice))
        for each in error.problems
    ]
    kept = f"what was proposed is kept as {shown(draft)}, to be corrected there"
    return InputError([*others, replace(last, advice=f"{last.advice}; {kept}" if last.advice else kept)])
