"""The base class of baselines, what they are given, and what they may ask of the untuned model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.core.encoded import Encoded
from finetune.core.examples import Example, Prediction

if TYPE_CHECKING:
    from datasets import Dataset

Uses = Literal["data", "words", "features", "model"]
"""What a baseline needs beside its examples. `data`: nothing. `words`: the texts of all of them in memory. `features`:
the frozen model's, of all examples; recipes limit both by the number of tokens. `model`: answers of the untuned
model."""


@dataclass(frozen=True)
class ExampleSet:
    """A set of examples, as the task has read and encoded it."""

    at: str
    """Where the recipe names it, as in `data.train`."""
    data: Dataset
    """As it was read. Training examples that the task has dropped are still here."""
    encoded: Encoded

    @property
    def examples(self) -> Sequence[Example]:
        """Give the examples in the order in which they are predicted and stored."""
        return self.encoded.examples


class Untuned(Protocol):
    """The study's base model before any training. Under several processes, all of them have to ask it the same."""

    def features(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Compute frozen features of ``examples``, (N, F), each of length 1: the pooled last hidden states."""

    def probe(
        self, features: NDArray[np.float32], classes: Sequence[int], count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Solve logistic regression of ``classes`` (N,), of which there are ``count``, on ``features`` (N, F), its
        penalty chosen by cross-validation: weights (``count``, F) and biases (``count``,)."""

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Predict each of ``examples``, encoded by the task, as a run is scored. Raises FinetuneError for examples that
        are longer than the model has room for."""


class Baseline(ABC):
    """A cheap way to answer a task, which a tuned model has to beat. The docstring's first line tells people what it
    does.

    It is fitted once to the study's training examples, and then predicts every held-out set. All that is random in it
    is drawn with a seed of its own, so that it is the same whatever seeds a study has.
    """

    name: ClassVar[str]
    """Its name in reports, and that of its folder."""
    uses: ClassVar[Uses] = "data"
    repeats_inputs: ClassVar[bool] = False
    """True where its answers are held-out texts, which private data do not allow to be stored."""

    @property
    def needs_model(self) -> bool:
        """Tell whether it asks the untuned model anything."""
        return self.uses in ("features", "model")

    @property
    def settings(self) -> dict[str, int]:
        """Give what the recipe has chosen about it, by name: when that changes, it is computed again."""
        return {}

    @abstractmethod
    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        """Learn from the ``training`` examples. May raise FinetuneError, with the reason, where it cannot."""

    @abstractmethod
    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        """Predict each held-out example, in their order; without a loss where there is no likelihood."""
