"""Excel workbooks: cells as a csv file would have them, sheets by name, and what is refused with its row."""

import builtins
import datetime
import zipfile

import pytest

from finetune.data.formats import xlsx
from finetune.data.options import Source
from finetune.data.sources import read

AT = "data.train.path"


@pytest.fixture
def openpyxl():
    import openpyxl

    return openpyxl


@pytest.fixture
def book(openpyxl, tmp_path):
    """Writes a workbook of some sheets, each a list of rows, and gives its path."""

    def write(name="book.xlsx", **sheets):
        made = openpyxl.Workbook()
        made.remove(made.active)
        for title, rows in sheets.items():
            sheet = made.create_sheet(title)
            for row in rows:
                sheet.append(row)
        made.save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def patched(tmp_path):
    """Replaces texts in the first sheet of a workbook, as other programs would have written it."""

    def patch(path, *replaced):
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        place = "xl/worksheets/sheet1.xml"
        content[place] = content[place].replace(b"<v />", b"<v></v>")  # as lxml, which may be there, writes it
        for old, new in replaced:
            assert old in content[place].decode(), content[place]
            content[place] = content[place].decode().replace(old, new).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, each in content.items():
                archive.writestr(name, each)
        return path

    return patch


def load(path, **options):
    return read(Source(path=str(path), **options), "data.train", 0)


def test_cells_are_what_a_csv_file_would_have(book):
    day, time = datetime.date(2020, 1, 31), datetime.datetime(2020, 1, 31, 9, 30)
    path = book(
        Rows=[
            ["text", "whole", "decimal", "code", "when", "flag", "mixed"],
            ["a\nb, “c”", 1, 0.5, "0012", day, True, 1.5],
            ["not a formula", -20, 3, "7", time, False, "x"],
            ["d", None, 1e-5, "8", None, None, 2],
        ]
    )
    data = load(path)
    assert list(data["text"]) == ["a\nb, “c”", "not a formula", "d"]
    assert list(data["whole"]) == [1, -20, None] and data.features["whole"].dtype == "int64"
    assert list(data["decimal"]) == [0.5, 3.0, 1e-5]
    assert list(data["code"]) == ["0012", "7", "8"]
    assert list(data["when"]) == ["2020-01-31", "2020-01-31 09:30:00", ""]
    assert list(data["flag"]) == ["TRUE", "FALSE", ""]
    assert list(data["mixed"]) == ["1.5", "x", "2"]
    assert list(load(path, columns={"said": "{decimal} {whole}"})["said"]) == ["0.5 1", "3 -20", None]


def test_empty_rows_unnamed_columns_and_short_rows(book):
    rows = [[], [None, "text ", None, "label"], [], [0, "a", None, "x"], [None] * 6, [1, "b"], []]
    data = load(book(Rows=rows))
    assert data.column_names == ["column_1", "text", "column_3", "label", "example"]
    assert list(data["column_1"]) == [0, 1] and list(data["label"]) == ["x", ""] and list(data["text"]) == ["a", "b"]


def test_without_a_header_row(book):
    data = load(book(Rows=[["a", 1], ["b", 2]]), names=["text", "label"])
    assert list(data["text"]) == ["a", "b"] and list(data["label"]) == [1, 2]


def test_a_sheet_is_named_behind_a_hash(book, refused):
    path = book(**{"First": [["text"], ["a"]], "Sheet 2": [["text"], ["b"]], "#3": [["text"], ["c"]]})
    assert load(path)["text"] == ["a"] == load(f"{path}#First")["text"]
    assert load(f"{path}#Sheet 2")["text"] == ["b"] and load(f"{path}##3")["text"] == ["c"]
    with refused(AT, "no sheet 'Sheet2'", "did you mean 'Sheet 2'?", "First"):
        load(f"{path}#Sheet2")


def test_many_rows_come_in_parts(book, monkeypatch):
    monkeypatch.setattr(xlsx, "ROWS", 7)
    data = load(book(Rows=[["text", "label"], *([f"text {number}", number] for number in range(50))]))
    assert list(data["label"]) == list(range(50)) and data["text"][49] == "text 49"


def test_a_row_that_is_too_long_is_named(book, refused):
    with refused(AT, "3 values, where 2 are expected", "keep notes") as seen:
        load(book(Rows=[[], ["text", "label"], ["a", 1], [], ["b", 2, "total"]]))
    assert seen.problem.where.endswith("book.xlsx#Rows:5")


def test_empty_sheets_and_repeated_names(book, refused):
    with refused(AT, "is empty"):
        load(book(Rows=[]))
    with refused(AT, "has no examples"):
        load(book(Rows=[["text"]]))
    with refused(AT, "several columns called 'text'"):
        load(book(Rows=[["text", " text"], ["a", "b"]]))


def test_formulas_give_what_they_came_to(book, patched, refused):
    path = book(Rows=[["text", "n"], ["a", "=1+1"], ["b", '=""'], [None, 3]])
    with refused(AT, "the formula in B2 has no value", "spreadsheet program") as seen:
        load(path)
    assert seen.problem.where.endswith("book.xlsx#Rows:2")
    sums, empty = "<f>1+1</f><v></v>", '<c r="B3"><f>""</f><v></v>'
    patched(path, (sums, "<f>1+1</f><v>2</v>"), (empty, '<c r="B3" t="str"><f>""</f><v></v>'))
    data = load(path)
    assert list(data["n"]) == [2, None, 3] and list(data["text"]) == ["a", "b", ""]


def test_wrong_dimensions_are_not_believed(book, patched):
    path = patched(book(Rows=[["text", "n"], ["a", 1], ["b", 2]]), ('ref="A1:B3"', 'ref="A1"'))
    assert list(load(path)["n"]) == [1, 2]


def test_what_is_no_workbook(book, tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "archive.xlsx", "w") as archive:
        archive.writestr("rows.csv", "text\na\n")
    (tmp_path / "text.xlsx").write_text("text\na\n")
    (tmp_path / "cut.xlsx").write_bytes(book(Rows=[["text"], ["a"]]).read_bytes()[:-100])
    for name in ("archive", "text", "cut"):
        with refused(AT, f"{name}.xlsx' is not a readable Excel workbook", "or export it as csv"):
            load(tmp_path / f"{name}.xlsx")


def test_one_of_another_name(book, refused, tmp_path):
    path = book(Rows=[["text"], ["a"]])
    for name in ("a.csv", "a.thing"):
        (tmp_path / name).write_bytes(path.read_bytes())
        with refused(AT, "set `format: xlsx`"):
            load(tmp_path / name)
    assert load(f"{tmp_path / 'a.thing'}#Rows", format="xlsx")["text"] == ["a"]


def test_without_openpyxl_the_extra_is_named(tmp_path, monkeypatch, refused):
    def missing(name, *args, **options):
        if name.partition(".")[0] == "openpyxl":
            raise ModuleNotFoundError(name)
        return imported(name, *args, **options)

    imported = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", missing)
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    with refused(AT, "openpyxl", "is not installed", "pip install 'finetune[xlsx]'"):
        load(tmp_path / "a.xlsx")
