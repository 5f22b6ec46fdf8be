"""Text classification: one label for a text, or for a pair of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from finetune.core.answers import Answer, Column
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.data.labels import natural, visible
from finetune.models.pooling import POOLED
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.texts import check_read_out, logits_alone, padded, tokenised

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


@TASKS.register
class Classification(Task):
    """Predicts one label for each text or pair of texts, with a new linear head."""

    name: ClassVar[str] = "classification"
    Options = ClassificationOptions
    new_head: ClassVar[bool] = True
    answer: ClassVar[Answer] = "label"
    example_score: ClassVar[str] = "accuracy"

    options: ClassificationOptions
    written: dict[str, str]
    """How the training data write `true` and `false`, where those are classes."""

    @property
    def architecture(self) -> str:
        return POOLED if self.pooling else "AutoModelForSequenceClassification"

    @property
    def fills(self) -> frozenset[Column]:
        return super().fills | {"probabilities"}

    def inputs(self) -> list[str]:
        return [self.options.text, *([self.options.pair] if self.options.pair else [])]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_labels, require_text

        require_text(data, self.options.text, at, "task.text")
        if self.options.pair:
            require_text(data, self.options.pair, at, "task.pair")
        require_labels(data, self.options.label, at, "task.label")

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        self.written = {}
        counts = self._counts(splits.train)
        spelt = [label for label in counts if label.lower() in ("true", "false")]
        if len({label.lower() for label in spelt}) == len(spelt):  # else they are classes of their own, and shown
            self.written = {label.lower(): label for label in spelt}
        self.labels = tuple(sorted(counts, key=natural))
        self.commonest = max(self.labels, key=lambda label: counts[label])  # the first of them in a tie
        if len(self.labels) < 2:
            raise bad_input(
                "task.label",
                f"column '{self.options.label}' has one class only in the training examples: '{self.labels[0]}'",
                "classification needs two or more; check the column, the split and data.split.stratify",
            )
        held_out = {"validation": splits.validation, **splits.held_out}
        for name, data in held_out.items():
            unseen = sorted(set(self._counts(data)) - set(self.labels)) if data is not None else []
            if unseen:
                raise bad_input(
                    "task.label",
                    f"'{name}' has labels that no training example has: {', '.join(map(visible, unseen[:5]))}",
                    f"no model could learn them; training has {', '.join(map(visible, self.labels[:12]))}. Correct "
                    f"the labels, add training examples{self._stratify(splits, name)}",
                )

    def _stratify(self, splits: Splits, name: str) -> str:
        """Give advice on stratifying a split of the training data, where it is not followed already."""
        followed = splits.stratified.get(name, self.options.label) == self.options.label
        return "" if followed else f", or set data.split.stratify: {self.options.label}"

    def _labels(self, data: Dataset) -> list[str]:
        """Give each example's label as the training data have it: `true` in a csv file is the `True` that JSON and
        parquet files have, wherever training has only one of them."""
        return [self._spelt(label) for label in data[self.options.label]]

    def _counts(self, data: Dataset) -> Counter[str]:
        """Count the examples of each label."""
        from finetune.data.sources import as_table

        found = Counter[str]()
        for each in as_table(data)[self.options.label].value_counts().to_pylist():
            found[self._spelt(each["values"])] += each["counts"]
        return found

    def _spelt(self, label: Any) -> str:
        return self.written.get(str(label).lower(), str(label)) if self.written else str(label)

    def check_model(self, model: Any) -> None:
        """Refuse an encoder-decoder that could not be pooled."""
        if not self.pooling:
            check_read_out(model, self.tokenizer)

    def model_config(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
            "pad_token_id": self.tokenizer.pad_token_id,
            "problem_type": "single_label_classification",
        }

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        labels = self._labels(data)
        inputs, cut = tokenised(data, self.inputs(), self.tokenizer, self.options.max_length)
        numbers = {label: number for number, label in enumerate(self.labels)}
        examples = [
            Example(
                number=number,
                inputs=own,
                target=numbers[label],
                weight=1.0,
                reference=label,
            )
            for number, label, own in zip(data["example"], labels, inputs, strict=True)
        ]
        return EncodedRows(examples, Counter(cut=cut))

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        labels = {"labels": dict(sorted(self._counts(data).items()))}
        return replace(encoded, facts=labels | encoded.facts | counts)

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        return padded(examples, self.tokenizer)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        import torch

        logits = model(**batch.inputs).logits.float()
        owners = torch.arange(len(logits), device=logits.device)
        return Outputs(logits, batch.targets, owners, len(logits))

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        import torch

        logits = logits_alone(model, example)
        target, owner = torch.tensor([[example.target], [0]], device=logits.device)
        return Outputs(logits, target, owner, 1)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        log_likelihoods = model(**batch.inputs).logits.float().log_softmax(-1).cpu().numpy()
        return [
            Prediction(text=self.labels[int(row.argmax())], loss=float(-row[example.target]), probabilities=np.exp(row))
            for row, example in zip(log_likelihoods, examples, strict=True)
        ]

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.labels import Centroid, CommonestLabel, FrozenLogistic, TfidfLogistic

        words = TfidfLogistic(self.labels, self.shown)
        return [CommonestLabel(self.labels), words, Centroid(self.labels), FrozenLogistic(self.labels)]
