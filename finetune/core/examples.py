"""Examples, what a model makes of them, and what it says of them: the currency between rooms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

PART = "part"
"""Among an example's inputs, where it is several texts: the number of the text that each token belongs to, (tokens,).
No model is given it."""

_TAG = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
"""Such as `</think>` or `[/THINK]`."""


@dataclass(frozen=True)
class Frame:
    """Text that a template puts around an answer's own words, such as an empty think block before them: it is learnt,
    and does not count when answers are compared."""

    lead: str = ""
    tail: str = ""

    def __bool__(self) -> bool:
        return bool(self.lead.strip() or self.tail.strip())

    def after_lead(self, answer: str) -> str:
        """``answer`` without the lead. What closes with a tag, as reasoning does, may hold something else than ours;
        where it was begun and is not closed, there is no answer yet."""
        lead, begins = self.lead.strip(), answer.lstrip()
        if begins.startswith(lead):
            return begins[len(lead) :] if lead else answer
        tags = _TAG.findall(lead)
        opens, closes = bool(tags) and lead.startswith(tags[0]), bool(tags) and lead.endswith(tags[-1])
        if not closes or (opens and (len(tags) == 1 or not begins.startswith(tags[0]))):
            return answer
        return begins.partition(tags[-1])[2]

    def before_tail(self, answer: str) -> str:
        """``answer``, which ends with no special token, without the tail."""
        return answer.rstrip().removesuffix(self.tail.strip()) if self.tail.strip() else answer


@dataclass(frozen=True)
class Document:
    """A text of which answers are parts, as a model is shown it: in one window or in several, sequences that follow
    each other in an example's inputs and target."""

    text: str
    places: np.ndarray
    """(tokens, 2) int32: the characters of the text that each token stands for, from and to; of a token of another
    text, anything."""
    starts: np.ndarray
    """(windows,) int32: the token with which each window begins, the first with 0."""


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
    """What it counts when a loss is averaged: its label tokens, 1, or the weight of its class; 0 where its right answer
    is none that the model could give, and it has no loss."""
    reference: str
    """The right answer in words."""
    prompt: np.ndarray | None = None
    """Tokens to generate from, (tokens,); None where nothing is generated."""
    frame: Frame = field(default_factory=Frame)
    """What stands around the words of an answer, and does not count when answers are compared."""
    rejected: int | None = None
    """Of a pair, whose sequences follow each other in inputs and target, the chosen answer's first: where the rejected
    one's begins. None: no pair."""
    bytes: float | None = None
    """Bytes in UTF-8 of the text that its label tokens stand for; None where that is not known."""
    branch: np.ndarray | None = None
    """Of an example with several candidate answers, (tokens,): which of them each token belongs to, from 1; 0: the ones
    before the candidates that follow, and common to these. What is common may come again, with other candidates behind
    it, whose numbers go on. None: there are no candidates."""
    sizes: np.ndarray | None = None
    """(candidates,) characters of each candidate's text, where they are compared by likelihood."""
    document: Document | None = None
    """Of a task whose answers are parts of a text, that text; None where nothing is to be answered, as in training."""
    origin: tuple[int, int] | None = field(default=None, compare=False)
    """The set in which it is kept, and its place there; None: nowhere. What is made of it has none."""

    @property
    def length(self) -> int:
        return len(self.inputs["input_ids"])

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """Split ``values`` of the tokens, (tokens,), into those of each sequence: one, a pair's two, or all texts'; of
        each window of a document; or of each candidate, and of what each group of them has in common."""
        if self.document is not None:
            return np.split(values, self.document.starts[1:])
        if PART in self.inputs:
            return np.split(values, np.flatnonzero(np.diff(self.inputs[PART])) + 1)
        if self.branch is not None:
            return np.split(values, np.flatnonzero(np.diff(self.branch)) + 1)
        return [values] if self.rejected is None else [values[: self.rejected], values[self.rejected :]]


