"""Regression: one number for a text, or for a pair of texts, by least squares or Huber's loss (Huber 1964)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.core.answers import Answer
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.metrics import Columns
from finetune.metrics.base import numbers
from finetune.models.pooling import POOLED
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.texts import check_read_out, logits_alone, padded, tokenised
from finetune.tasks.trivial import Trivial

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline

DELTA = 1.345
"""Of errors with a normal distribution, what is fitted so is 95 % as efficient as least squares, where errors are given
in their own SDs (Holland & Welsch 1977, "Robust regression using iteratively reweighted least-squares")."""

MEAN, SD = "target_mean", "target_sd"
"""Keys of the model's configuration."""


class RegressionOptions(Options):
    """Columns, encoding and loss."""

    type: Literal["regression"]
    text: str = "text"
    """Column with the text."""
    pair: str | None = None
    """Column with the second text, for tasks over pairs."""
    target: str = "target"
    """Column with the number, in any unit: models learn it in SDs from the training examples' mean, and answers,
    metrics and reports are in the column's own unit."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    loss: Literal["squared", "huber"] = "squared"
    """What is minimised of each error e, in SDs of the training examples' numbers. `squared`: e²/2, the negative
    log-likelihood (but for a constant) under normal errors. `huber`: that up to `delta`, and beyond it a straight line,
    so that outliers pull less (Huber 1964, "Robust Estimation of a Location Parameter", section 1)."""
    delta: float | None = Field(None, gt=0)
    """Where Huber's loss turns into a line, in SDs of the training examples' numbers. Default: 1.345, at which it is
    95 % as efficient as least squares under normal errors of SD 1 (Holland & Welsch 1977)."""
    pooling: Literal["model", "auto", "cls", "mean", "last", "max"] | None = None
    """How the head gets one vector of a text's tokens. `model`: as transformers' own class for the model does. Others
    put a linear head over the last hidden states: of the first token, the mean of all, the last, or the largest value
    of each feature; padding never counts. `auto`: what sentence-transformers' files beside the model say, the last
    token of causal models, else what leaving out each training example in turn prefers. Default: the strategy's,
    which is `auto` for a linear probe and what begins with one, and `model` for others."""
    normalise: bool | None = None
    """Divide that vector by its length, which `pooling: model` has no place for. Default: as `auto` finds; without it,
    no."""
    max_length: int = Field(256, ge=4)
    """Tokens an example may have; longer ones are cut at the end, and counted in the data facts."""
    metrics: list[str] = Field(["pearson", "spearman", "rmse", "mae"], min_length=1)
    """Metrics of the held-out tasks, the headline first; `hub:NAME` loads one with `evaluate.load`."""

    @model_validator(mode="after")
    def _said_where_it_means_something(self) -> RegressionOptions:
        if self.delta is not None and self.loss != "huber":
            raise ValueError("delta is for Huber's loss; write loss: huber, or leave it out")
        return self


@dataclass(frozen=True)
class Scale:
    """How the numbers of the training examples lie: what models learn is (number - mean) / sd."""

    mean: float
    sd: float

    def learnt(self, values: np.ndarray) -> np.ndarray:
        """Turn numbers in the data's unit into those that are learnt."""
        return (values - self.mean) / self.sd

    def said(self, values: np.ndarray) -> np.ndarray:
        """Turn numbers that were learnt into the data's unit."""
        return np.asarray(values, dtype=np.float64) * self.sd + self.mean


@dataclass(frozen=True)
class Numbers(Outputs):
    """Numbers (L, 1) in the place of choices."""

    delta: float | None = field(default=None, kw_only=True)
    """Of Huber's loss; None: the squared error."""

    def losses(self) -> torch.Tensor:
        """Compute half the squared error of each example, or its Huber loss: (N,)."""
        from torch.nn.functional import huber_loss

        if self.delta is None:
            return self.by_example((self.logits[:, 0] - self.targets).square() / 2)
        return self.by_example(huber_loss(self.logits[:, 0], self.targets, reduction="none", delta=self.delta))


