"""The `finetune` command: one module per verb; this one chooses the verb and turns errors into messages and codes."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn, TextIO, cast

from finetune import __doc__ as summary
from finetune import __version__
from finetune.cli import (
    cancel,
    chat,
    check,
    compare,
    diagnose,
    doctor,
    evaluate,
    explain,
    export,
    init,
    launch,
    list_plugins,
    logs,
    plan,
    predict,
    report,
    run,
    schema,
    serve,
    status,
)
from finetune.core.errors import FinetuneError, InputError, Interrupted
from finetune.core.launched import let_the_first_speak, rank
from finetune.core.run_dir import not_for_all_to_write
from finetune.core.screen import Screen
from finetune.core.signals import leave_on_signals

VERBS: dict[str, ModuleType] = {
    "init": init,
    "run": run,
    "check": check,
    "schema": schema,
    "list": list_plugins,
    "explain": explain,
    "plan": plan,
    "diagnose": diagnose,
    "evaluate": evaluate,
    "predict": predict,
    "chat": chat,
    "serve": serve,
    "report": report,
    "compare": compare,
    "export": export,
    "launch": launch,
    "status": status,
    "logs": logs,
    "cancel": cancel,
    "doctor": doctor,
}

QUIET = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
"""Variables that libraries read when they are imported: their bars would run across our own line, and into logs."""

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

RESUME = "interrupted; run the same command again to resume"


class _Parser(argparse.ArgumentParser):
    """An argument parser that shows the whole help when it is misunderstood."""

    def error(self, message: str) -> NoReturn:
        print(let_the_first_speak(), end="", file=sys.stderr)
        self.print_help(sys.stderr)
        self.exit(BAD_INPUT, f"\n{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 something failed, 2 bad input, 130 interrupted."""
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # a terminal without Unicode shows '?', which beats a crash
            stream.reconfigure(errors="replace")
    for name in QUIET:
        os.environ.setdefault(name, "1")
    # Python ends by searching all that torch and transformers made for garbage, which would take it a second or two.
    atexit.register(gc.freeze)
    sys.stdout, sys.stderr = (cast(TextIO, Screen(stream)) for stream in streams)
    try:
        with leave_on_signals(), not_for_all_to_write():
            return _run(sys.argv[1:] if argv is None else argv)
    finally:
        sys.stdout, sys.stderr = streams


def _run(argv: Sequence[str]) -> int:
    """Run the verb, and turn what it raises into a message and an exit code."""
    try:
        args = _parse(argv)
        code = VERBS[args.verb].run(args)
        sys.stdout.flush()
        return code
    except InputError as error:
        from finetune.cli.output import print_problems

        print(let_the_first_speak(), end="", file=sys.stderr)
        print_problems(error.problems)
        return error.exit_code
    except (KeyboardInterrupt, Interrupted) as stop:
        if rank() == 0:  # all of them were
            print("\n".join(filter(None, (str(stop), RESUME))), file=sys.stderr)
        return INTERRUPTED
    except FinetuneError as error:
        print(f"{let_the_first_speak()}finetune: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader has left, as in `finetune list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception:
        print(let_the_first_speak(), end="", file=sys.stderr)
        traceback.print_exc()
        return FAILED


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    args, left = parser.parse_known_args(argv)
    if args.verb is None:
        parser.error("say what to do: " + ", ".join(VERBS))
    if hasattr(args, "overrides"):  # argparse leaves over those which stand behind an option
        args.overrides += [text for text in left if "=" in text and not text.startswith("-")]
        left = [text for text in left if text not in args.overrides]
    if left:
        parser.error(f"not understood: {' '.join(left)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="finetune", description=summary, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"finetune {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, module in VERBS.items():
        about = module.run.__doc__.partition("\n")[0]
        module.add_arguments(verbs.add_parser(name, help=about, description=about, allow_abbrev=False))
    return parser
