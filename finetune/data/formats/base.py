"""Formats of data files, and where they are found: one class, registered once, from which the endings of file names,
the choices of `format`, the messages that list formats, and the reference are made.

The modules keep pyarrow inside functions: a recipe is checked without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.registry import Registry
from finetune.data.encodings import BINARY, NotText, Written, advise, decode

if TYPE_CHECKING:
    import pyarrow as pa


class Format:
    """Reads a file, or a folder, into an Arrow table."""

    name: ClassVar[str]
    """The word for it in a recipe."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Endings of file names, in small letters, that say it."""
    folder: ClassVar[bool] = False
    """True when it is of folders and not of files."""
    binary: ClassVar[bytes] = b""
    """How its files begin, where they hold no text; empty: they hold text."""
    delimited: ClassVar[bool] = False
    """True when its values are written as text, and their columns may be named by the recipe instead of a header line:
    what looks like a number everywhere in a column is one then."""

    @staticmethod
    def read(path: Path, source: Written, at: str) -> pa.Table:
        """The rows of what lies at ``path``, which is there. Raises :class:`InputError` under the recipe path ``at``
        for what cannot be read; an OSError is told by the caller."""
        raise NotImplementedError


FORMATS: Registry[type[Format]] = Registry("format", "finetune.data.formats")


def named_by(suffix: str) -> type[Format] | None:
    """The format of files with this ending; None where it says nothing."""
    return next((each for each in FORMATS.all().values() if suffix.lower() in each.suffixes), None)


def not_text(start: bytes) -> str:
    """Say what a file is that begins with ``start`` and holds no text, with advice; empty where it may be text."""
    for name, each in FORMATS.all().items():
        if each.binary and start.startswith(each.binary):
            return f"it is a {name} file: set `format: {name}`"
    return next((f"it is {what}: {advice}" for begins, what, advice in BINARY if start.startswith(begins)), "")


def unknown_encoding(source: Written, at: str) -> InputError:
    """The error for an encoding that Python does not know."""
    return bad_input(f"{at}.encoding", f"there is no text encoding '{source.encoding}'", "for example utf-8 or latin-1")


def read_text(path: Path, source: Written, at: str) -> str:
    """The text of ``path``, which must not be empty."""
    content = path.read_bytes()
    try:
        text = decode(content, source)
    except NotText as error:
        line = content.count(b"\n", 0, error.position) + 1
        advice = not_text(content) or advise([content], source)
        raise InputError(Problem(error.found, advice, f"{at}.path", f"{path}:{line}")) from error
    except LookupError as error:
        raise unknown_encoding(source, at) from error
    if not text or text.isspace():
        raise bad_input(f"{at}.path", f"'{path}' is empty", "name a file with examples, or write it again")
    return text
