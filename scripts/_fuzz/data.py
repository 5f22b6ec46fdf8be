"""Broken data files, in every format that is read."""

from __future__ import annotations

import bz2
import copy
import csv
import gzip
import io
import random
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts._fuzz.material import Material, Study, as_yaml
from scripts._fuzz.values import TEXTS, broken_bytes, broken_tree, encoded, json_text, nested, text, value

Made = tuple[dict[str, bytes], list[str]]
Rows = list[dict[str, Any]]
RECIPE = "recipe.yaml"


def _csv(rows: Rows, rng: random.Random) -> bytes:
    return _delimited(rows, rng, ",")


def _tsv(rows: Rows, rng: random.Random) -> bytes:
    return _delimited(rows, rng, "\t")


def _delimited(rows: Rows, rng: random.Random, separator: str) -> bytes:
    """A table, sometimes ragged, or with names of columns that are odd."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table: list[list[Any]] = [names]
    for row in rows:
        cells = (row.get(name, "") for name in names)
        table.append([json_text(each, rng) if isinstance(each, list | dict) else each for each in cells])
    how = rng.randrange(14)
    if how == 0:
        rng.choice(table).append(value(rng))
    elif how == 1:
        rng.choice(table).clear()
    elif how == 2:
        table[0] = [text(rng) for _ in names]
    elif how == 3:
        table[0] = [*names, *names]
    elif how == 4:
        table = [[*row, *map(str, range(rng.choice((3, 3000))))] for row in table]
    kind = csv.QUOTE_MINIMAL if rng.random() < 0.7 else csv.QUOTE_ALL
    return _text(_table_text(table, separator, kind), rng)


def _table_text(table: list[list[Any]], separator: str, kind: Any) -> str:
    if separator == "\t":
        return "".join("\t".join(map(str, row)) + "\n" for row in table)
    file = io.StringIO()
    csv.writer(file, delimiter=separator, quoting=kind).writerows(table)
    return file.getvalue()


def _jsonl(rows: Rows, rng: random.Random) -> bytes:
    lines = [json_text(row, rng) for row in rows]
    _odd_json(lines, rng)
    return _text("\n".join(lines), rng)


def _json(rows: Rows, rng: random.Random) -> bytes:
    tree: Any = rows if rng.random() < 0.6 else {"data": rows}
    if rng.random() < 0.3:
        tree = broken_tree(tree, rng)
    lines = json_text(tree, rng).split("}, ")
    _odd_json(lines, rng)
    return _text("}, ".join(lines), rng)


def _odd_json(lines: list[str], rng: random.Random) -> None:
    """Put in what JSON has no place for, or what asks much of a reader."""
    if rng.random() < 0.25:
        odd = (
            "[" * 100_000,
            '{"a": ' * 100_000,
            '{"a": 1, "a": 2}',
            '{"a": ' + "9" * 5000 + "}",
            '{"a": 1e999, "b": NaN}',
            '{"text": "\\ud83d"}',
            '{"text": "\\u0000\\u001b[31m"}',
            '{"": {"": {"": []}}}',
            "[]",
            "null",
            '"text"',
            "",
            ",",
        )
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(odd))


def _squad(rows: Rows, rng: random.Random) -> bytes:
    asked = [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": f"match {number} was won by the team of the north",
                    "qas": [
                        {
                            "id": str(number),
                            "question": f"who won {number}?",
                            "answers": [{"text": "the team", "answer_start": len(f"match {number} was won by ")}],
                        }
                    ],
                }
            ],
        }
        for number in range(len(rows))
    ]
    tree: Any = {"version": "1.1", "data": asked}
    for _ in range(rng.choice((0, 1, 2, 4))):
        tree = broken_tree(tree, rng)
    return _text(json_text(tree, rng), rng)


def _conll(rows: Rows, rng: random.Random) -> bytes:
    sentences = []
    for row in rows:
        words = str(row.get("text") or row.get("words") or "a match in the north").split() or ["word"]
        sentences.append("\n".join(f"{word} {rng.choice(('O', 'B-LOC', 'I-LOC'))}" for word in words))
    if rng.random() < 0.5:
        odd = (*TEXTS, "a b c", "-DOCSTART- O", "# x", "O\tO")
        sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(odd))
    return _text("\n\n".join(sentences) + "\n", rng)


def _table(rows: Rows, rng: random.Random) -> Any:
    """An Arrow table, some of whose columns have a type that text files do not have."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError, ValueError, TypeError, UnicodeError):
            columns[name] = pa.array([str(row.get(name)).encode("utf-8", "replace") for row in rows])
    if rng.random() < 0.6:
        columns[rng.choice([*names, "extra", text(rng)])] = rng.choice(_odd_columns(len(rows)))
    return pa.table({name.encode("utf-8", "replace").decode(): column for name, column in columns.items()})


