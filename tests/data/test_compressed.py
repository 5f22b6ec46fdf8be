"""Compressed files of text are read as what they hold, and one that cannot be unpacked is told in a line."""

import bz2
import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from finetune.data.formats import base
from finetune.data.formats.base import named_by
from finetune.data.options import Source
from finetune.data.sources import as_table, read

AT = "data.train.path"

ROWS = [(f"text number {number}, “café”", number % 3, number / 8) for number in range(400)]
OBJECTS = [{"text": text, "label": label, "score": score} for text, label, score in ROWS]
TABLE = [("text", "label", "score"), *ROWS]
FILES = {
    "csv": "".join(f'"{text}",{label},{score}\n' for text, label, score in TABLE),
    "tsv": "".join(f"{text}\t{label}\t{score}\n" for text, label, score in TABLE),
    "jsonl": "".join(json.dumps(row) + "\n" for row in OBJECTS),
    "json": json.dumps(OBJECTS),
}
PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.fixture
def small_blocks(monkeypatch):
    """Files are read in so many parts that their ends fall anywhere."""
    monkeypatch.setattr(base, "BLOCK", 1000)
    monkeypatch.setattr(base.text_blocks, "__defaults__", (1000,))


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", FILES)
def test_it_is_read_as_what_it_holds(load, small_blocks, name, packer):
    plain = load(f"a.{name}", FILES[name])
    assert list(plain["text"]) == [text for text, *_ in ROWS] and list(plain["score"]) == [row[2] for row in ROWS]
    packed = load(f"b.{name}.{packer}", PACKERS[packer](FILES[name].encode()))
    assert as_table(packed).equals(as_table(plain)) and packed.features == plain.features


def test_parts_that_were_packed_one_by_one(load):
    content = FILES["csv"].encode()
    assert load("a.csv.gz", gzip.compress(content[:5000]) + gzip.compress(content[5000:])).num_rows == len(ROWS)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("left", [0.5, 0.98])
def test_one_that_is_cut_short(load, refused, name, packer, left):
    packed = PACKERS[packer](FILES[name].encode())
    with refused(AT, f"a.{name}.{packer}' is cut short or broken", "copy it again"):
        load(f"a.{name}.{packer}", packed[: round(left * len(packed))])


@pytest.mark.parametrize("name", ["a.csv.gz", "a.CSV.ZST", "a.jsonl.bz2"])
def test_one_that_is_not_compressed(load, refused, name):
    last = name[name.rindex(".") :]
    with refused(AT, "is not compressed with", "as its ending says", f"take `{last}` off its name"):
        load(name, FILES["csv"])


def test_an_empty_one(load, refused):
    for content in (b"", gzip.compress(b"")):
        with refused(AT, "is empty"):
            load("a.csv.gz", content)


def test_lines_are_counted_as_in_what_it_holds(load, refused):
    with refused(AT, "3 values, where 2 are expected") as seen:
        load("a.csv.gz", gzip.compress(b"text,label\na,b\na,b,c\n"))
    assert seen.problem.where.endswith("a.csv.gz:3")


@pytest.mark.parametrize("packer", PACKERS)
def test_one_whose_name_does_not_say_so_is_advised_to(load, refused, packer, tmp_path):
    packed = PACKERS[packer](FILES["csv"].encode())
    for name, options in (("a.csv", {}), ("a.thing", {}), ("b.thing", {"format": "csv"})):
        with refused(AT, "compressed with", f"as in `rows.csv.{packer}`") as seen:
            load(name, packed, **options)
        assert "unpack" not in seen.problem.advice
    assert load(f"a.csv.{packer}", packed).num_rows == len(ROWS)


def test_what_we_do_not_unpack_is_to_be_unpacked(load, refused):
    with refused(AT, "compressed with xz", "unpack it"):
        load("a.csv", b"\xfd7zXZ\x00" + bytes(range(256)))


def test_the_format_may_be_given(load, refused):
    packed = gzip.compress(FILES["csv"].encode())
    assert load("rows.gz", packed, format="csv").num_rows == len(ROWS)
    assert load("rows.txt.gz", packed, format="csv").num_rows == len(ROWS)
    without = gzip.compress(b"a,1\nb,2\n")
    assert list(load("c.csv.gz", without, names=["text", "label"])["label"]) == [1, 2]
    with refused(AT, "cannot be told from its name", "set `data.train.format` to"):
        load("rows.gz", packed)
    with refused(AT, "cannot be told from its name", "cut short"):
        load("rows.gz", packed[:20])


def test_only_text_is_read_compressed(load, refused, tmp_path):
    pa.parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "source.parquet")
    packed = gzip.compress((tmp_path / "source.parquet").read_bytes())
    with refused(AT, "cannot be told", "unpack it: only text is read compressed"):
        load("a.parquet.gz", packed)


def test_names():
    assert named_by("a.csv.gz") is named_by("a.csv") is named_by("x/A.CSV.GZ") is named_by("*.csv.bz2")
    assert named_by("a.jsonl.zst") is named_by("a.ndjson")
    assert not any(map(named_by, ("a.gz", "gz", ".gz", "a.csv.gz.gz", "a.csv.xz", "a.parquet.gz", "a.xlsx.gz")))


def test_in_a_package(tmp_path, monkeypatch):
    (tmp_path / "boxed").mkdir()
    (tmp_path / "boxed" / "__init__.py").write_text("")
    (tmp_path / "boxed" / "rows-1.csv.gz").write_bytes(gzip.compress(FILES["csv"].encode()))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("rows-1.csv.gz", "rows-*.csv.gz", "rows*"):
        data = read(Source(path=f"package:boxed/{name}"), "data.train", 0)
        assert list(data["label"]) == [row[1] for row in ROWS]
