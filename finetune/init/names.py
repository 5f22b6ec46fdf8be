"""What the names of columns hint at: never more than that, where two columns could both be it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from finetune.init.columns import Column

HINTS: dict[str, set[str]] = {
    "label": {"label", "labels", "class", "category", "intent", "sentiment", "topic", "target", "y", "gold", "tag"},
    "number": {"score", "rating", "similarity", "target", "value", "price", "stars", "grade", "points", "y", "label"},
    "ordered": {"rating", "stars", "star", "score", "grade", "level", "severity", "priority", "likert", "rank", "age"}
    | {"points", "quality", "difficulty", "urgency", "similarity", "relevance", "price", "count", "minutes", "years"},
    "code": {"label", "class", "category", "intent", "topic", "type", "kind", "genre", "section", "department", "tag"},
    "about": {
        "id",
        "index",
        "idx",
        "lang",
        "language",
        "source",
        "date",
        "time",
        "year",
        "month",
        "split",
        "fold",
        "url",
    }
    | {"author", "user", "annotator", "channel", "version", "timestamp", "created", "region", "country", "device"}
    | {"license", "status", "length", "likes", "votes", "confidence", "batch", "platform"},
    "group": {
        "id",
        "author",
        "user",
        "patient",
        "document",
        "doc",
        "article",
        "session",
        "thread",
        "speaker",
        "customer",
    }
    | {"group", "subject", "writer", "conversation", "paragraph", "product", "annotator", "page", "book", "student"},
    "asked": {
        "prompt",
        "instruction",
        "question",
        "query",
        "input",
        "request",
        "problem",
        "ask",
        "user",
        "src",
        "source",
    },
    "answered": {"completion", "response", "answer", "output", "reply", "solution", "target", "tgt", "summary"}
    | {"headline", "translation", "assistant", "highlights"},
    "chosen": {"chosen", "preferred", "better", "good", "winner", "accepted"},
    "rejected": {"rejected", "dispreferred", "worse", "bad", "loser", "refused"},
    "anchor": {"anchor", "query", "sentence1", "text1", "q", "premise", "a"},
    "positive": {"positive", "pos", "passage", "document", "paraphrase", "duplicate", "relevant", "sentence2", "text2"},
    "negative": {"negative", "neg", "hard", "irrelevant"},
}
"""Words of column names, by what they hint at."""


def words_of(name: str) -> list[str]:
    """The words of a column's name: `labelText`, `label_text` and `label-text` are two each."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def hints(column: Column, at: str) -> bool:
    """Tell whether a column's name hints ``at`` something."""
    words = words_of(column.name)
    return bool({*words, "".join(words)} & HINTS[at]) or any(word.rstrip("0123456789s") in HINTS[at] for word in words)


def hinting(columns: Iterable[Column], at: str) -> list[Column]:
    """Those of the ``columns`` whose name hints ``at`` something."""
    return [column for column in columns if hints(column, at)]
