"""Sets of labels as the prediction store has them: a JSON list of texts, such as `["card", "fee"]`; `[]` is no label.

Labels stand in the order of the task's, each once, and those that it does not know follow in the alphabet's: equal sets
are equal texts. A text that is no such list stands for the set of that one label.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping


def written(labels: Iterable[str], order: Mapping[str, int]) -> str:
    """Write a set; ``order`` has the places of the labels that the task knows."""
    chosen = sorted(set(labels), key=lambda label: (order.get(label, len(order)), label))
    return json.dumps(chosen, ensure_ascii=False)


def read(text: str) -> tuple[str, ...]:
    """Read a set, in the order in which it was written."""
    if not text.startswith("["):
        return (text,)
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return (text,)
    return tuple(found) if all(isinstance(label, str) for label in found) else (text,)


def difference(said: Collection[str], wanted: Collection[str]) -> tuple[list[str], list[str]]:
    """List what ``said`` is missing of ``wanted``, and what is superfluous in it, in the orders given."""
    return [each for each in wanted if each not in said], [each for each in said if each not in wanted]
