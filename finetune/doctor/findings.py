"""What a look at the machine finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    """`python`, `packages`, `devices`, `arithmetic`, `disk`, `hub` or `extras`."""
    state: Literal["fine", "note", "problem"]
    """`note`: nothing is wrong, and something can be had."""
    found: str
    """In words, with numbers."""
    fix: str = ""
    """What to type."""

    def to_json(self) -> dict[str, Any]:
        """Turn it into plain values."""
        return asdict(self)