def _odd_columns(count: int) -> list[Any]:
    import datetime
    import decimal

    import pyarrow as pa

    return [
        pa.array([None] * count),
        pa.array([decimal.Decimal("1.5")] * count),
        pa.array([datetime.date(2024, 1, 1)] * count),
        pa.array([2**62] * count, pa.timestamp("s")),
        pa.array([2**62] * count, pa.duration("ns")),
        pa.array([1.5] * count, pa.float16()),
        pa.array([b"\xff\0"] * count),
        pa.array([{"a": [{"b": None}]}] * count),
        pa.array([[("k", 1)]] * count, pa.map_(pa.string(), pa.int64())),
        pa.array(["x"] * count).dictionary_encode(),
        pa.array([[[[[1]]]]] * count),
        pa.array([[]] * count, pa.list_(pa.null())),
        pa.array([[1, 2]] * count, pa.list_(pa.int64(), 2)),
        pa.array(["view"] * count, pa.string_view()),
        pa.array(["large"] * count, pa.large_string()),
        pa.array([float("nan")] * count),
        pa.array([True, None] * count)[:count],
        pa.array(["\x1b]0;title\x07", "<script>", "|\n"] * count)[:count],
        pa.array([2**64 - 1] * count, pa.uint64()),
        pa.array([datetime.time(1)] * count),
    ]


