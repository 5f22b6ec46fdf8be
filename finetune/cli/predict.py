"""`finetune predict`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from finetune.cli.arguments import add_overrides

if TYPE_CHECKING:
    from finetune.core.progress import Progress

MODEL = "a run (runs/NAME/VARIANT/seed-0), a soup, an export, an adapter, any model folder, package: or org/name"
OPTIONS = "of the model's recipe, as in task.text=headline, scoring.batch_size=64 or model.device=cpu"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("file", metavar="FILE", help="what to predict, in any format that a recipe's data may have")
    add_overrides(parser, OPTIONS)
    said = "ends in .csv, .jsonl or .parquet; begun again it goes on. Default: JSON lines on the output"
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help=said)
    parser.add_argument("--probabilities", action="store_true", help="those of all labels too")
    said = "fit probabilities to the run's validation examples, by temperature scaling"
    parser.add_argument("--calibrated", action="store_true", help=said)
    parser.add_argument("--format", metavar="F", help="of FILE, where its name does not say it")
    parser.add_argument("--encoding", metavar="NAME", help="of FILE, such as cp1252; default: the training data's")
    parser.add_argument("--split", metavar="S", help="of a hub dataset; default: train")


def run(args: Namespace) -> int:
    """Predict every row of a file, in bounded memory; run again to go on."""
    from finetune.cli.collecting import uncollected
    from finetune.cli.output import console
    from finetune.core.shown import make_progress

    with make_progress(console(sys.stderr)) as progress:
        with uncollected(), progress.phase("loading the libraries"):
            from finetune.core.signals import stop_on_signals
            from finetune.inference.asking import asking, refuse_unasked
            from finetune.inference.loading import open_model
        with stop_on_signals(progress.say) as stop:
            opened = open_model(args.model, args.overrides)
            refuse_unasked(opened)
            with asking(opened, progress, stop, probabilities=args.probabilities) as asker:
                if args.calibrated:
                    from finetune.inference.calibrating import calibrate

                    progress.say(calibrate(asker))
                return _predict(asker, args, progress)


def _predict(asker: object, args: Namespace, progress: Progress) -> int:
    from finetune.inference.asking import Asker
    from finetune.inference.predicting import predict_file
    from finetune.inference.reading import source_of

    assert isinstance(asker, Asker)
    said = {"format": args.format, "split": args.split, "encoding": args.encoding}
    source = source_of(args.file, asker, said)
    count = predict_file(asker, source, args.output, _output(), progress.say)
    if args.output is not None:
        progress.say(f"{count:,} rows: {args.output}")
    return 0


def _output() -> IO[bytes]:
    """Where rows go without a file: as they are into a pipe, and onto a terminal as they can be shown."""
    from finetune.core.screen import raw

    piped = not sys.stdout.isatty() and hasattr(raw(sys.stdout), "buffer")
    return _Piped(raw(sys.stdout).buffer) if piped else _Shown()  # type: ignore[return-value]


class _Piped:
    """A stream of bytes into a pipe or a file, which says where there is no room."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream

    def write(self, content: bytes) -> int:
        with told_when_full():
            return self._stream.write(content)

    def flush(self) -> None:
        with told_when_full():
            self._stream.flush()


@contextmanager
def told_when_full() -> Iterator[None]:
    """Say in one line where the output has no room for what is written within the context."""
    from finetune.core.errors import DiskFull, disk_full

    try:
        yield
    except OSError as error:
        if not disk_full(error):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would fail again at its end
        raise DiskFull("no room to write the output: make some, or write it elsewhere") from error


class _Shown:
    """A stream of bytes that a person reads."""

    def write(self, content: bytes) -> int:
        sys.stdout.write(content.decode("utf-8", "replace"))
        return len(content)

    def flush(self) -> None:
        sys.stdout.flush()
