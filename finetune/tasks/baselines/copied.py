"""Baselines of tasks that make one text of another: what can be had of the source, or of the other targets, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from finetune.core.examples import Prediction
from finetune.tasks.baselines.answers import SENTENCE_END
from finetune.tasks.baselines.base import Baseline, ExampleSet, Untuned


class SourceBaseline(Baseline):
    """A baseline that makes its answers of the source alone."""

    repeats_inputs: ClassVar[bool] = True

    def __init__(self, column: str):
        """``column`` is that of the source."""
        self.column = column

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        """Learn nothing."""

    def answer(self, source: str) -> str:
        """Make the answer of one source."""
        raise NotImplementedError

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return [Prediction(self.answer(source), None) for source in self._sources(held_out)]

    def _sources(self, held_out: ExampleSet) -> Iterator[str]:
        yield from held_out.data[self.column]


class LeadSentence(SourceBaseline):
    """Copies the first sentence of the source, as lead sentences summarise news."""

    name: ClassVar[str] = "lead-sentence"

    def answer(self, source: str) -> str:
        return SENTENCE_END.split(source.strip(), maxsplit=1)[0].strip()


class CopySource(SourceBaseline):
    """Copies the source as it is, which no translation or summary should lose to."""

    name: ClassVar[str] = "copy-source"

    def answer(self, source: str) -> str:
        return source


class CommonestTarget(Baseline):
    """Always gives the commonest training target, of several the one that comes first."""

    name: ClassVar[str] = "commonest-target"
    commonest: str

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        counts = Counter(example.reference for example in training.examples)
        self.commonest = max(counts, key=lambda text: counts[text])  # the first of them in a tie

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return [Prediction(self.commonest, None) for _ in held_out.examples]
