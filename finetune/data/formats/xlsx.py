"""Reads Excel workbooks, by openpyxl."""

from __future__ import annotations

import datetime
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.errors import InputError, Problem, bad_input, did_you_mean, first_line
from finetune.data.encodings import Written
from finetune.data.formats.base import FORMATS, Format
from finetune.data.packed import refuse_growth

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1 << 13
"""Rows that are read at once."""
WHOLE = 10**15
"""Below it, all digits of a whole number are known."""


@FORMATS.register
class Xlsx(Format):
    """One sheet of an Excel workbook, the first unless another is named; its first row that is not empty has the names
    of the columns.

    Values are those that the same sheet has as a csv file: numbers where a column has nothing else, and text elsewhere,
    with dates as `2020-01-31`, dates with a time as `2020-01-31 09:30:00`, and `TRUE` and `FALSE`. A formula stands for
    what it came to when the workbook was saved. Empty rows are passed over.
    """

    name: ClassVar[str] = "xlsx"
    suffixes: ClassVar[tuple[str, ...]] = (".xlsx", ".xlsm")
    binary: ClassVar[bytes] = b"PK\x03\x04"
    delimited: ClassVar[bool] = True
    parts: ClassVar[str] = "sheet"

    @classmethod
    def begins(cls, start: bytes) -> bool:
        return super().begins(start) and b"xl/" in start  # a folder of the archive; other archives begin alike

    @classmethod
    def blocks(cls, path: Path, source: Written, at: str) -> Iterator[pa.Table]:
        names: list[str] = []
        waiting: list[list[str]] = []
        for where, values in _rows(path, source, at):
            if not names:
                names = source.names or _names(values)
                _refuse_repeated(names, path, at)
                yield _table(names, [])
                if source.names is None:
                    continue
            if len(values) > len(names):
                found = f"{len(values)} values, where {len(names)} are expected"
                advice = "give every column a name in the first row, and keep notes and totals elsewhere"
                raise InputError(Problem(found, advice, f"{at}.path", where))
            waiting.append(values + [""] * (len(names) - len(values)))
            if len(waiting) == ROWS:
                yield _table(names, waiting)
                waiting = []
        if waiting:
            yield _table(names, waiting)
        if not names:
            raise bad_input(f"{at}.path", f"'{path}' is empty", "name a workbook with examples, or another sheet of it")


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)})


def _names(values: Sequence[str]) -> list[str]:
    """The names in the first row; a column without one gets `column_N`, as in csv files."""
    return [name.strip() or f"column_{number}" for number, name in enumerate(values, start=1)]


def _refuse_repeated(names: Sequence[str], path: Path, at: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise bad_input(f"{at}.path", f"'{path}' has several columns called {', '.join(map(repr, repeated))}")


def _rows(path: Path, source: Written, at: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows that are not empty, as text without what is empty at their end, and where each stands."""
    try:
        with _opened(path, at, data_only=True) as book:
            sheet, gaps = _sheet(book, path, source, at), False
            for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
                gaps = gaps or None in values
                texts = list(map(_text, values))
                while texts and not texts[-1]:
                    texts.pop()
                if texts:
                    yield f"{path}#{sheet.title}:{number}", texts
        if gaps:
            _refuse_unknown_values(path, source, at)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, SyntaxError) as error:  # XML's is the last
        wrong = f"'{path}' is not a readable Excel workbook: {first_line(error)}"
        raise bad_input(
            f"{at}.path", wrong, "save it again as .xlsx, without a password, or export it as csv"
        ) from error


@contextmanager
def _opened(path: Path, at: str, data_only: bool) -> Iterator[Any]:
    """Open a workbook, with what formulas came to (``data_only``) or with the formulas."""
    try:
        import openpyxl
    except ImportError as error:
        wrong = f"'{path}' is an Excel workbook, and openpyxl, which reads them, is not installed"
        raise bad_input(f"{at}.path", wrong, "pip install 'finetune[xlsx]', or export the sheet as csv") from error
    with zipfile.ZipFile(path) as archive:
        refuse_growth(path.stat().st_size, sum(part.file_size for part in archive.infolist()))
    with open(path, "rb") as file, closing(openpyxl.load_workbook(file, read_only=True, data_only=data_only)) as book:
        yield book


def _sheet(book: Any, path: Path, source: Written, at: str) -> Any:
    """The sheet that the source names, or the first one."""
    known = {sheet.title: sheet for sheet in book.worksheets}
    if not known:
        raise bad_input(f"{at}.path", f"'{path}' has no sheets of cells", "name a workbook that has some")
    name = next(iter(known)) if source.part is None else source.part
    if name not in known:
        raise bad_input(f"{at}.path", f"'{path}' has no sheet '{name}'", did_you_mean(name, known))
    known[name].reset_dimensions()  # some programs write wrong ones
    return known[name]


def _refuse_unknown_values(path: Path, source: Written, at: str) -> None:
    """Refuse a formula of which the workbook does not say what it came to, which would look like an empty cell."""
    with _opened(path, at, data_only=True) as book, _opened(path, at, data_only=False) as written:
        sheets = (_sheet(each, path, source, at).iter_rows() for each in (book, written))
        for number, cells in enumerate(zip(*sheets, strict=True), start=1):
            for value, formula in zip(*cells, strict=True):
                # An empty text that a formula came to is stored as text.
                if formula.data_type == "f" and value.value is None and value.data_type == "n":
                    found = (
                        f"the formula in {formula.coordinate} has no value: what wrote the workbook does not calculate"
                    )
                    advice = "open and save it in a spreadsheet program, or write values"
                    where = f"{path}#{_sheet(book, path, source, at).title}:{number}"
                    raise InputError(Problem(found, advice, f"{at}.path", where))


def _text(value: Any) -> str:
    """A cell as a csv file has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < WHOLE:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return str(value.date())
    return str(value)
