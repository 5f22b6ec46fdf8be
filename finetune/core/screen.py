"""Text on its way to a person: what would steer a screen instead of being seen becomes a sign, and secrets stay away.

Data, file names, labels and the messages of libraries may hold such characters; a terminal would do what they say.
"""

from __future__ import annotations

from typing import Any, TextIO

from finetune.core.secrets import without_secrets

_UNSEEN = (
    *range(0x09),
    *range(0x0B, 0x20),
    *range(0x7F, 0xA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
_SEEN = dict.fromkeys(_UNSEEN, "\N{REPLACEMENT CHARACTER}")


def seen(text: str) -> str:
    """Put a sign for each character of ``text`` that steers a screen instead of being seen: control characters, and
    those that turn the direction of all that follows them. Line ends and tabs stay."""
    return text.replace("\r\n", "\n").translate(_SEEN)


def screened(text: str) -> str:
    """``text`` as :func:`seen`, and without secrets that somebody's message may quote."""
    return seen(without_secrets(text))


class Screen:
    """A stream that has everything as :func:`screened`. What draws on a terminal itself writes to :func:`raw`."""

    def __init__(self, stream: TextIO):
        self.raw = stream

    def write(self, text: str) -> int:
        return self.raw.write(screened(text))

    def writelines(self, lines: Any) -> None:
        self.raw.writelines(map(screened, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw(stream: Any) -> TextIO:
    """The stream behind a :class:`Screen`."""
    found: TextIO = stream.raw if isinstance(stream, Screen) else stream
    return found
