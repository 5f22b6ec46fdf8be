"""SQLite databases: tables by name, in the order of their rows; what is refused; nothing is written."""

import sqlite3
from contextlib import closing

import pytest

from finetune.data.formats import sqlite
from finetune.data.formats.base import Place, place_of
from finetune.data.options import Source
from finetune.data.sources import read

AT = "data.train.path"
NEWS = "CREATE TABLE news (text TEXT, label INTEGER, score REAL, raw BLOB)"


@pytest.fixture
def database(tmp_path):
    """Runs statements on a new database, and gives its path."""

    def make(*statements, name="rows.db", values=()):
        path = tmp_path / name
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            for insert, rows in values:
                connection.executemany(insert, rows)
            connection.commit()
        return path

    return make


def load(path, **options):
    return read(Source(path=str(path), **options), "data.train", 0)


def test_values_are_what_the_table_holds(database):
    rows = [("café", 1, 0.5, b"\0\xff"), (None, None, 2, None), ("0012", -(2**40), None, b"")]
    path = database(NEWS, values=[("INSERT INTO news VALUES (?, ?, ?, ?)", rows)])
    data = load(path)
    assert list(data["text"]) == ["café", None, "0012"] and list(data["label"]) == [1, None, -(2**40)]
    assert list(data["score"]) == [0.5, 2.0, None] and list(data["raw"]) == [b"\0\xff", None, b""]
    assert data.column_names == ["text", "label", "score", "raw", "example"]


def test_a_table_is_named_behind_a_hash(database, refused):
    path = database(
        "CREATE TABLE news (text)",
        "CREATE TABLE tweets (text)",
        'CREATE TABLE "odd ""#/name" (text)',
        "INSERT INTO news VALUES ('n')",
        "INSERT INTO tweets VALUES ('t')",
        'INSERT INTO "odd ""#/name" VALUES (\'o\')',
    )
    assert load(f"{path}#tweets")["text"] == ["t"] == load(f"sqlite:{path}#tweets")["text"]
    assert load(f'sqlite:{path}#odd "#/name')["text"] == ["o"]
    with refused(AT, "has 3 tables", "behind a `#`: news, odd", "tweets"):
        load(path)
    with refused(AT, "no table 'tweet'", "did you mean 'tweets'?", "news"):
        load(f"{path}#tweet")
    with refused(AT, "no table 'news; DROP TABLE news'"):
        load(f"{path}#news; DROP TABLE news")
    with refused(AT, "there is no", "gone.db"):
        load(path.with_name("gone.db#news"))


def test_any_name_by_the_prefix_or_the_format(database, refused):
    path = database("CREATE TABLE news (text)", "INSERT INTO news VALUES ('a')", name="rows")
    for text, options in ((f"sqlite:{path}#news", {}), (f"{path}#news", {"format": "sqlite"}), (f"sqlite:{path}", {})):
        assert load(text, **options)["text"] == ["a"]
    with refused(AT, "set `format: sqlite`"):
        load(path)
    with refused(AT, "set `format: sqlite`"):
        load(path.rename(path.with_name("rows.csv")))


def test_rows_come_in_the_order_of_their_ids(database, monkeypatch):
    monkeypatch.setattr(sqlite, "ROWS", 7)
    rows = [(f"text {number * 7919 % 100:02}", number) for number in range(100)]
    path = database(
        "CREATE TABLE news (text TEXT, label INTEGER)",
        "CREATE INDEX every ON news (text, label)",  # from which SQLite would rather read
        values=[("INSERT INTO news VALUES (?, ?)", rows)],
    )
    assert list(load(path)["label"]) == list(range(100))


def test_columns_that_are_null_in_some_blocks_and_whole_in_others(database, monkeypatch):
    monkeypatch.setattr(sqlite, "ROWS", 2)
    rows = [(None, 1), (None, 2), ("a", 3), (None, 0.5)]
    path = database("CREATE TABLE news (text, n)", values=[("INSERT INTO news VALUES (?, ?)", rows)])
    assert list(load(path)["text"]) == [None, None, "a", None] and list(load(path)["n"]) == [1, 2, 3, 0.5]


@pytest.mark.parametrize(
    "values, what",
    [
        (["x", 7], "holds text (row 1) and a number (row 2)"),
        ([None, b"x", "y"], "holds bytes (row 2) and text (row 3)"),
        ([1, 0.5, "x"], "holds a number (row 1) and text (row 3)"),
    ],
)
def test_columns_of_several_kinds(database, refused, values, what):
    path = database("CREATE TABLE news (label)", values=[("INSERT INTO news VALUES (?)", [(each,) for each in values])])
    with refused(AT, "column 'label' of '", "rows.db#news'", what):
        load(path)


