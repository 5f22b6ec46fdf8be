"""What a task is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetune import options
from finetune.tasks.batching import Batching
from finetune.tasks.conversation import Frame
from finetune.tasks.messages import readable

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.models.pooling import Pooling


@dataclass(frozen=True)
class Example:
    """One encoded example."""

    number: int
    """Its row in the data set it comes from; where rows are divided, its place among all pieces."""
    inputs: dict[str, np.ndarray]
    """Model inputs by name, each (tokens,)."""
    target: Any
    """What the loss compares with: a class number, or one label per token (-100: not learnt)."""
    weight: float
    """What it counts when a loss is averaged: its label tokens, or 1."""
    reference: str
    """The right answer in words."""
    prompt: np.ndarray | None = None
    """Tokens to generate from, (tokens,); None where nothing is generated."""
    frame: Frame = field(default_factory=Frame)
    """What stands around the words of an answer, and does not count when answers are compared."""
    rejected: int | None = None
    """Of a pair, whose sequences follow each other in inputs and target, the chosen answer's first: where the rejected
    one's begins. None: no pair."""

    @property
    def length(self) -> int:
        return len(self.inputs["input_ids"])

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """Of something that each token has, (tokens,), what each sequence has: one, or a pair's two."""
        return [values] if self.rejected is None else [values[: self.rejected], values[self.rejected :]]


@dataclass(frozen=True)
class Encoded:
    """A data set as the model sees it."""

    examples: list[Example]
    facts: dict[str, Any] = field(default_factory=dict)
    """Token counts, how many were cut or dropped, label counts: for the report's data section."""
    rows: list[int] | None = None
    """The row of the data set that each example is a piece of, where rows are divided into several examples."""
    notes: list[str] = field(default_factory=list)
    """What a person has to know about how it was read, a line each."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one example."""

    text: str
    loss: float
    """Negative log-likelihood of the right answer, summed over its label tokens, in nats."""
    probabilities: np.ndarray | None = None
    margin: float | None = None
    """By how much the right answer's log-likelihood exceeds that of the rejected one, in nats."""


@dataclass(frozen=True)
class Outputs:
    """What a model makes of the labels in a batch: L labels, C classes or tokens to choose from."""

    logits: torch.Tensor
    """(L, C) float32."""
    targets: torch.Tensor
    """(L,) the right choices."""
    owners: torch.Tensor
    """(L,) which of the batch's examples each label belongs to."""
    examples: int
    """How many examples there are."""

    def losses(self) -> torch.Tensor:
        """Negative log-likelihood of each example's labels, summed: (N,), nats."""
        from torch.nn.functional import cross_entropy

        return self.by_example(cross_entropy(self.logits, self.targets, reduction="none"))

    def by_example(self, values: torch.Tensor) -> torch.Tensor:
        """Sums (N,) over each example's labels of something that each label has, (L,)."""
        return values.new_zeros(self.examples).index_add(0, self.owners, values)


