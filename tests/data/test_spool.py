"""Tables in parts, and in files: what is read some at a time is what is read at once."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import DiskFull
from finetune.data import spool
from finetune.data.formats import base, delimited
from finetune.data.nested import plain_values, values_of
from finetune.data.sources import as_table
from finetune.data.spool import Mixed, Spool, batches, spooled, taken, unified


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Everything is large: read a few bytes at a time, and kept in files."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spool, "IN_MEMORY", 64)
    monkeypatch.setattr(base.text_blocks, "__defaults__", (16,))
    monkeypatch.setattr(delimited, "BLOCK", 256)
    return tmp_path / "cache"


CSV = "text,label,price\n" + "".join(
    f'"line {n}, with ""quotes""\nand a second line",{"abc"[n % 3]},{n}.50\n' for n in range(40)
)
OBJECTS = [
    {"text": f"text {n}", "number": n if n % 2 else n + 0.5, "tags": ["a"] * (n % 3), "late": None if n < 30 else "x"}
    for n in range(40)
]
NESTED = [{"talk": [{"role": "user", "content": str(n), **({"name": "x"} if n == 33 else {})}]} for n in range(40)]
FILES = {
    "rows.csv": CSV,
    "rows.tsv": "text\tlabel\n" + "".join(f"a {n}\t00{n}\n" for n in range(40)),
    "rows.jsonl": "".join(json.dumps(row) + "\n" for row in OBJECTS),
    "talks.jsonl": "\n\n".join(json.dumps(row) for row in NESTED),
    "rows.json": json.dumps({"data": OBJECTS}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_read_in_parts_is_the_file_read_at_once(load, small, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "IN_MEMORY", 1 << 26)
        patch.setattr(base.text_blocks, "__defaults__", (1 << 24,))
        patch.setattr(delimited, "BLOCK", 1 << 26)
        whole = load(name, FILES[name], columns={"new": "{text}!"} if "talk" not in name else {})
    parts = load(name, FILES[name], columns={"new": "{text}!"} if "talk" not in name else {})
    assert as_table(parts).schema == as_table(whole).schema
    for column in whole.column_names:
        assert json.dumps(values_of(parts, column)) == json.dumps(values_of(whole, column))
    assert as_table(parts)["example"].to_pylist() == list(range(40))


def test_no_file_stays(load, small):
    data = load("rows.jsonl", FILES["rows.jsonl"])
    assert not list(small.glob("*")) and data["text"][39] == "text 39"


@pytest.mark.parametrize("limit", [1, 7, 39])
def test_a_sample_in_parts_is_the_sample(load, small, limit):
    drawn = load("rows.jsonl", FILES["rows.jsonl"], limit=limit, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "IN_MEMORY", 1 << 26)
        assert drawn["text"][:] == load("rows.jsonl", FILES["rows.jsonl"], limit=limit, seed=3)["text"][:]


def test_a_broken_line_far_down_is_named(load, small, refused):
    content = FILES["rows.jsonl"] + "{broken\n" + FILES["rows.jsonl"] + "[1]\n"
    with refused("data.train.path", "rows.jsonl:41:", "not valid JSON", "(1 more lines are broken too)"):
        load("rows.jsonl", content)


def test_bytes_that_are_no_text_far_down_are_named(load, small, refused):
    with refused("data.train.path", "rows.jsonl:41:", "byte 0xFF"):
        load("rows.jsonl", FILES["rows.jsonl"].encode() + b'{"text": "\xff"}\n')


def test_a_row_with_a_value_too_much_far_down_is_named(load, small, refused):
    with refused("data.train.path", "rows.csv:82:", "4 values, where 3 are expected"):
        load("rows.csv", f"{CSV}a,b,1,c\n")


def test_kinds_that_do_not_go_together_are_named_wherever_they_are(load, small, refused):
    content = "".join(json.dumps({"text": "a" if n < 30 else n}) + "\n" for n in range(40))
    with refused("data.train.path", "column 'text'", "text (row 1 and after) and numbers (row "):
        load("rows.jsonl", content)


VALUES = st.one_of(
    st.none(), st.integers(-(2**31), 2**31), st.floats(allow_nan=False, allow_infinity=False, width=32)
) | st.lists(st.integers(0, 9), max_size=2)
NUMBERS = st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31), st.floats(width=32)), min_size=1, max_size=12)
LISTS = st.lists(
    st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=2), st.fixed_dictionaries({"a": st.integers(0, 9)})),
    min_size=1,
    max_size=12,
)
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=12)


@given(st.one_of(NUMBERS, LISTS, TEXTS), st.integers(1, 5))
def test_parts_of_a_column_are_united_as_if_read_at_once(values, size):
    from finetune.data.formats.objects import _to_array

    def column(part):
        return pa.table({"x": _to_array(part)})

    found = spooled([column(values[start : start + size]) for start in range(0, len(values), size)])
    whole = column(values)
    assert json.dumps(plain_values(found["x"])) == json.dumps(plain_values(whole["x"]))


def test_columns_that_a_part_lacks_are_null_there():
    found = spooled([pa.table({"a": [1]}), pa.table({"b": ["x"], "a": [2.5]})])
    assert found.column_names == ["a", "b"] and found.to_pylist() == [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}]


def test_what_has_nothing_in_common_is_refused():
    with pytest.raises(Mixed, match="several kinds") as error:
        spooled([pa.table({"a": [1, 2]}), pa.table({"a": ["x"]})])
    assert error.value.kinds == [("numbers", 1), ("text", 3)]


@given(st.integers(1, 60), st.integers(1, 400), st.randoms())
def test_rows_that_are_taken_of_a_large_table(rows, size, random):
    table = pa.table({"x": list(range(rows))})
    chosen = np.array(sorted(random.sample(range(rows), random.randint(1, rows))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "IN_MEMORY", size)
        assert taken(table, chosen)["x"].to_pylist() == chosen.tolist()
        assert pa.concat_tables(batches(table))["x"].to_pylist() == list(range(rows))


def test_all_rows_are_the_table_itself():
    table = pa.table({"x": [1, 2]})
    assert taken(table, np.arange(2)) is table and [*unified([table])] == [table]


def test_a_full_disk_is_told(small, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", full)
    with pytest.raises(DiskFull, match="FINETUNE_CACHE"):
        Spool().add(pa.table({"x": ["a" * 100]}))


KILLED = """
import os, signal, sys
import pyarrow as pa
from finetune.data import spool
spool.IN_MEMORY = 64
made = spool.Spool()
made.add(pa.table({"x": ["a" * 100]}))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_of_a_process_that_is_killed(small):
    done = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "FINETUNE_CACHE": str(small)})
    assert done.returncode == -signal.SIGKILL and [*small.iterdir()] == []


def test_parts_without_rows_make_no_files_of_their_own(small):
    made = Spool()
    for part in (pa.table({}), pa.table({"x": ["a" * 100]}), pa.table({}), pa.table({"x": ["b" * 100]})):
        made.add(part)
    assert len(made._files) == 1 and made.finish()["x"].to_pylist() == ["a" * 100, "b" * 100]


def test_arrays_of_numbers_follow_the_rule_of_columns():
    """Ours, such as the targets of a task, which may be whole in one part and not in another."""
    ints, floats = (pa.table({"x": pa.array([values], pa.large_list(kind))}) for values, kind in KINDS)
    assert spooled([ints, floats])["x"].to_pylist() == [[1.0, 2.0], [0.5]]


KINDS = [([1, 2], pa.int32()), ([0.5], pa.float64())]
