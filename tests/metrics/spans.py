"""Answers that are parts of a text, as rows of a prediction store."""

from finetune.core.answers import spans_said

ROWS = [
    ("The  France!", ["France", "in France"]),
    ("north of France", ["France", "in France"]),
    ("", []),
    ("France", []),
    ("", ["France"]),
    ("the", ["a"]),  # nothing is left of either: no answer was wanted, and none is said
    ("cat cat dog", ["cat dog dog", "fish"]),
]


def pairs():
    return [(said, spans_said(wanted)) for said, wanted in ROWS]
