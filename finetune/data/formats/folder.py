"""Reads a folder of text files, one sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from finetune.core.errors import InputError, Problem, bad_input
from finetune.data.encodings import NotText, Written, advise, decode, is_encoding
from finetune.data.formats.base import FORMATS, Format, not_text, unknown_encoding
from finetune.data.packed import read_bytes

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = (".txt", "")
"""File name endings that are read; older corpora have files without any."""


@FORMATS.register
class Folder(Format):
    """One row per text file, in the order of their paths.

    Columns, all text: ``label`` (the sub-folder directly under ``path``), ``title`` (the first line), ``body`` (the
    rest; both without surrounding space), ``text`` (the whole file) and ``file`` (its path under ``path``).
    """

    name: ClassVar[str] = "folder"
    folder: ClassVar[bool] = True
    holds: ClassVar[str] = "one sub-folder per class with .txt files in it"

    @classmethod
    def owns(cls, folder: Path) -> bool:
        return any(_walk(folder))

    @staticmethod
    def read(path: Path, source: Written, at: str) -> pa.Table:
        import pyarrow as pa

        files = sorted(_walk(path))
        if not files:
            advice = "expected one sub-folder per class with .txt files in it; for a table, name the file itself"
            raise bad_input(f"{at}.path", f"the folder '{path}' has no text files in sub-folders", advice)
        if not is_encoding(source.encoding):
            raise unknown_encoding(source, at)
        rows: dict[str, list[str]] = {name: [] for name in ("label", "title", "body", "text", "file")}
        broken: list[tuple[str, str]] = []
        for file in files:
            content = read_bytes(path / file)
            try:
                text = decode(content, source).replace("\r\n", "\n")
            except NotText as error:
                broken.append((file, error.found))
                continue
            title, _, body = text.strip().partition("\n")
            values = (file.partition("/")[0], title.strip(), body.strip(), text, file)
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
        if broken:
            file, what = broken[0]
            found = f"{what}; {len(broken)} of {len(files)} files are not text in {source.encoding}"
            first = dict.fromkeys([*(file for file, _ in broken), *files])  # what is wrong before what is not
            contents = [read_bytes(path / file) for file in first]
            advice = not_text(contents[0]) or advise(contents, source)
            raise InputError(Problem(found, advice, f"{at}.path", str(path / file)))
        return pa.table(rows)


def _walk(path: Path) -> Iterator[str]:
    """Yield the paths under ``path``, with ``/``, of the text files in sub-folders; hidden ones are passed over."""
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        if folder != str(path):
            inner = Path(folder).relative_to(path).as_posix()
            yield from (f"{inner}/{name}" for name in names if _is_text(name))


def _is_text(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in TEXT