@TASKS.register
class Regression(Task):
    """Predicts a number for each text or pair of texts, with a new linear head.

    The model's output is the number in SDs from the mean of the training examples. Both stand in its configuration, as
    `target_sd` and `target_mean`: plain transformers gives ``(number - target_mean) / target_sd``. A model that
    `finetune.load_model` opens gives the number itself.
    """

    name: ClassVar[str] = "regression"
    Options = RegressionOptions
    new_head: ClassVar[bool] = True
    answer: ClassVar[Answer] = "number"
    example_score: ClassVar[str] = "mae"

    options: RegressionOptions
    scale: Scale
    """Found by :meth:`fit`."""

    @property
    def architecture(self) -> str:
        return POOLED if self.pooling else "AutoModelForSequenceClassification"

    @property
    def solvable(self) -> bool:
        return self.options.loss == "squared"

    @property
    def delta(self) -> float | None:
        """Give where the loss turns into a line; None: nowhere."""
        return None if self.options.loss == "squared" else self.options.delta or DELTA

    def inputs(self) -> list[str]:
        return [self.options.text, *([self.options.pair] if self.options.pair else [])]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_numbers, require_text

        require_text(data, self.options.text, at, "task.text")
        if self.options.pair:
            require_text(data, self.options.pair, at, "task.pair")
        require_numbers(data, self.options.target, at, "task.target")

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        values, column = self._numbers(splits.train), self.options.target
        if values.min() == values.max():
            found = f"column '{column}' has one value only in the training examples: {values[0]!s}"
            raise bad_input("task.target", found, "there is nothing to learn; check the column and the split")
        with np.errstate(over="ignore", invalid="ignore"):
            self.scale = Scale(float(values.mean()), float(values.std()))
        if not (np.isfinite(self.scale.mean) and 0 < self.scale.sd < np.inf):
            found = f"column '{column}' has numbers that cannot be squared, from {values.min():g} to {values.max():g}"
            raise bad_input("task.target", found, "write them in another unit, or their logarithms")

    def _numbers(self, data: Dataset) -> np.ndarray:
        from finetune.data.columns import numbers_of

        return numbers_of(data, self.options.target)

    def check_model(self, model: Any) -> None:
        """Refuse an encoder-decoder that could not be pooled."""
        if not self.pooling:
            check_read_out(model, self.tokenizer)

    def recall(self, known: Mapping[str, Any]) -> None:
        self.scale = Scale(float(known.get(MEAN, 0.0)), float(known.get(SD, 1.0)))

    def stand_ins(self) -> dict[str, Any]:
        return {self.options.target: self.scale.mean}

    def model_config(self) -> dict[str, Any]:
        return {
            "num_labels": 1,
            "pad_token_id": self.tokenizer.pad_token_id,
            "problem_type": "regression",
            MEAN: self.scale.mean,
            SD: self.scale.sd,
        }

    def handed_over(self, model: torch.nn.Module, config: Mapping[str, Any]) -> torch.nn.Module:
        """Let ``model`` give numbers in the data's unit."""
        mean, sd = config[MEAN], config[SD]

        def in_unit(module: torch.nn.Module, given: Any, output: Any) -> Any:
            output.logits = output.logits * sd + mean
            return output

        model.register_forward_hook(in_unit)
        return model

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        inputs, cut = tokenised(data, self.inputs(), self.tokenizer, self.options.max_length)
        values = self._numbers(data)
        rows = zip(data["example"][:], inputs, self.scale.learnt(values).tolist(), values.tolist(), strict=True)
        examples = [Example(number, own, target, 1.0, repr(value)) for number, own, target, value in rows]
        return EncodedRows(examples, Counter(cut=cut))

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        values = self._numbers(data)
        found = {"mean": values.mean(), "sd": values.std(), "min": values.min(), "max": values.max()}
        facts = {"numbers": {name: float(value) for name, value in found.items()}}
        return replace(encoded, facts=facts | encoded.facts | counts)

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        return padded(examples, self.tokenizer)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        import torch

        logits = model(**batch.inputs).logits.float()
        owners = torch.arange(len(logits), device=logits.device)
        return Numbers(logits, batch.targets, owners, len(logits), delta=self.delta)

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        import torch

        logits = logits_alone(model, example)
        target = torch.tensor([example.target], device=logits.device)
        return Numbers(logits, target, torch.zeros(1, dtype=torch.long, device=logits.device), 1, delta=self.delta)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        found = self.outputs(model, batch)
        return self.answers(found.logits[:, 0].double().cpu().numpy(), found.losses().tolist())

    def answers(self, learnt: np.ndarray, losses: Sequence[float]) -> list[Prediction]:
        """Make predictions of numbers (N,) in the unit that is learnt, written with all their digits."""
        said = self.scale.said(learnt).tolist()
        return [Prediction(repr(value), loss) for value, loss in zip(said, losses, strict=True)]

    def trivial(self, examples: Sequence[Example]) -> Trivial | None:
        wanted = np.array([float(example.reference) for example in examples])
        return Trivial("always giving the training mean", "squared error", (wanted - self.scale.mean) ** 2, False)

    def measured(self, columns: Columns) -> np.ndarray:
        said, wanted = numbers(columns)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray((said - wanted) ** 2)

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.numbers import FrozenRidge, TfidfRidge, TrainingMean

        def answers(learnt: np.ndarray, examples: Sequence[Example]) -> list[Prediction]:
            import torch

            targets = torch.tensor([example.target for example in examples], dtype=torch.float64)
            logits, owners = torch.from_numpy(learnt)[:, None], torch.arange(len(learnt))
            losses = Numbers(logits, targets, owners, len(learnt), delta=self.delta).losses()
            return self.answers(learnt, losses.tolist())

        return [TrainingMean(answers), TfidfRidge(answers, self.shown), FrozenRidge(answers)]
