"""Writes below each block of Python on a page what it prints: python -m scripts._outputs PAGE [PAGE ...]

A page's blocks are one program; a block that is followed by one of `text` prints that.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

BLOCK = re.compile(r"(?<=^```python\n)(?P<code>(?:(?!^```).)*)(?:^```\n\n```text\n)(?P<said>.*?)(?=^```$)", re.M | re.S)
PYTHON = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)


def filled(page: str) -> str:
    """The page with what its blocks print now."""
    known: dict[str, object] = {"__name__": "__page__"}
    said: dict[str, str] = {}
    for found in PYTHON.finditer(page):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(found["code"], "page", "exec"), known)
        said[found["code"]] = out.getvalue()
    return BLOCK.sub(lambda found: f"{found['code']}```\n\n```text\n{said[found['code']]}", page)


def main() -> None:
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
