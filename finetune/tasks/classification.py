"""Text classification: one label for a text, or for a pair of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.core.answers import Answer, Column
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.data.labels import natural
from finetune.tasks import ordinal
from finetune.tasks.base import EncodedRows
from finetune.tasks.classifier import TextClassifier
from finetune.tasks.labels import (
    IGNORED,
    ClassWeights,
    Order,
    Spelling,
    Unseen,
    loss_of,
    ordered,
    refuse_unknown,
    refuse_unseen,
    unseen_facts,
    weights_of_classes,
)
from finetune.tasks.texts import tokenised

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline


class ClassificationOptions(Options):
    """Columns and encoding."""

    type: Literal["classification"]
    text: str = "text"
    """Column with the text."""
    pair: str | None = None
    """Column with the second text, for tasks over pairs."""
    label: str = "label"
    """Column with the label, text or whole number."""
    ordinal: Order = None
    """The labels from the lowest to the highest, such as `[low, medium, high]`; `true`: they are whole numbers, and
    stand in their order. The head then learns how likely an answer beyond each label is (CORN; Shi, Cao & Raschka
    2023), and answers with the median. `metrics` may have `quadratic_kappa` and `rank_mae`. Default: labels have no
    order."""
    class_weights: ClassWeights = None
    """What an example of each label counts in the training loss, a weighted mean as that of torch's CrossEntropyLoss:
    `{label: weight}`, any label that is not named 1; `balanced`: examples / (labels * examples of the label), as
    scikit-learn has it. Held-out losses, and with them `nll`, stay unweighted. Default: all count 1."""
    unseen: Unseen = "refuse"
    """What becomes of held-out examples whose label no training example has. `refuse`: nothing is begun. `other`: they
    are scored, and every answer to them is wrong; `macro_f1` counts each such label with an F1 of 0, `brier` a
    probability of 0, and `nll` leaves them out. They are counted in the data facts."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    pooling: Literal["model", "auto", "cls", "mean", "last", "max"] | None = None
    """How the head gets one vector of a text's tokens. `model`: as transformers' own class for the model does. Others
    put a linear head over the last hidden states: of the first token, the mean of all, the last, or the largest value
    of each feature; padding never counts. `auto`: what sentence-transformers' files beside the model say, the last
    token of causal models, else what cross-validation on the training examples prefers. Default: the strategy's,
    which is `auto` for a linear probe and what begins with one, and `model` for others."""
    normalise: bool | None = None
    """Divide that vector by its length, which `pooling: model` has no place for. Default: as `auto` finds; without it,
    no."""
    max_length: int = Field(256, ge=4)
    """Tokens an example may have; longer ones are cut at the end, and counted in the data facts."""
    metrics: list[str] = Field(["accuracy", "macro_f1", "mcc", "nll"], min_length=1)
    """Metrics of the held-out tasks, the headline first; `hub:NAME` loads one with `evaluate.load`."""

    @model_validator(mode="after")
    def _ranked(self) -> ClassificationOptions:
        if self.ordinal is not None and self.unseen == "other":
            raise ValueError("unseen: other is for labels without an order: one that is not named has no rank")
        if isinstance(self.ordinal, list) and (len({*self.ordinal}) < len(self.ordinal) or len(self.ordinal) < 2):
            raise ValueError("ordinal names two labels or more, each once")
        return self


