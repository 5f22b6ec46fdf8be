"""Reads json and jsonl files: objects of values, one for each row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.errors import InputError, Problem, bad_input
from finetune.data.encodings import LONE_SURROGATE, Written, code_point
from finetune.data.formats.base import FORMATS, Format, read_text, text_blocks
from finetune.data.json_text import loads
from finetune.data.squad import is_squad, questions

if TYPE_CHECKING:
    import pyarrow as pa


@FORMATS.register
class JsonLines(Format):
    """One JSON object a line; blank lines are passed over."""

    name: ClassVar[str] = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    @classmethod
    def blocks(cls, path: Path, source: Written, at: str) -> Iterator[pa.Table]:
        broken: list[tuple[int, str]] = []
        line = 1
        for text in text_blocks(path, source, at):
            rows = [*_parsed_lines(text, line, broken)]
            line += text.count("\n")
            if not broken:
                yield _from_rows([row for _, row in rows], [f"line {number}" for number, _ in rows], path, at)
        if broken:
            line, found = broken[0]
            more = f" ({len(broken) - 1} more lines are broken too)" if broken[1:] else ""
            advice = "every line is one JSON object"
            if _is_json(path, source, at):
                advice = "the file is one JSON value: set `format: json`"
            raise InputError(Problem(found + more, advice, f"{at}.path", f"{path}:{line}"))


def _parsed_lines(text: str, first: int, broken: list[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of lines that are numbered from ``first``, and add what is no object to ``broken``."""
    for line, written in enumerate(text.split("\n"), start=first):
        if not written.strip():
            continue
        try:
            row = loads(written)
            if isinstance(row, dict):
                yield line, row
            else:
                broken.append((line, f"{_kind(row)}, where an object in {{braces}} is expected"))
        except json.JSONDecodeError as error:
            broken.append((line, _invalid(error)))


@FORMATS.register
class Json(Format):
    """A list of objects, or an object in which exactly one value is such a list (as in `{"data": [...]}`). Of articles
    as SQuAD has them, every question is a row."""

    name: ClassVar[str] = "json"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    @staticmethod
    def read(path: Path, source: Written, at: str) -> pa.Table:
        try:
            content = loads(read_text(path, source, at))
        except json.JSONDecodeError as error:
            found = _invalid(error)
            lines = error.msg == "Extra data" and error.lineno == 2 and error.colno == 1
            advice = "if every line is an object of its own, set `format: jsonl`" if lines else ""
            raise InputError(Problem(found, advice, f"{at}.path", f"{path}:{error.lineno}")) from error
        lists = [content] if isinstance(content, list) else []
        if isinstance(content, dict):
            lists = [value for value in content.values() if isinstance(value, list)]
        if len(lists) != 1 or not all(isinstance(row, dict) for row in lists[0]):
            advice = 'expected [{...}, {...}], or {"data": [{...}, {...}]} with one list'
            raise bad_input(f"{at}.path", f"'{path}' is not one list of objects", advice)
        if is_squad(lists[0]):
            asked = [*questions(lists[0])]
            return _from_rows([row for row, _ in asked], [place for _, place in asked], path, at)
        return _from_rows(lists[0], [f"entry {number + 1}" for number in range(len(lists[0]))], path, at)


def _is_json(path: Path, source: Written, at: str) -> bool:
    try:
        loads(read_text(path, source, at))
    except json.JSONDecodeError:
        return False
    return True


def _invalid(error: json.JSONDecodeError) -> str:
    return f"not valid JSON: {error.msg.removesuffix(' at')} at character {error.colno}"


def _from_rows(rows: Sequence[dict[str, Any]], places: Sequence[str], path: Path, at: str) -> pa.Table:
    """A table of the rows' keys, in order of first appearance; a key that a row lacks is null there."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = _to_array(values)
        except UnicodeEncodeError as error:
            raise _surrogate(name, rows, places, path, at) from error
        except (ValueError, TypeError, OverflowError) as error:
            found = f"column '{name}' of '{path}' {_mixture(values, places) or f'cannot be read: {error}'}"
            raise bad_input(f"{at}.path", found, "the values of a column must be of one kind") from error
        if LONE_SURROGATE.search(name):
            raise _surrogate(name, rows, places, path, at)
    return pa.table(columns)


def _to_array(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    from finetune.data.nested import holds_objects, nested_array

    if holds_objects(values):
        return nested_array(values)
    try:
        return pa.array(values)
    except pa.ArrowTypeError:
        # NaN is a number to Arrow; in a column of text it can only mean that there is no value.
        without = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        return pa.array(without)


def _surrogate(name: str, rows: Iterable[dict[str, Any]], places: Iterable[str], path: Path, at: str) -> InputError:
    """The error for the first text with half of a surrogate pair, which JSON can write and which no text can hold."""
    texts = (json.dumps({name: row[name]}, ensure_ascii=False) if name in row else "" for row in rows)
    halves = ((LONE_SURROGATE.search(text), place) for text, place in zip(texts, places, strict=True))
    half, place = next((half[0], place) for half, place in halves if half)
    found = f"column '{_escaped(name)}' has {code_point(half)} in {place}, half of a surrogate pair and no character"
    advice = "a text was cut within a character, such as an emoji: write the whole character, or take the half out"
    where = f"{path}:{place.removeprefix('line ')}" if place.startswith("line ") else str(path)
    return InputError(Problem(found, advice, f"{at}.path", where))


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _mixture(values: Iterable[Any], places: Iterable[str]) -> str | None:
    """``holds text (line 1) and a number (line 7)``, when that is what is wrong."""
    first: dict[str, str] = {}
    for value, place in zip(values, places, strict=True):
        if value is not None:
            first.setdefault(_kind(value), place)
    return "holds " + " and ".join(f"{k} ({place})" for k, place in first.items()) if len(first) > 1 else None


def _kind(value: Any) -> str:
    words = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return words.get(type(value), "null")
