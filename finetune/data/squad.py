"""Files of SQuAD and of what is written like it: articles of paragraphs with questions, read as one row a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

PARAGRAPHS = "paragraphs"
"""Key by which an article is known."""


def is_squad(rows: Sequence[dict[str, Any]]) -> bool:
    """Tell whether all ``rows`` are articles as SQuAD's files have them."""
    return bool(rows) and all(_objects(row.get(PARAGRAPHS)) and _asked(row) for row in rows)


def _asked(article: dict[str, Any]) -> bool:
    return all("context" in paragraph and _objects(paragraph.get("qas")) for paragraph in article[PARAGRAPHS])


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def questions(articles: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield a row for each question of ``articles``, as the hub's SQuAD has them, and where it stands in the file: the
    answers are `{text: [...], answer_start: [...]}`, empty where there is none."""
    for number, article in enumerate(articles, start=1):
        for place, paragraph in enumerate(article[PARAGRAPHS], start=1):
            for asked, entry in enumerate(paragraph["qas"], start=1):
                answers = entry.get("answers")
                row = {
                    **{key: value for key, value in article.items() if key != PARAGRAPHS},
                    **{key: value for key, value in paragraph.items() if key != "qas"},
                    **{key: value for key, value in entry.items() if key not in ("answers", "plausible_answers")},
                    "answers": _columns(answers) if _objects(answers or []) else answers,
                }
                yield row, f"article {number}, paragraph {place}, question {asked}"


def _columns(answers: Sequence[dict[str, Any]] | None) -> dict[str, list[Any]]:
    """Write answers side by side."""
    return {key: [answer.get(key) for answer in answers or ()] for key in ("text", "answer_start")}
