"""Baselines of tasks that answer with a part of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from finetune.core.examples import Prediction
from finetune.tasks.baselines.base import Baseline, ExampleSet, Untuned
from finetune.tasks.spans import questions_of

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
WORD = re.compile(r"\w+")


class NoAnswer(Baseline):
    """Always says that there is no answer."""

    name: ClassVar[str] = "no-answer"

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        pass

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return [Prediction("", None) for _ in held_out.examples]


class NearestSentence(Baseline):
    """Answers with the sentence of the text that has most words of the question.

    The first of them where several have as many: the sliding-window baseline of Rajpurkar et al. 2016 (section 5.1)
    without its candidates. It never says that there is no answer.
    """

    name: ClassVar[str] = "nearest-sentence"
    repeats_inputs: ClassVar[bool] = True

    def __init__(self, options: Any):
        """``options`` name the columns."""
        self.options = options

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        pass

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return [Prediction(text, None) for text in self._nearest(held_out)]

    def _nearest(self, held_out: ExampleSet) -> Iterator[str]:
        for each in questions_of(held_out.data, self.options, held_out.at):
            asked = _words(each.question)
            sentences = [text.strip() for text in SENTENCE_END.split(each.context) if text.strip()]
            yield max(sentences, key=lambda text: len(_words(text) & asked))


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))
