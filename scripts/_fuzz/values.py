"""What stands where something else is expected, and how bytes and trees of values are broken."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

TEXTS = (
    "",
    " ",
    "\t",
    "null",
    "true",
    "nan",
    "-inf",
    "1e999",
    "0x10",
    "1_000",
    "2024-02-30",
    "=1+1",
    "../../outside",
    "/",
    ".",
    "..",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/mem",
    "~nobody-there/data",
    "package:../x",
    "package:json/../../x",
    "package:datasets/*",
    "C:\\data",
    "file:///etc/hostname",
    "https://[::1",
    "no-such-scheme://x",
    "hub:",
    "CON",
    "-rf",
    "a;b",
    "$(id)",
    "`id`",
    "%s%n",
    "{0}",
    "{",
    "}}",
    "{text!r:>9999999999}",
    "{text.__class__}",
    "{text[0]}",
    "{text:.-1}",
    "${HOME}",
    "<script>alert(1)</script>",
    "</script>",
    "|`*_\n#",
    "\x1b]0;title\x07\x1b[31m",
    "\r\x08\x7f",
    "\x85\u2028\u2029",
    "\u202egnp.exe",
    "\u200b",
    "\ufeff",
    "\ufffd\uffff",
    "e\u0301",
    "ß",
    "İ",
    "🧪",
    "日本語",
    "\U0010ffff",
    "A" * 300,
    "A" * 5000,
    "(" * 500,
    "a.b.c",
    "a/b",
    "file.py:function",
    "evaluate:accuracy",
    "__class__",
    "type",
)
NUMBERS = (0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, 2**31, 2**53 + 1, 2**63, -(2**64), 10**30, 10**400)
"""JSON and YAML have whole numbers of any size."""
OTHERS = (
    None,
    True,
    False,
    float("nan"),
    float("inf"),
    [],
    {},
    [None],
    [[]],
    {"": None},
    {"type": []},
    {"a": {"b": 1}},
)


def value(rng: random.Random) -> Any:
    """One value of any kind."""
    return copy.deepcopy(rng.choice(rng.choice((TEXTS, TEXTS, NUMBERS, OTHERS))))


def text(rng: random.Random) -> str:
    """One text."""
    return rng.choice(TEXTS)


def nested(rng: random.Random, depth: int) -> Any:
    """Lists or objects in each other."""
    found: Any = value(rng)
    listed = rng.random() < 0.5
    for _ in range(depth):
        found = [found] if listed else {"a": found}
    return found


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside ``tree``."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from places(each, (*at, key))


def inside(tree: Any, path: tuple[Any, ...]) -> Any:
    """What lies at ``path``."""
    for key in path:
        tree = tree[key]
    return tree


def broken_tree(tree: Any, rng: random.Random) -> Any:
    """``tree`` with one value changed, taken away, moved, renamed or repeated."""
    tree = copy.deepcopy(tree)
    known = list(places(tree))
    if not known:
        return value(rng)
    *path, key = rng.choice(known)
    around = inside(tree, tuple(path))
    how = rng.randrange(7)
    if how == 0:
        del around[key]
    elif how == 1:
        around[key] = copy.deepcopy(inside(tree, rng.choice(known)))
    elif how == 2 and isinstance(around, dict):
        around[text(rng)] = around.pop(key)
    elif how == 3 and isinstance(around, list):
        around.extend(around * rng.randint(1, 3))
    elif how == 4:
        around[key] = nested(rng, rng.randint(1, 40))
    elif how == 5:
        around[key] = [around[key]] if rng.random() < 0.5 else {"type": around[key]}
    else:
        around[key] = value(rng)
    return tree


def nudged_tree(tree: Any, rng: random.Random) -> Any:
    """``tree`` with one value that is another one of its kind, or left out."""
    tree = copy.deepcopy(tree)
    *path, key = rng.choice([path for path in places(tree) if not isinstance(inside(tree, path), dict | list)])
    around = inside(tree, tuple(path))
    found = around[key]
    if rng.random() < 0.2:
        del around[key]
    elif isinstance(found, bool):
        around[key] = not found
    elif isinstance(found, int | float):
        around[key] = rng.choice((found + 1, found - 1, found * 2, found / 2, found * 1000, -found, 0, str(found)))
    elif isinstance(found, str):
        around[key] = rng.choice((found.upper(), found + " ", found[:-1], found * 2, [found], f"./{found}"))
    return tree


def broken_bytes(content: bytes, rng: random.Random) -> bytes:
    """``content`` with some of its bytes flipped, taken away, repeated, moved, or others put in."""
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice((1, 1, 2, 8, 64, 1024)))
    how = rng.randrange(8)
    if how == 0:
        return content[:start]
    if how == 1:
        return content[:start] + content[end:]
    if how == 2:
        return content[:end] + content[start:end] * rng.choice((1, 2, 100)) + content[end:]
    if how == 3:
        return content[:start] + bytes(rng.randrange(256) for _ in range(end - start)) + content[end:]
    if how == 4:
        return content[:start] + b"\0" * (end - start) + content[end:]
    if how == 5:
        signs = (b"\0", b"\xff", b"\x1b", b"\r", b"\n", b"\t", b'"', b"'", b"{", b"[", b"&a", b"*a", b"\xef\xbb\xbf")
        return content[:start] + rng.choice(signs) * rng.choice((1, 1, 3, 2000)) + content[start:]
    if how == 6:
        return content[end:] + content[:end]
    flipped = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20)) if content else 0):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def encoded(content: str, rng: random.Random) -> bytes:
    """``content`` in an encoding that was not asked for, or with the line ends of another system."""
    name = rng.choice(("utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-7", "utf-8-sig", "cp500"))
    ends = rng.choice(("\n", "\n", "\r\n", "\r", "\u2028", "\x0c"))
    return content.replace("\n", ends).encode(name, "replace")


def json_text(tree: Any, rng: random.Random) -> str:
    """``tree`` as JSON text, with what JSON cannot hold written as Python does."""
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5, default=str)
