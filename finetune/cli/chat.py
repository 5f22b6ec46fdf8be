"""`finetune chat`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from finetune.cli.arguments import add_overrides
from finetune.cli.predict import MODEL, OPTIONS, told_when_full
from finetune.cli.speaker import Speaker

if TYPE_CHECKING:
    from finetune.core.errors import InputError
    from finetune.inference.talking import Settings

ASK = "> "
RESET = "/reset begins anew"
HELP = f"{RESET}, /exit ends; Ctrl-C stops an answer, and the chat where there is none"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    add_overrides(parser, OPTIONS)
    parser.add_argument("--compare", metavar="OTHER", help="another model, whose answers stand beside the first one's")
    parser.add_argument("--system", metavar="TEXT", help="system message; default: the one it was trained with")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of an answer; default: 256")
    said = "above 0 answers are drawn; default: 0, each token is the likeliest"
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help=said)
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw from this share; default: 1")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from so many likeliest tokens; default: all")
    parser.add_argument("--seed", type=int, metavar="N", help="draws the same answers again")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends an answer; may be repeated")


def run(args: Namespace) -> int:
    """Talk with a model, or with two side by side."""
    _refuse(args)
    from finetune.cli.output import console
    from finetune.core.shown import make_progress
    from finetune.core.signals import StopRequest

    with make_progress(console(sys.stderr)) as progress:
        with progress.phase("loading the libraries"):
            from finetune.inference.asking import asking
            from finetune.inference.loading import open_model
            from finetune.inference.talking import Settings, Talker, refuse_silent
        opened = []
        for source in filter(None, (args.model, args.compare)):
            opened.append(open_model(source, args.overrides))
            refuse_silent(opened[-1])
    stop = tuple(args.stop)
    settings = Settings(args.max_tokens, args.temperature, args.top_p, args.top_k, args.seed, stop)
    with ExitStack() as stack:
        askers = [stack.enter_context(asking(each, progress, StopRequest())) for each in opened]
        talkers = [Talker(each.opened, each.group.model) for each in askers]
        with told_when_full():
            return _converse([Speaker(each.opened.name, each, args.system) for each in talkers], settings)


def _refuse(args: Namespace) -> None:
    from finetune.core.errors import bad_input

    if not 0 <= args.temperature <= 100:
        raise bad_input(
            "--temperature", f"is {args.temperature:g}", "write 0, or what log-probabilities are divided by"
        )
    if not 0 < args.top_p <= 1:
        raise bad_input("--top-p", f"is {args.top_p:g}", "write a share above 0 and up to 1")
    for name in ("max_tokens", "top_k"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise bad_input(f"--{name.replace('_', '-')}", f"is {value}", "write 1 or more")
    if args.seed is not None and args.seed < 0:
        raise bad_input("--seed", f"is {args.seed}", "write 0 or more")
    if "" in args.stop:
        raise bad_input("--stop", "is empty, and so would every answer be", "write a text, or leave it out")


def _converse(speakers: list[Speaker], settings: Settings) -> int:
    """Answer line after line, until there is none; gives the exit code: 1 where lines of a pipe were not answered."""
    from finetune.cli.side_by_side import answer_all
    from finetune.core.errors import InputError

    terminal, left = sys.stdin.isatty() and sys.stdout.isatty(), 0
    if terminal:
        print(f"{' and '.join(each.name for each in speakers)}. {HELP}")
        if not all(each.talker.chats for each in speakers):
            print("without a chat template each line is continued by itself")
    try:
        for line in _lines(terminal):
            if line == "/exit":
                break
            if line == "/reset":
                for each in speakers:
                    each.turns.clear()
            elif line.startswith("/"):
                print(f"there is no {line.split()[0]}: {HELP}")
            elif line:
                try:
                    answer_all(speakers, line, settings)
                except InputError as error:
                    left += 1
                    print(_told(error, any(each.turns for each in speakers)), file=sys.stderr)
    except KeyboardInterrupt:
        print()
    sys.stdout.flush()
    return 1 if left and not terminal else 0


def _told(error: InputError, begun: bool) -> str:
    """Say why a line has no answer, and what to do; ``begun``: there are turns before it, which can be forgotten."""
    said = [[each.found, each.advice, RESET if begun else ""] for each in error.problems]
    return "\n".join("; ".join(filter(None, each)) for each in said)


def _lines(terminal: bool) -> Iterator[str]:
    """Yield what a person types, or the lines of a pipe, without the blanks around."""
    if hasattr(sys.stdin, "reconfigure"):  # what is not in the terminal's encoding is shown as such, and no crash
        sys.stdin.reconfigure(errors="replace")
    if not terminal:
        yield from (line.strip() for line in sys.stdin)
        return
    import readline  # noqa: F401 - lets lines be edited

    while True:
        try:
            yield input(ASK).strip()
        except EOFError:
            print()
            return
