"""Lists and objects that a file holds as JSON text, as csv files do."""

from __future__ import annotations

import json
import re
from typing import Any


def parsed(value: Any) -> Any:
    """Parse JSON text, as which a csv file holds lists and objects; anything else, and text that is no JSON, stays as
    it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:  # which whoever asked for a list will refuse
        return value


def listed(value: Any, of: type = str) -> Any:
    """Parse a list of values ``of`` one kind, written as JSON text; other text is no list, and stays as it is."""
    found = parsed(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    return found if isinstance(found, list) and all(isinstance(each, of) for each in found) else value


def by_python(value: Any) -> bool:
    """Tell whether a text is a list as Python writes it, such as ``['a', 'b']``, which pandas leaves in csv files."""
    return isinstance(value, str) and re.match(r"\s*\[\s*[\['{(]", value) is not None
