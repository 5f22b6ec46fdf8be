"""Answers of one model as they come, or of two beside each other; in a narrow terminal one below the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from finetune.cli.output import columns, console
from finetune.core.screen import seen

if TYPE_CHECKING:
    from finetune.cli.speaker import Speaker
    from finetune.inference.talking import Request, Settings

NARROW = 80
"""Columns below which two answers stand one below the other."""

ENDED = {"length": "… (as long as an answer may be)", "cancelled": "… (stopped)"}
"""What stands behind an answer that did not end by itself."""


def answer_all(speakers: Sequence[Speaker], asked: str, settings: Settings) -> None:
    """Let each answer, and show what it says."""
    if len(speakers) == 1:
        _plain(speakers[0], asked, settings)
    elif sys.stdout.isatty() and columns() >= NARROW:
        _beside(speakers, asked, settings)
    else:
        for each in speakers:
            print(f"{each.name}:")
            if _plain(each, asked, settings).finish == "cancelled":
                return


def _plain(speaker: Speaker, asked: str, settings: Settings) -> Request:
    """Write an answer as it comes."""

    def tell(text: str) -> None:
        print(text, end="", flush=True)

    request = speaker.answer(asked, settings, tell)
    after = ENDED.get(request.finish or "", "")
    print(f" {after}" if after and sys.stdout.isatty() else "", flush=True)
    return request


def _beside(speakers: Sequence[Speaker], asked: str, settings: Settings) -> None:
    """Draw the answers beside each other while they come."""
    from rich.live import Live

    said = ["" for _ in speakers]
    screen = console(sys.stdout)
    with Live(console=screen, transient=True, refresh_per_second=8, vertical_overflow="ellipsis") as live:

        def telling(number: int) -> Callable[[str], None]:
            def tell(text: str) -> None:
                said[number] += text
                live.update(_drawn(speakers, said))

            return tell

        for number, each in enumerate(speakers):
            request = each.answer(asked, settings, telling(number))
            said[number] = f"{request.said} {ENDED.get(request.finish or '', '')}".rstrip()
            if request.finish == "cancelled":
                break
    screen.print(_drawn(speakers, said))


def _drawn(speakers: Sequence[Speaker], said: Sequence[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, show_lines=False, pad_edge=False, box=None)
    for each in speakers:
        table.add_column(Text(seen(each.name), style="bold"), ratio=1, overflow="fold")
    table.add_row(*(Text(seen(text)) for text in said))
    return table
