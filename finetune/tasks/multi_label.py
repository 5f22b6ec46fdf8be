"""Multi-label classification: any number of labels for a text, or for a pair of texts, each decided by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from finetune.core.answers import Answer
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.label_sets import written
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.data.labels import natural
from finetune.tasks.base import EncodedRows
from finetune.tasks.classifier import TextClassifier
from finetune.tasks.label_sets import OPTION, SetColumns
from finetune.tasks.labels import Unseen, refuse_unknown, refuse_unseen, unseen_facts
from finetune.tasks.texts import tokenised

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline


class MultiLabelOptions(Options):
    """Columns and encoding."""

    type: Literal["multi-label-classification"]
    text: str = "text"
    """Column with the text."""
    pair: str | None = None
    """Column with the second text, for tasks over pairs."""
    labels: str | list[str] = "labels"
    """Column with the labels of each row, as a list, or as a text with `separator`; or several columns of 0 and 1 (or
    false and true), whose names are the labels. A row may have none."""
    separator: str | None = Field(None, min_length=1)
    """What stands between the labels in one text, such as `;`; an empty text is a row without labels. Default: the
    column holds lists."""
    unseen: Unseen = "refuse"
    """What becomes of held-out examples with a label that no training example has. `refuse`: nothing is begun. `other`:
    the label stays in what is wanted, and no answer hits it; losses are those of the other labels. They are counted in
    the data facts."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example."""
    pooling: Literal["model", "cls", "mean", "last", "max"] = "model"
    """How the head gets one vector of a text's tokens. `model`: as transformers' own class for the model does. Others
    put a linear head over the last hidden states: of the first token, the mean of all, the last, or the largest value
    of each feature; padding never counts."""
    normalise: bool | None = None
    """Divide that vector by its length, which `pooling: model` has no place for. Default: no."""
    max_length: int = Field(256, ge=4)
    """Tokens an example may have; longer ones are cut at the end, and counted in the data facts."""
    metrics: list[str] = Field(["micro_f1", "label_macro_f1", "subset_accuracy", "hamming_loss", "nll"], min_length=1)
    """Metrics of the held-out tasks, the headline first. `nll` is the sum over labels."""

    @model_validator(mode="after")
    def _one_way(self) -> MultiLabelOptions:
        if isinstance(self.labels, list):
            if self.separator is not None:
                raise ValueError("separator is for labels in one text, and labels names columns of 0 and 1")
            if not self.labels or len({*self.labels}) < len(self.labels):
                raise ValueError("labels names one column or more, each once")
        return self


class Independent(Outputs):
    """Log-odds (N, K) of K labels, each of which is right or not, (N, K), whatever the others are."""

    def losses(self) -> torch.Tensor:
        """Compute binary cross-entropies, summed over labels: (N,), nats."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        each = binary_cross_entropy_with_logits(self.logits, self.targets.to(self.logits.dtype), reduction="none")
        return self.by_example(each.sum(1))


@TASKS.register
class MultiLabel(TextClassifier):
    """Predicts any number of labels for each text or pair of texts, with a new linear head."""

    name: ClassVar[str] = "multi-label-classification"
    Options = MultiLabelOptions
    answer: ClassVar[Answer] = "labels"
    example_score: ClassVar[str] = "subset_accuracy"

    options: MultiLabelOptions
    places: dict[str, int]
    """The number of each label."""

    @property
    def _columns(self) -> SetColumns:
        return SetColumns(self.options.labels, self.options.separator)

    def check(self, data: Dataset, at: str) -> None:
        super().check(data, at)
        self._columns.check(data, at)

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        sets = self._columns.read(splits.train)
        counts = _counts(sets)
        if not counts:
            raise bad_input(OPTION, "no training example has any label", "check the column, and task.separator")
        self.labels = tuple(sorted(counts, key=natural))
        self.places = {label: place for place, label in enumerate(self.labels)}
        self.commonest = Counter(written(labels, self.places) for labels in sets).most_common(1)[0][0]
        if self.options.unseen == "refuse":
            held_out = {"validation": splits.validation, **splits.held_out}
            every = {name: _counts(self._columns.read(data)) for name, data in held_out.items() if data is not None}
            refuse_unseen(splits, every, self.labels, OPTION, str(self.options.labels))

    def check_fitted(self, data: Dataset) -> None:
        if self.options.unseen == "refuse":
            refuse_unknown(_counts(self._columns.read(data)), self.labels, OPTION, str(self.options.labels))

    def recall(self, known: Mapping[str, Any]) -> None:
        self.places = {label: place for place, label in enumerate(self.labels)}

    def stand_ins(self) -> dict[str, Any]:
        if isinstance(self.options.labels, list):
            return dict.fromkeys(self.options.labels, 0)
        return {self.options.labels: [] if self.options.separator is None else ""}

    def model_config(self) -> dict[str, Any]:
        return self.head_config(self.labels, "multi_label_classification")

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        inputs, cut = tokenised(data, self.inputs(), self.tokenizer, self.options.max_length)
        rows = zip(data["example"][:], inputs, self._columns.read(data), strict=True)
        examples = [
            Example(
                number=number,
                inputs=own,
                target=tuple(int(label in labels) for label in self.labels),
                weight=1.0,
                reference=written(labels, self.places),
            )
            for number, own, labels in rows
        ]
        return EncodedRows(examples, Counter(cut=cut))

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        sets = self._columns.read(data)
        found, sizes = _counts(sets), [len(labels) for labels in sets]
        rows = sum(any(label not in self.places for label in labels) for labels in sets)
        unseen, notes = unseen_facts(found, self.labels, rows, at)
        facts = {
            "labels": dict(sorted(found.items())),
            "labels_per_example": {"mean": round(sum(sizes) / len(sizes), 2), "max": max(sizes)},
            "without_labels": sizes.count(0),
        }
        return replace(encoded, facts={**facts, **encoded.facts, **counts, **unseen}, notes=[*encoded.notes, *notes])

    def outputs_of(self, logits: torch.Tensor, batch: Batch) -> Outputs:
        import torch

        owners = torch.arange(len(logits), device=logits.device)
        return Independent(logits, batch.targets, owners, len(logits), batch.weights)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        found = self.outputs(model, batch)
        said = zip(found.logits.tolist(), found.losses().tolist(), found.logits.sigmoid().cpu().numpy(), strict=True)
        return [Prediction(self.answer_of(log_odds), loss, chances=each) for log_odds, loss, each in said]

    def answer_of(self, log_odds: Sequence[float]) -> str:
        """Write the labels that are likelier than not, of ``log_odds`` (K,)."""
        chosen = (label for label, odds in zip(self.labels, log_odds, strict=True) if odds > 0)
        return written(chosen, self.places)

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.sets import CommonestSet, FrozenOneVsRest, PrevalentLabels, TfidfOneVsRest

        words = TfidfOneVsRest(self.labels, self.shown)
        return [CommonestSet(self.labels), PrevalentLabels(self.labels), words, FrozenOneVsRest(self.labels)]


def _counts(sets: Sequence[Sequence[str]]) -> Counter[str]:
    """Count the examples of each label."""
    return Counter(label for labels in sets for label in labels)
