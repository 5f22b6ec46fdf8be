"""What becomes of a task's predictions: how they turn into answers, and what they are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetune.core.answers import EXCLUSIVE, Answer
from finetune.core.examples import Example, Prediction
from finetune.metrics.base import Columns, Metric
from finetune.tasks.trivial import Trivial

if TYPE_CHECKING:
    from finetune.tasks.baselines.base import Baseline


def likeliest(probabilities: np.ndarray) -> int:
    """Give the number of the largest of ``probabilities`` (K,); of equal ones the first."""
    return int(probabilities.argmax())


class Judged:
    """The part of a task that is asked once a model has predicted."""

    answer: ClassVar[Answer | None]
    """What it answers; None: nothing. Scoring, the store, soups and ensembles, and the report ask this."""
    example_score: ClassVar[str]
    """The metric that gives each single example its score in the prediction store; `loss` where there is none."""
    options: Any
    """What the recipe says of it."""
    commonest: str | None = None
    """The answer of most training examples, for tasks that always giving it could pass for learning; found by
    `fit`."""

    @property
    def metrics(self) -> Sequence[str | Metric]:
        """List what its predictions are scored by, the headline first: recipes' words, or metrics of its own."""
        named: list[str] = self.options.metrics
        return named

    def over(self, examples: Sequence[Example]) -> Any:
        """Give the same task for answering ``examples``, some of them at a time, where how that is done takes all of
        them. Here, each is answered by itself."""
        return self

    def completed(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Prediction]:
        """Complete the ``predictions`` for a whole set of ``examples``, where an answer takes all of them, such as a
        rank. Here, each is complete by itself."""
        return list(predictions)

    def choose(self, probabilities: np.ndarray) -> int:
        """Give the number of the label that ``probabilities`` (K,) speak for. Here, the likeliest."""
        return likeliest(probabilities)

    @property
    def decides(self) -> bool:
        """Tell whether :meth:`decide` has something to choose, such as a threshold, once the task is fitted."""
        return False

    def decide(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Choose by the ``predictions`` for ``examples`` of the validation split, after training, how later ones become
        answers: numbers by name, which are kept with the run. Held-out sets have no part in it."""
        return {}

    def decided(self, predictions: Sequence[Prediction], decision: Mapping[str, float]) -> list[Prediction]:
        """Turn what the model predicts into what is said, by a ``decision``; empty: as it is without validation
        examples."""
        return list(predictions)

    def trivial(self, examples: Sequence[Example]) -> Trivial | None:
        """Score always giving the same answer to ``examples``, those that are scored; None: no such answer. A run that
        is not shown to be better, by what :meth:`measured` gives, has learnt nothing."""
        if self.commonest is None:
            return None
        right = np.array([example.reference == self.commonest for example in examples], dtype=float)
        same = "the commonest label" if self.answer in EXCLUSIVE else "the same answer"
        return Trivial(f"always giving {same}", self.example_score, right)

    def measured(self, columns: Columns) -> np.ndarray:
        """Measure each prediction of a run, of whose store these are the ``columns``, as :meth:`trivial` does:
        (examples,). Here, by its own score."""
        return np.asarray(columns["score"], dtype=float)

    def majority(self, examples: Sequence[Example]) -> float | None:
        """Compute the share of ``examples``, those that are scored, that always giving the commonest training answer
        gets right; None: no such thing."""
        if self.commonest is None:
            return None
        return sum(example.reference == self.commonest for example in examples) / len(examples)

    def trivial_answers(self, examples: Sequence[Example]) -> list[str] | None:
        """Give the answers to ``examples`` that take no learning, such as no entity anywhere; None: no such thing. A
        run whose headline metric is no better than theirs has learnt nothing."""
        return None

    def baselines(self, shots: int = 0) -> list[Baseline]:
        """List what is cheap and answers the same; known once the task is fitted. ``shots``: training examples that the
        untuned model is shown before each question, where the task generates answers; 0: it is not asked so.

        The untuned model itself is scored without this. Here, nothing: a task that has cheap rivals brings its own.
        """
        return []
