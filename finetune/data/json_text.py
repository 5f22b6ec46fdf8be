"""JSON text: in files, and in the cells of a csv file, which hold lists and objects so."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

DEEPEST = 64
"""How deep lists and objects may lie in each other."""


def loads(text: str) -> Any:
    """The value in a JSON text. Raises json.JSONDecodeError, also for what Python cannot, or should not, hold."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError(_TOO_DEEP, text, 0) from None
    except ValueError:  # Python reads no longer ones
        raise json.JSONDecodeError("a number has thousands of digits", text, 0) from None
    if text.count("[") + text.count("{") > DEEPEST and _depth_exceeds(value, DEEPEST):
        raise json.JSONDecodeError(_TOO_DEEP, text, 0)
    return value


_TOO_DEEP = f"lists and objects lie more than {DEEPEST} deep in each other"


def _depth_exceeds(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = list(chain.from_iterable(inner))
    return bool(level)


def parsed(value: Any) -> Any:
    """Parse JSON text, as which a csv file holds lists and objects; anything else, and text that is no JSON, stays as
    it is."""
    if not isinstance(value, str):
        return value
    try:
        return loads(value)
    except ValueError:  # which whoever asked for a list will refuse
        return value


def listed(value: Any, of: type = str) -> Any:
    """Parse a list of values ``of`` one kind, written as JSON text; other text is no list, and stays as it is."""
    found = parsed(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    return found if isinstance(found, list) and all(isinstance(each, of) for each in found) else value


def by_python(value: Any) -> bool:
    """Tell whether a text is a list as Python writes it, such as ``['a', 'b']``, which pandas leaves in csv files."""
    return isinstance(value, str) and re.match(r"\s*\[\s*[\['{(]", value) is not None
