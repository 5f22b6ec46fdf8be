"""Pages of which scripts write parts, each between two comments."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "recipes" / "RESULTS.md"


def put(text: str, page: Path, begin: str, end: str) -> None:
    """Put ``text`` between two lines of ``page``, in the place of what is there."""
    former = page.read_text(encoding="utf-8")
    if begin not in former or end not in former:
        raise SystemExit(f"{page} has no place for it: it lacks the lines\n{begin}\n{end}")
    before, _, rest = former.partition(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")