class Task:
    """What is learnt or scored: columns, encoding, model head, loss, predictions, metrics.

    A task is made from its options, then ``fit`` to the training data, which gives it the tokenizer and what it
    learns from the data (such as the set of labels). Shapes below: N examples in a batch, T columns of tokens.
    """

    name: ClassVar[str]
    Options: ClassVar[type[options.Options]]
    new_head: ClassVar[bool]
    """True when the task puts a newly initialised head on the base model."""
    example_score: ClassVar[str]
    """The metric that gives each single example its score in the prediction store."""

    tokenizer: PreTrainedTokenizerBase
    config: Callable[[], Any]
    """Reads the base model's configuration, for tasks that fit themselves to it."""
    today: date | None = None
    """The study's date, for what shows one; None: what the clock says."""
    labels: tuple[str, ...] = ()
    """The classes in the order of the head's outputs, for tasks that have classes."""
    batching: Batching = Batching.PACKED
    """What examples may share while they are learnt and scored, as far as the task itself lets them."""
    answering: Batching = Batching.PADDED
    """What prompts may share while they are answered."""
    pairs: bool = False
    """Whether it is to be learnt from pairs of answers: each training example is a pair then, and counts 1."""

    pooling: Pooling | None = None
    """How a head of our own gets one vector of a text's tokens; None: the architecture has its own way, or no head."""

    def __init__(self, options: Any):
        self.options = options

    @property
    def architecture(self) -> str:
        """The transformers Auto class that has the right head; known once the task is fitted."""
        raise NotImplementedError

    @property
    def group(self) -> str | None:
        """The column whose equal values belong together, for tasks with that option."""
        return getattr(self.options, "group", None)

    @property
    def causal(self) -> bool:
        """Whether each token is predicted from those before it."""
        return False

    @property
    def packing(self) -> bool:
        """Whether :meth:`collate` puts several examples into one row."""
        return False

    @property
    def redraws(self) -> bool:
        """Whether an example is another each time it is seen: then :meth:`drawn` says what it is."""
        return False

    def inputs(self) -> list[str]:
        """Columns that make two examples the same one, for duplicates and leaks."""
        raise NotImplementedError

    def converted(self, data: Dataset, at: str) -> Dataset:
        """``data``, read at recipe path ``at``, with the columns that this task works on, before they are checked."""
        return data

    def check(self, data: Dataset, at: str) -> None:
        """Raise :class:`InputError` when ``data``, read at recipe path ``at``, cannot serve this task."""
        raise NotImplementedError

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        """Learn from the training data what encoding needs; refuse splits that do not fit together."""
        self.tokenizer = tokenizer

    def positions(self, example: Example) -> int:
        """How many tokens the model has to have room for to learn or to score ``example``."""
        return example.length

    def check_config(self) -> None:
        """Raise :class:`InputError` when no model of the base's :attr:`config` can learn this task."""

    def check_model(self, model: Any) -> None:
        """Raise :class:`InputError` when ``model``, which may be without weights, cannot learn this task."""

    def model_config(self) -> dict[str, Any]:
        """Overrides of the model's configuration."""
        return {}

    def encode(self, data: Dataset, at: str, training: bool) -> Encoded:
        """Tokenise; only training examples may be dropped."""
        raise NotImplementedError

    def shown(self, data: Dataset, encoded: Encoded) -> list[str]:
        """What a person reads of each example of ``data``, in their order: the columns that are its input."""
        columns = [data[name] for name in self.inputs()]
        return ["\n\n".join(map(readable, row)) for row in zip(*columns, strict=True)]

    def drawn(self, example: Example, seed: int) -> Example:
        """A training example as it is seen once, decided by ``seed``; its weight and length stay as they are."""
        return example

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
        """Pad and stack: (rows, T) for each model input, `targets`, and `example`.

        ``examples`` come replica by replica, so many each as ``counts`` (R,) says, or are one's; in the batch too the
        rows of each replica stand together. `example` (rows, T) says which of ``examples`` each position belongs to,
        -1: padding.
        """
        raise NotImplementedError

    def way(self, model: torch.nn.Module, replicas: int = 1) -> str | None:
        """In words, for the log: how this task runs ``model``, found out by trying where that is necessary.

        To be asked before the first losses of a model of R ``replicas`` side by side, under the arithmetic (autocast)
        that they are computed in; a model of one finds out by itself.
        """
        return self.in_words(None)

    def in_words(self, way: object) -> str | None:
        """``way``, if there is one, and what else examples may not share."""
        shared = [self.batching] if self.batching >= Batching.SAME_LENGTH else []
        return ", ".join(map(str, [*([way] if way else []), *shared])) or None

    def packs(self, model: torch.nn.Module) -> bool:
        """Whether examples that :meth:`collate` has put into one row stay there when ``model`` runs."""
        return False

    def arranged(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A collated batch as ``model`` can take it, which :meth:`losses` does by itself: for who has to know where
        each example stands while the model runs."""
        return batch

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Negative log-likelihood of each example's target, summed over its label tokens: (N,), float32, nats."""
        raise NotImplementedError

    def margins(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """By how much each pair's chosen answer is likelier than its rejected one: the difference of their
        log-likelihoods, each summed over its label tokens, (N,), float32, nats. For tasks that have pairs."""
        raise NotImplementedError

    def outputs(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Outputs:
        """What :meth:`losses` are computed from, for who changes them; takes more memory where labels are many."""
        raise NotImplementedError

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        """The same of one example as a user of plain transformers gets it: from the model, called on its tokens (and
        their types) alone, of a pair on the chosen answer's."""
        raise NotImplementedError

    def predict(
        self, model: torch.nn.Module, examples: Sequence[Example], batch: dict[str, torch.Tensor]
    ) -> list[Prediction]:
        """One prediction for each of ``examples``, which ``batch`` holds; the text is empty where it is generated."""
        raise NotImplementedError

    def generate(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[str] | None:
        """What ``model`` answers to the prompts of ``examples``; None for tasks whose predictions say it already."""
        return None

    def majority(self, examples: Sequence[Example]) -> float | None:
        """Share of ``examples``, those that are scored, that always giving the commonest training answer gets right;
        None: no such thing."""
        return None


def model_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of a collated batch is meant for the model."""
    return {name: value for name, value in batch.items() if name not in ("targets", "example")}


def pad(rows: Sequence[np.ndarray], value: int, left: bool = False) -> torch.Tensor:
    """Stack rows of unequal length into (N, T), filled with ``value`` at the right, or at the left."""
    import torch

    width = max(len(row) for row in rows)
    stacked = np.full((len(rows), width), value, dtype=np.int64)
    for line, row in zip(stacked, rows, strict=True):
        if left:
            line[width - len(row) :] = row
        else:
            line[: len(row)] = row
    return torch.from_numpy(stacked)


def token_facts(lengths: Sequence[int]) -> dict[str, float]:
    """Mean and largest number of tokens."""
    return {"mean": round(float(np.mean(lengths)), 1), "max": int(np.max(lengths))} if lengths else {}
