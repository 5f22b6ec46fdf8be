"""Addresses of files elsewhere, `scheme://...`: what they stand for, and what of them nobody else should see."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl, urlsplit

from finetune.core.errors import bad_input

WEB = ("http", "https")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET = re.compile(r"(?i)token|secret|passw|credential|signature|^sig$|^key$|api_?-?key|auth(?!or)|authori[sz]")
_VARIABLE = re.compile(r"\$\{\w+\}")
_BRACES = re.compile(r"(?<!\$)\{([^{}]*)\}")


def is_remote(path: str) -> bool:
    """Tell whether a path is one of `scheme://`."""
    return _SCHEME.match(path) is not None


def shown(url: str) -> str:
    """The address without what only its owner should know: who asks, and what is behind the ``?``."""
    return re.sub(r"(?<=://)[^/@]*@", "", url.partition("?")[0])


def secret_in(url: str) -> str:
    """Name what in an address must not be written down, as a recipe is with every study; empty: there is nothing."""
    found = urlsplit(url)
    alone = found.username if found.scheme in WEB else None  # elsewhere a part of the place may stand there
    if (said := found.password or alone) and not _VARIABLE.fullmatch(said):
        return "who asks, before the `@`"
    names = (name for name, value in parse_qsl(found.query) if _SECRET.search(name) and not _VARIABLE.search(value))
    return next((f"`{name}`" for name in names), "")


def unbraced(text: str) -> Iterator[str]:
    """Yield every text that ``text`` stands for, as shells have it: `{0..11}`, `{00..11}`, `{a,b}`."""
    found = _BRACES.search(text)
    if found is None:
        yield text
        return
    numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", found[1], re.ASCII)
    choices: Iterable[str] = found[1].split(",")
    if numbers:
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        choices = (f"{number:0{width}d}" for number in range(int(numbers[1]), int(numbers[2]) + 1))
    for choice in choices:
        yield from unbraced(text[: found.start()] + choice + text[found.end() :])


def with_variables(text: str, at: str) -> str:
    """Put in what environment variables hold."""
    for name in _VARIABLE.findall(text):
        if name[2:-1] not in os.environ:
            raise bad_input(f"{at}.path", f"'{shown(text)}' needs the environment variable {name[2:-1]}", "set it")
        text = text.replace(name, os.environ[name[2:-1]])
    return text


def without_values(text: str, address: str) -> str:
    """``text`` with the names of environment variables that an ``address`` asks for in place of what they hold."""
    for name in _VARIABLE.findall(address):
        text = text.replace(os.environ.get(name[2:-1]) or name, name)
    return text


def without_address(text: str, path: str, address: str) -> str:
    """A library's words, in which it may have put the whole ``path`` that an ``address`` stands for."""
    for part in (path, path.partition("?")[2], path.partition("://")[2]):
        text = text.replace(part, "…") if part else text
    return without_values(text, address)