def test_text_that_is_not_utf_8(database, refused):
    insert = "INSERT INTO news VALUES (CAST(x'61ff' AS TEXT))"
    path = database("CREATE TABLE news (text)", "INSERT INTO news VALUES ('a')", insert)
    with refused(AT, "text that is not UTF-8", "encoding_errors: replace") as seen:
        load(path)
    assert seen.problem.where.endswith("rows.db#news:2")
    assert list(load(path, encoding_errors="replace")["text"]) == ["a", "a\ufffd"]


def test_without_rows_without_tables_and_without_a_database(database, refused, tmp_path):
    with refused(AT, "has no examples"):
        load(database(NEWS))
    with refused(AT, "has no tables"):
        load(database(name="none.db"))
    (tmp_path / "text.db").write_text("text,label\na,b\n" * 100)
    with refused(AT, "not a readable SQLite database: file is not a database"):
        load(tmp_path / "text.db")
    content = database(
        NEWS, *["INSERT INTO news VALUES (hex(randomblob(500)), 1, 1, 1)"] * 50, name="cut.db"
    ).read_bytes()
    (tmp_path / "cut.db").write_bytes(content[: len(content) // 2])
    with refused(AT, "not a readable SQLite database"):
        load(tmp_path / "cut.db")


def test_nothing_is_written_beside_it(database, tmp_path):
    path = database("PRAGMA journal_mode = WAL", "CREATE TABLE news (text)", "INSERT INTO news VALUES ('a')")
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    assert list(before) == [path]
    assert load(path)["text"] == ["a"]
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_one_that_is_being_written_is_refused(database, refused):
    path = database("PRAGMA journal_mode = WAL", "CREATE TABLE news (text)")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO news VALUES ('a')")
        writer.commit()
        with refused(AT, "is being written", "rows.db-wal", "wal_checkpoint"):
            load(path)
    assert load(path)["text"] == ["a"]


def test_names_and_splits_are_for_others():
    for options in ({"names": ["a"]}, {"split": "train"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Source(path="rows.db#news", **options)


@pytest.mark.parametrize(
    "text, name, place",
    [
        ("a.db#t", None, ("", "a.db", "t")),
        ("A.DB#t#u", None, ("", "A.DB", "t#u")),
        ("x#y/a.sqlite3#t", None, ("", "x#y/a.sqlite3", "t")),
        ("a.db#", None, ("", "a.db", "")),
        ("a.db", None, ("", "a.db", None)),
        ("a#1.db", None, ("", "a#1.db", None)),
        ("a.db#1.csv", None, ("", "a.db#1.csv", None)),
        ("a.db#1/rows", None, ("", "a.db#1/rows", None)),
        ("a#1.csv", None, ("", "a#1.csv", None)),
        ("a#1", None, ("", "a#1", None)),
        ("a.db#t", "csv", ("", "a.db#t", None)),
        ("book.xlsx#My sheet", None, ("", "book.xlsx", "My sheet")),
        ("book.xlsx#1.csv", "xlsx", ("", "book.xlsx", "1.csv")),
        ("x#y/a#t", "sqlite", ("", "x#y/a", "t")),
        ("x#y/a", "sqlite", ("", "x#y/a", None)),
        ("sqlite:a.db#1.csv", None, ("sqlite:", "a.db", "1.csv")),
        ("sqlite:a#t", None, ("sqlite:", "a", "t")),
        ("sqlite:a", None, ("sqlite:", "a", None)),
        ("sqlite:package:boxed/a.db#x/y", None, ("sqlite:", "package:boxed/a.db", "x/y")),
        ("sqlite:a", "csv", ("", "sqlite:a", None)),
    ],
)
def test_a_path_is_taken_apart(text, name, place):
    assert place_of(text, name) == Place(*place)
    assert str(place_of(text, name)) == text


def test_a_database_in_a_package(database, tmp_path, monkeypatch):
    (tmp_path / "boxed").mkdir()
    (tmp_path / "boxed" / "__init__.py").write_text("")
    database("CREATE TABLE news (text)", "INSERT INTO news VALUES ('a')", name="boxed/rows.db")
    monkeypatch.syspath_prepend(str(tmp_path))
    for text in ("package:boxed/rows.db", "package:boxed/rows.db#news", "sqlite:package:boxed/rows.db#news"):
        assert load(text)["text"] == ["a"]


def test_tables_of_several_databases(database, tmp_path):
    for name in ("b.db", "a.db"):
        database("CREATE TABLE news (text)", f"INSERT INTO news VALUES ('{name}')", name=name)
    assert list(load(tmp_path / "*.db#news")["text"]) == ["a.db", "b.db"]