def _parquet(rows: Rows, rng: random.Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pa.BufferOutputStream()
    pq.write_table(_storable(_table(rows, rng)), file, compression=rng.choice(("snappy", "zstd", "none", "gzip")))
    return file.getvalue().to_pybytes()


def _storable(table: Any) -> Any:
    """The table without columns that the format cannot hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in table.column_names:
        try:
            pq.write_table(table.select([name]), pa.BufferOutputStream())
        except pa.ArrowException:
            table = table.drop_columns(name)
    return table


def _xlsx(rows: Rows, rng: random.Random) -> bytes:
    import openpyxl
    from openpyxl.utils.exceptions import IllegalCharacterError

    book = openpyxl.Workbook()
    sheet = book.active
    names = list(dict.fromkeys(name for row in rows for name in row))
    for number, row in enumerate([dict(zip(names, names, strict=True)), *rows], start=1):
        for place, name in enumerate(names, start=1):
            try:
                found = row.get(name)
                plain = isinstance(found, str) or (isinstance(found, int) and abs(found) < 2**53)
                sheet.cell(number, place, found if plain else str(found))
            except (IllegalCharacterError, ValueError):
                sheet.cell(number, place, "odd")
    if rng.random() < 0.2:
        sheet.cell(rng.randint(1, 2000), rng.randint(1, 200), rng.choice(("=1/0", "#N/A", 1e300, True)))
    if rng.random() < 0.1:
        book.create_sheet(rng.choice(("x", "a" * 31)))
    file = io.BytesIO()
    book.save(file)
    return _odd_archive(file.getvalue(), rng) if rng.random() < 0.5 else file.getvalue()


ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "%s">' % (new, b"&%c;" % (new - 1) * 10) for new in range(ord("b"), ord("k"))
)


def _odd_archive(content: bytes, rng: random.Random) -> bytes:
    """A workbook one of whose parts is broken, missing, huge, named like a file elsewhere, or grows as it is read."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        chosen, how = rng.choice(old.namelist()), rng.randrange(6)
        for name in old.namelist():
            part = old.read(name)
            if name == chosen:
                if how == 0:
                    continue
                if how == 1:
                    part = broken_bytes(part, rng)
                elif how == 2:
                    part = part.replace(b"?>", b"?>" + ENTITIES + b"]>", 1).replace(b"</", b"&j;</", 1)
                elif how == 3:
                    part += b" " * (64 << 20)
                elif how == 4:
                    name = "../../escaped"
                else:
                    outside = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
                    part = part.replace(b"?>", b"?>" + outside, 1).replace(b"</", b"&a;</", 1)
            new.writestr(name, part)
    return file.getvalue()


def _sqlite(rows: Rows, rng: random.Random) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row if "\0" not in name)) or ["a"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.db"
        base = sqlite3.connect(path)
        quoted = ['"' + name.encode("utf-8", "replace").decode().replace('"', '""') + '"' for name in names]
        kinds = [rng.choice(("", "TEXT", "INTEGER", "BLOB", "REAL")) for _ in names]
        try:
            base.execute(f"CREATE TABLE data ({', '.join(f'{a} {b}' for a, b in zip(quoted, kinds, strict=True))})")
            marks = ", ".join("?" * len(names))
            base.executemany(
                f"INSERT INTO data VALUES ({marks})", ([_plain(row.get(name)) for name in names] for row in rows)
            )
            if rng.random() < 0.5:
                base.execute(rng.choice(SQL))
        except (sqlite3.Error, OverflowError, UnicodeError):
            base.rollback()
        base.commit()
        base.close()
        return path.read_bytes()


SQL = (
    "CREATE TABLE other (a)",
    "CREATE VIEW v AS SELECT * FROM v2",
    'CREATE TABLE "a""; DROP TABLE data; --" (x)',
    "UPDATE data SET rowid = rowid * 100000",
    "CREATE VIRTUAL TABLE f USING fts5(x)",
    "INSERT INTO data SELECT * FROM data",
    "DELETE FROM data",
    "PRAGMA encoding = 'UTF-16'",
    "ALTER TABLE data ADD COLUMN z GENERATED ALWAYS AS (1/0)",
    "ALTER TABLE data ADD COLUMN b DEFAULT (x'ff00')",
)


def _plain(found: Any) -> Any:
    return found if isinstance(found, str | int | float | bytes | None) else str(found)


def _text(written: str, rng: random.Random) -> bytes:
    """Text as bytes, mostly in UTF-8."""
    return encoded(written, rng) if rng.random() < 0.15 else written.encode("utf-8", "surrogatepass")


def _packed(write: Callable[[Rows, random.Random], bytes], pack: Callable[[bytes], bytes]) -> Any:
    def packed(rows: Rows, rng: random.Random) -> bytes:
        content = write(rows, rng)
        if rng.random() < 0.1:
            content += rng.choice((b" ", b"\n", b"\0")) * (96 << 20)  # it packs to little
        return pack(content)

    return packed


def _zstd(content: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(content, "zstd", asbytes=True)


WRITERS: dict[str, Callable[[Rows, random.Random], bytes]] = {
    "csv": _csv,
    "tsv": _tsv,
    "json": _json,
    "jsonl": _jsonl,
    "squad.json": _squad,
    "conll": _conll,
    "parquet": _parquet,
    "xlsx": _xlsx,
    "db": _sqlite,
    "csv.gz": _packed(_csv, gzip.compress),
    "jsonl.zst": _packed(_jsonl, _zstd),
    "tsv.bz2": _packed(_tsv, lambda content: bz2.compress(content, 1)),
}
"""By the ending of the file."""


def _rows(study: Study, rng: random.Random) -> Rows:
    """The rows of a study, in some of which something else stands."""
    rows = copy.deepcopy(study.rows)
    how = rng.randrange(9)
    if how == 0:
        return rows[: rng.randrange(3)]
    if how == 1:
        name = rng.choice(list(rows[0]))
        for row in rows:
            row[name] = value(rng)
    elif how in (2, 3):
        for _ in range(rng.choice((1, 1, 3))):
            rng.choice(rows)[rng.choice([*rows[0], text(rng)])] = rng.choice((value, lambda rng: nested(rng, 5)))(rng)
    elif how == 4:
        rows = [row for row in rows for _ in range(rng.choice((0, 1, 2)))] or rows
    return rows


def _file(ending: str) -> Callable[[random.Random, Material], Made]:
    """What makes a case of a file with this ending."""
    fitting = {"squad.json": "question-answering", "conll": "token-classification"}

    def made(rng: random.Random, material: Material) -> Made:
        wanted = fitting.get(ending)
        known = [each for name, each in material.studies.items() if wanted in (None, name)]
        study = rng.choice(known)
        content = WRITERS[ending](_rows(study, rng), rng)
        for _ in range(rng.choice((0, 0, 0, 1, 1, 3))):
            content = broken_bytes(content, rng)
        path = f"rows.{ending.removeprefix('squad.')}"
        return {RECIPE: _recipe(study, path, rng), path: content}, ["check", RECIPE]

    return made


def _saved(rng: random.Random, material: Material) -> Made:
    """A folder of `save_to_disk`, or of parquet files."""
    import datasets

    study = rng.choice(list(material.studies.values()))
    rows = _rows(study, rng)
    files: dict[str, bytes] = {}
    if rng.random() < 0.3:
        files = {f"data/{name}.parquet": _parquet(rows, rng) for name in "ab"}
    else:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found: Any = datasets.Dataset(_table(rows, rng))
                whole = rng.random() < 0.5
                (found if whole else datasets.DatasetDict({"train": found})).save_to_disk(folder)
            except Exception:  # what it cannot hold is no case
                datasets.Dataset.from_dict({"text": ["a"] * 9, "label": ["x", "y", "z"] * 3}).save_to_disk(folder)
            inside = [path for path in Path(folder).rglob("*") if path.is_file()]
            files = {f"data/{path.relative_to(folder)}": path.read_bytes() for path in inside}
    _break_one(files, rng)
    return {RECIPE: _recipe(study, "data", rng), **files}, ["check", RECIPE]


def _break_one(files: dict[str, bytes], rng: random.Random) -> None:
    chosen, how = rng.choice(sorted(files)), rng.randrange(4)
    if how == 0:
        del files[chosen]
    elif how == 1 and chosen.endswith(".json"):
        import json

        files[chosen] = json_text(broken_tree(json.loads(files[chosen]), rng), rng).encode()
    elif how < 3:
        files[chosen] = broken_bytes(files[chosen], rng)


def _texts(rng: random.Random, material: Material) -> Made:
    """A folder of text files, one folder for each class."""
    study = material.studies["classification"]
    files = {}
    for number, row in enumerate(_rows(study, rng)):
        label, words = row.get("label"), row.get("text")
        if isinstance(label, str) and label.isalpha() and len(label) < 99 and isinstance(words, str):
            files[f"data/{label}/{number}.txt"] = _text(words, rng)
    files = files or {"data/a/1.txt": b""}
    _break_one(files, rng)
    return {RECIPE: _recipe(study, "data", rng), **files}, ["check", RECIPE]


def _recipe(study: Study, path: str, rng: random.Random) -> bytes:
    """The recipe of a study for data at ``path``, with an option that has to do with reading."""
    source: dict[str, Any] = {"path": path}
    if rng.random() < 0.2:
        said: tuple[tuple[str, Any], ...] = (
            ("encoding", rng.choice(("latin-1", "utf-16", "cp500", "utf-7", "idna", "rot13", "unicode_escape", "x"))),
            ("encoding_errors", "replace"),
            ("limit", rng.choice((1, 7, 10**9))),
            ("names", rng.choice((["text", "label"], ["a"], [text(rng), "label"]))),
            ("format", rng.choice(("csv", "json", "jsonl", "parquet", "sqlite", "xlsx", "conll", "folder", "dataset"))),
            ("columns", {rng.choice(("text", "new", text(rng))): rng.choice(("text", "{text}", text(rng)))}),
            ("split", rng.choice(("train", "nothing"))),
            ("streaming", True),
        )
        source |= dict([rng.choice(said)])
    return as_yaml({**study.recipe, "data": {"train": source, **study.recipe["data"]}}).encode()


MAKERS: dict[str, Callable[[random.Random, Material], Made]] = {
    **{f".{ending}": _file(ending) for ending in WRITERS},
    "saved datasets, folders of parquet": _saved,
    "folders of texts": _texts,
}
