"""Formats of data files, and where they are found: one class, registered once, from which the endings of file names,
the choices of `format`, the messages that list formats, and the reference are made.

The modules keep pyarrow inside functions: a recipe is checked without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.registry import Registry
from finetune.data.encodings import BINARY, NotText, Written, advise, decode, is_encoding
from finetune.data.packed import COMPRESSED, open_file

if TYPE_CHECKING:
    import pyarrow as pa


BLOCK = 1 << 24
"""Bytes of a file that are read at once."""

LONGEST = 1 << 26
"""Bytes that a line may have, where a file is read some lines at a time."""


class Format:
    """Reads a file, or a folder, into an Arrow table."""

    name: ClassVar[str]
    """The word for it in a recipe."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Endings of file names, in small letters, that say it."""
    folder: ClassVar[bool] = False
    """True when it is read from a folder and not from files."""
    holds: ClassVar[str] = ""
    """What a folder holds that :meth:`owns` takes for its own, in words."""
    prefix: ClassVar[str] = ""
    """What may stand before a path to say it."""
    parts: ClassVar[str] = ""
    """What the tables of its files are called, where there are several: ``path#NAME`` names one of them."""
    has_splits: ClassVar[bool] = False
    """True when it has parts that the option `split` names."""
    mapped: ClassVar[bool] = False
    """True when :meth:`read` maps its table from files, so that it need not be collected in one of ours."""
    binary: ClassVar[bytes] = b""
    """How its files begin, where they hold no text; empty: they hold text."""
    delimited: ClassVar[bool] = False
    """True when its values are written as text, and their columns may be named by the recipe instead of a header line:
    what looks like a number everywhere in a column is one then."""

    @classmethod
    def begins(cls, start: bytes) -> bool:
        """Tell whether a file that begins with ``start``, and holds no text, is one of its own."""
        return bool(cls.binary) and start.startswith(cls.binary)

    @classmethod
    def owns(cls, folder: Path) -> bool:
        """Tell whether a folder is in this format, by what it holds. No two formats may own the same folder."""
        return False

    @classmethod
    def files(cls, folder: Path) -> list[Path]:
        """List what is read, one after the other, of a folder that it owns."""
        return [folder]

    @classmethod
    def blocks(cls, path: Path, source: Written, at: str) -> Iterator[pa.Table]:
        """Yield the rows of what lies at ``path``, which is there, in order and about :data:`BLOCK` bytes of it at a
        time, whose columns may differ. Raises :class:`InputError` under the recipe path ``at`` for what cannot be read;
        an OSError is told by the caller."""
        yield cls.read(path, source, at)

    @staticmethod
    def read(path: Path, source: Written, at: str) -> pa.Table:
        """The rows as one table, of a format that is read at once; it raises what :meth:`blocks` does."""
        raise NotImplementedError


FORMATS: Registry[type[Format]] = Registry("format", "finetune.data.formats")


class Place(NamedTuple):
    """A recipe's `path` taken apart."""

    prefix: str
    """What says the format."""
    file: str
    """The file, folder or pattern."""
    part: str | None
    """The table in the file, behind a ``#``."""

    def __str__(self) -> str:
        return self.prefix + self.file + ("" if self.part is None else f"#{self.part}")


def place_of(text: str, name: str | None = None) -> Place:
    """Take a path apart; ``name`` is the format that the recipe gives. A ``#`` is part of a file's name, but where a
    format whose files have several tables is given, or its ending stands before it."""
    known = [each for each in FORMATS.all().values() if each.parts and name in (None, each.name)]
    for each in known:
        if each.prefix and text.startswith(each.prefix):
            return Place(each.prefix, *_at_mark(text.removeprefix(each.prefix), each, certain=True))
    if name is None and named_by(text):
        return Place("", text, None)
    for each in known:
        file, part = _at_mark(text, each, certain=name is not None)
        if part is not None:
            return Place("", file, part)
    return Place("", text, None)


def _at_mark(text: str, each: type[Format], certain: bool) -> tuple[str, str | None]:
    """Cut at the first ``#`` behind an ending of the format; where it is ``certain``, else at that of the last name."""
    endings = "|".join(map(re.escape, each.suffixes))
    found = re.fullmatch(rf"(.*?(?i:{endings}))#({'.*' if certain else '[^/]*'})", text, re.DOTALL)
    if found is None and certain:
        found = re.fullmatch(r"((?:.*/)?[^/#]+)#([^/]*)", text, re.DOTALL)
    return (found[1], found[2]) if found else (text, None)


def named_by(name: str) -> type[Format] | None:
    """The format of files called so, whether they are compressed or not; None where the name says nothing."""
    path = PurePosixPath(name)
    packed = path.suffix.lower() in COMPRESSED
    suffix = (PurePosixPath(path.stem) if packed else path).suffix.lower()
    return next(
        (each for each in FORMATS.all().values() if suffix in each.suffixes and not (packed and each.binary)), None
    )


def not_text(start: bytes) -> str:
    """Say what a file is that begins with ``start`` and holds no text, with advice; empty where it may be text."""
    for name, each in FORMATS.all().items():
        if each.begins(start):
            return f"it is a file of the format {name}: set `format: {name}`"
    return next((f"it is {what}: {advice}" for begins, what, advice in BINARY if start.startswith(begins)), "")


def unknown_encoding(source: Written, at: str) -> InputError:
    """The error for an encoding that Python does not know."""
    return bad_input(f"{at}.encoding", f"there is no text encoding '{source.encoding}'", "for example utf-8 or latin-1")


def read_text(path: Path, source: Written, at: str) -> str:
    """The text of ``path``, which must not be empty."""
    return "".join(text_blocks(path, source, at, size=None))


def text_blocks(path: Path, source: Written, at: str, size: int | None = BLOCK) -> Iterator[str]:
    """Yield the text of ``path``, which must not be empty, in whole lines of about ``size`` bytes together."""
    blank, empty, line = "", True, 1
    with open_file(path) as file:
        whole = _whole_lines(file, size if _keeps_line_ends(source, at) else None, path, at)
        for number, content in enumerate(whole):
            try:
                text = decode(content, source, number == 0)
            except NotText as error:
                line += content.count(b"\n", 0, error.position)
                advice = not_text(content) or advise([content], source)
                raise InputError(Problem(error.found, advice, f"{at}.path", f"{path}:{line}")) from error
            line += content.count(b"\n")
            empty = empty and not text.strip()
            if empty:
                blank += text
            else:
                yield blank + text
                blank = ""
    if empty:
        raise bad_input(f"{at}.path", f"'{path}' is empty", "name a file with examples, or write it again")


def _keeps_line_ends(source: Written, at: str) -> bool:
    """Tell whether a line end is the same byte in the source's encoding as in ASCII, and is part of nothing else."""
    if not is_encoding(source.encoding):
        raise unknown_encoding(source, at)
    return "\n".encode(source.encoding) == b"\n"


def _whole_lines(file: Any, size: int | None, path: Path, at: str) -> Iterator[bytes]:
    """Yield what is left of ``file`` in whole lines of about ``size`` bytes together; None: at once."""
    if size is None:
        yield bytes(file.read())
        return
    rest = b""
    while block := bytes(file.read(size)):
        lines, end, left = block.rpartition(b"\n")
        if not end or len(block) < size:  # in the middle of a line, or at the end of the file
            rest += block
            if len(rest) > LONGEST + size:
                found = f"'{path}' has a line of more than {LONGEST:,} bytes"
                raise bad_input(f"{at}.path", found, "name a file of lines; of JSON in one line, `format: json`")
        else:
            yield rest + lines + end
            rest = left
    yield rest
