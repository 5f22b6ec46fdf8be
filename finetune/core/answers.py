"""The kinds of answers that tasks give, and what follows from each for scoring, combining, keeping and showing them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal

Answer = Literal["label", "labels", "number", "tags", "span", "choice", "text"]
"""`label`: one of several classes. `labels`: any number of them. `number`: a number. `tags`: a class for each word.
`span`: a part of the text that was given. `choice`: one of the answers that were given with the question. `text`: words
of its own. A task that answers nothing, such as language modelling, has None."""

Column = Literal["prediction", "probabilities", "loss", "margin", "margin_norm", "extracted", "bytes"]
"""Columns of the prediction store that depend on the task; every store has the others. `probabilities` are those of
answers of which one is right, so that those of several models have a mean; `extracted` are answers found in texts, and
`bytes` those of the text that was predicted."""

EXCLUSIVE: frozenset[str | None] = frozenset(("label", "choice"))
"""Answers of which one is right and all others are wrong."""

NAMED: frozenset[str | None] = frozenset(("label", "labels", "number", "tags"))
"""Answers in words that the data's makers have set, and that say nothing of a text: where texts are private, these may
still be kept and shown."""

DISTRIBUTED: frozenset[str | None] = frozenset(("label", "tags", "choice", "text", None))
"""Answers by a softmax over classes or tokens, once for an example or for each of its tokens: what softens targets or
compares distributions needs one. A span is by two softmaxes over the places in its own text:
there are no classes in common."""

SOLVED: frozenset[str | None] = frozenset(("label", "number"))
"""Answers of which a linear head can be solved for, instead of being trained in steps."""

PIPELINE_TAGS: dict[str | None, str] = {
    "label": "text-classification",
    "labels": "text-classification",
    "number": "text-classification",
    "tags": "token-classification",
    "span": "question-answering",
    "choice": "multiple-choice",
    "text": "text-generation",
}
"""The hub's name for what a model does, by its answer: https://huggingface.co/docs/hub/models-tasks."""

HEAD_KINDS: dict[str | None, str] = {"tags": "TokenClassification", "span": "QuestionAnswering"}
"""How transformers and peft call models with heads for such answers; those for all others: `SequenceClassification`."""


def spans_said(answers: Iterable[str]) -> str:
    """Write all ``answers`` that count as right, none where there is no answer, as one reference: a JSON list."""
    return json.dumps(list(dict.fromkeys(answers)), ensure_ascii=False)


def spans_in(reference: str) -> list[str]:
    """Read what :func:`spans_said` has written. Any other text is one answer by itself."""
    if reference.startswith("[") and reference.endswith("]"):
        try:
            found = json.loads(reference)
        except ValueError:  # a text in brackets
            return [reference]
        if isinstance(found, list) and all(isinstance(answer, str) for answer in found):
            return found
    return [reference]