@dataclass(frozen=True)
class Batch:
    """N examples laid out for one pass through a model, in rows of T columns of tokens."""

    inputs: dict[str, torch.Tensor]
    """What the model is called with, by its own names: `input_ids` and others, (rows, T) each."""
    targets: torch.Tensor
    """What the losses compare with: (N,) a class or a number of each example, (N, K) whether each of K labels is right,
    or (rows, T) a label of each position (-100: not learnt)."""
    example: torch.Tensor
    """(rows, T) which of the examples each position belongs to, from 0; -1: padding."""
    place: torch.Tensor | None = None
    """Of examples that are pairs, more texts, candidates, or documents in windows, (rows, T) the position inside the
    example, whose sequences follow each other; None: each example is one sequence."""
    branch: torch.Tensor | None = None
    """(rows, T) of examples with candidates, as :attr:`Example.branch` has it; 0 at padding. None: they have none."""
    weights: torch.Tensor | None = None
    """(N,) what each example counts where its loss is not the plain one of its label tokens; None: all count 1."""

    @property
    def count(self) -> int:
        """Count the examples, N."""
        return int(self.example.max()) + 1

    @property
    def positions(self) -> torch.Tensor:
        """The position of each token inside its sequence, (rows, T)."""
        import torch

        own = self.inputs.get("position_ids")
        counted = torch.arange(self.example.shape[1], device=self.example.device) if own is None else own
        return counted.expand_as(self.example)

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The same on ``device``; ``non_blocking``: whoever copies does not wait for it."""

        def moved(value: torch.Tensor) -> torch.Tensor:
            return value.to(device, non_blocking=non_blocking)

        optional = {"place": self.place, "branch": self.branch, "weights": self.weights}
        more = {name: None if own is None else moved(own) for name, own in optional.items()}
        inputs = {name: moved(value) for name, value in self.inputs.items()}
        return replace(self, inputs=inputs, targets=moved(self.targets), example=moved(self.example), **more)


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one example, and its losses."""

    text: str
    loss: float | None
    """Negative log-likelihood of the right answer, summed over its label tokens, in nats; 0 for an example of weight 0;
    None where what answers has none, such as a baseline that copies."""
    probabilities: np.ndarray | None = None
    margin: float | None = None
    """By how much the right answer's log-likelihood exceeds that of the rejected one, in nats; of a span, by how much
    its own exceeds that of no answer."""
    vectors: np.ndarray | None = None
    """Of tasks that compare examples with each other: what :meth:`finetune.tasks.base.Task.completed` makes the answer
    of."""
    margin_norm: float | None = None
    """By how much the right choice's log-likelihood exceeds that of the best other one, each divided by the characters
    of its text, in nats per character."""
    answers: tuple[Any, ...] = ()
    """Of tasks that ask by themselves, what the model has answered to each question about the example: what
    :meth:`finetune.tasks.base.Task.completed` makes the rest of."""
    own: Mapping[str, float] = field(default_factory=dict)
    """By the name of a metric of the task's own, what the example contributes to it."""
    chances: np.ndarray | None = None
    """Probabilities of parts of the answer, which no store has: (labels,) of each label where several may be right;
    (words,) of each word's tag; (2,) of a span, and of no answer. None: there are none."""


@dataclass(frozen=True)
class Outputs:
    """A model's outputs for the labels of a batch: L labels, C classes or tokens to choose from."""

    logits: torch.Tensor
    """(L, C) float32."""
    targets: torch.Tensor
    """(L,) the right choices."""
    owners: torch.Tensor
    """(L,) which of the batch's examples each label belongs to."""
    examples: int
    """How many examples there are."""
    weights: torch.Tensor | None = None
    """(N,) what each example counts, by which all that is added up over its labels is multiplied; None: 1."""
    absent: torch.Tensor | None = None
    """(L, C) True at what is no choice there, whose logit is far below all others; None: all are choices everywhere."""

    def losses(self) -> torch.Tensor:
        """Compute the negative log-likelihood of each example's labels, summed, times its weight: (N,), nats."""
        from torch.nn.functional import cross_entropy

        return self.by_example(cross_entropy(self.logits, self.targets, reduction="none"))

    def mean_logits(self) -> torch.Tensor:
        """Compute the mean logit of what there is to choose from: (L,)."""
        if self.absent is None:
            return self.logits.mean(1)
        return self.logits.masked_fill(self.absent, 0).sum(1) / (~self.absent).sum(1)

    def by_example(self, values: torch.Tensor) -> torch.Tensor:
        """Sum ``values`` of the labels, (L,), over each example's labels, times its weight: (N,)."""
        found = values.new_zeros(self.examples).index_add(0, self.owners, values)
        return found if self.weights is None else found * self.weights


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


def lengths_of(examples: Sequence[Example]) -> np.ndarray:
    """(examples,) int64: how many tokens each of them has."""
    known: np.ndarray | None = getattr(examples, "lengths", None)
    return np.array([example.length for example in examples], np.int64) if known is None else known


def weights_of(examples: Sequence[Example]) -> np.ndarray:
    """(examples,) float64: the weight of each of them."""
    known: np.ndarray | None = getattr(examples, "weights", None)
    return np.array([example.weight for example in examples], np.float64) if known is None else known


def token_facts(lengths: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Mean and largest number of tokens."""
    return {"mean": round(float(np.mean(lengths)), 1), "max": int(np.max(lengths))} if len(lengths) else {}