@TASKS.register
class Classification(TextClassifier):
    """Predicts one label for each text or pair of texts, with a new linear head."""

    name: ClassVar[str] = "classification"
    Options = ClassificationOptions
    answer: ClassVar[Answer] = "label"
    example_score: ClassVar[str] = "accuracy"

    options: ClassificationOptions
    spelling: Spelling
    """How labels are written."""
    weights: dict[str, float]
    """What training examples of each class count; empty: 1."""

    @property
    def fills(self) -> frozenset[Column]:
        return super().fills | {"probabilities"}

    @property
    def solvable(self) -> bool:
        return super().solvable and self.softmax

    @property
    def softmax(self) -> bool:
        return self.options.ordinal is None

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_choices, require_labels, require_whole_numbers

        super().check(data, at)
        require_labels(data, self.options.label, at, "task.label")
        if self.options.ordinal is True:
            require_whole_numbers(data, self.options.label, at, "task.ordinal")
        elif self.options.ordinal:
            require_choices(data, self.options.label, self.options.ordinal, at, "task.ordinal")

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        column = self.options.label
        self.spelling = Spelling.of([*Spelling().counts(splits.train, column)])
        counts = self.spelling.counts(splits.train, column)
        asked = self.options.ordinal
        self.labels = tuple(sorted(counts, key=natural)) if asked is None else ordered(asked, counts)
        self.commonest = max(self.labels, key=lambda label: counts[label])  # the first of them in a tie
        if len(self.labels) < 2:
            raise bad_input(
                "task.label",
                f"column '{column}' has one class only in the training examples: '{self.labels[0]}'",
                "classification needs two or more; check the column, the split and data.split.stratify",
            )
        self.weights = weights_of_classes(self.options.class_weights, counts)
        if self.options.unseen == "refuse":
            held_out = {"validation": splits.validation, **splits.held_out}
            every = {name: self.spelling.counts(data, column) for name, data in held_out.items() if data is not None}
            refuse_unseen(splits, every, self.labels, "task.label", column)

    def check_fitted(self, data: Dataset) -> None:
        if self.options.unseen == "refuse":
            column = self.options.label
            refuse_unknown(self.spelling.counts(data, column), self.labels, "task.label", column)

    def recall(self, known: Mapping[str, Any]) -> None:
        self.spelling, self.weights = Spelling.of(self.labels), {}

    def stand_ins(self) -> dict[str, Any]:
        return {self.options.label: self.labels[0]}

    def model_config(self) -> dict[str, Any]:
        if self.softmax:
            return self.head_config(self.labels, "single_label_classification")
        return self.head_config(ordinal.outputs_for(self.labels), "multi_label_classification")

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        labels = [self.spelling(label) for label in data[self.options.label][:]]
        inputs, cut = tokenised(data, self.inputs(), self.tokenizer, self.options.max_length)
        numbers = {label: number for number, label in enumerate(self.labels)}
        weights = dict.fromkeys(self.labels, 1.0) | (self.weights if training else {})
        examples = [
            Example(
                number=number,
                inputs=own,
                target=numbers.get(label, IGNORED),
                weight=weights.get(label, 0.0),
                reference=label,
            )
            for number, label, own in zip(data["example"][:], labels, inputs, strict=True)
        ]
        return EncodedRows(examples, Counter(cut=cut))

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        found = self.spelling.counts(data, self.options.label)
        rows = sum(count for label, count in found.items() if label not in self.labels)
        unseen, notes = unseen_facts(found, self.labels, rows, at)
        facts = {"labels": dict(sorted(found.items())), **encoded.facts, **counts, **unseen}
        return replace(encoded, facts=facts, notes=[*encoded.notes, *notes])

    def outputs_of(self, logits: torch.Tensor, batch: Batch) -> Outputs:
        import torch

        owners = torch.arange(len(logits), device=logits.device)
        scores = logits if self.softmax else ordinal.log_probabilities(logits)
        return Outputs(scores, batch.targets, owners, len(logits), batch.weights)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        log_likelihoods = self.outputs(model, batch).logits.log_softmax(-1).cpu().numpy()
        return [
            Prediction(self.labels[self._answer(row)], loss_of(row, example.target), np.exp(row))
            for row, example in zip(log_likelihoods, examples, strict=True)
        ]

    def _answer(self, log_likelihoods: np.ndarray) -> int:
        """Choose among the labels' ``log_likelihoods`` (K,), of which two may differ whose probabilities are equal once
        rounded."""
        return int(log_likelihoods.argmax()) if self.softmax else self.choose(np.exp(log_likelihoods))

    def choose(self, probabilities: np.ndarray) -> int:
        """Where labels have an order, give the median."""
        return super().choose(probabilities) if self.softmax else ordinal.median(probabilities)

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.labels import Centroid, CommonestLabel, FrozenLogistic, TfidfLogistic

        words = TfidfLogistic(self.labels, self.shown)
        return [CommonestLabel(self.labels), words, Centroid(self.labels), FrozenLogistic(self.labels)]
