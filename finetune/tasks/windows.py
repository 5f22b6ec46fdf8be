"""Long texts in windows: a question, and behind it as much of its text as there is room for, several times over.

Shapes: rows and T columns of a batch, a window a row; N examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from finetune.core.examples import Batch, Example, Outputs, pad
from finetune.tasks.spans import Span

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

PLACE, START, END = 1, 2, 4
"""What the target of a token is a sum of: an answer may begin and end here; the right one begins here, or ends here.
The first token of a window stands for no answer. A window with a part of the answer, and not all, has no right one."""

LEAST = 8
"""Tokens of a text that a window has at least: with fewer, it is the question that is too long."""


@dataclass(frozen=True)
class Pair:
    """A question and its whole text as tokens."""

    inputs: dict[str, np.ndarray]
    """Model inputs by name, each (tokens,)."""
    places: np.ndarray
    """(tokens, 2) characters of the text, from and to."""
    first: int
    """The first token of the text."""
    last: int
    """One beyond its last."""


def pairs_of(questions: Sequence[str], contexts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Pair]:
    """Tokenise each question with its context, however long it is."""
    found = tokenizer(
        list(questions),
        list(contexts),
        truncation=False,
        return_attention_mask=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    names = [name for name in found if name != "offset_mapping"]
    for row in range(len(questions)):
        own = [number for number, sequence in enumerate(found.sequence_ids(row)) if sequence == 1]
        inputs = {name: np.asarray(found[name][row], dtype=np.int32) for name in names}
        places = np.asarray(found["offset_mapping"][row], dtype=np.int32).reshape(-1, 2)
        first, last = (own[0], own[-1] + 1) if own else (0, 0)
        _leave_out_blanks(places[first:last], contexts[row])
        yield Pair(inputs, places, first, last)


def _leave_out_blanks(places: np.ndarray, text: str) -> None:
    """Give no place to tokens of ``text`` that are white space alone: no answer begins or ends there."""
    words = np.cumsum([0, *(not character.isspace() for character in text)])
    blank = words[places[:, 1]] == words[places[:, 0]]
    places[blank, 1] = places[blank, 0]


def room_of(pair: Pair, limit: int) -> int:
    """Count the tokens of the text for which a window of ``limit`` tokens has room beside the question."""
    return limit - (len(pair.places) - (pair.last - pair.first))


def windows_of(pair: Pair, limit: int, stride: int) -> list[np.ndarray]:
    """Divide a pair into windows of at most ``limit`` tokens, each with the whole question: the tokens of each.

    Neighbours have ``stride`` tokens of the text in common, at most half of it. The last one ends with the text and is
    as long as the others, so that the windows of an example need no padding among each other.
    """
    room, length = room_of(pair, limit), pair.last - pair.first
    before, after = np.arange(pair.first), np.arange(pair.last, len(pair.places))
    if length <= room:
        return [np.arange(len(pair.places))]
    starts = [*range(0, length - room, room - min(stride, room // 2)), length - room]
    return [np.concatenate([before, pair.first + start + np.arange(room), after]) for start in starts]


def target_of(pair: Pair, window: np.ndarray, answer: Span | None) -> np.ndarray:
    """Mark in a ``window`` where answers may stand and where the right one does, (tokens,): see :data:`PLACE`."""
    places = pair.places[window]
    of_text = (window >= pair.first) & (window < pair.last) & (places[:, 1] > places[:, 0])
    target = np.where(of_text, PLACE, 0).astype(np.int32)
    target[0] |= PLACE
    if answer is None:
        target[0] |= START | END
        return target
    own = pair.places[pair.first : pair.last]
    touched = pair.first + np.flatnonzero(
        (own[:, 1] > answer.start) & (own[:, 0] < answer.end) & (own[:, 1] > own[:, 0])
    )
    inside = np.flatnonzero(np.isin(window, touched))
    if len(touched) and not len(inside):  # all of it is elsewhere
        target[0] |= START | END
    elif len(touched) and len(inside) == len(touched):
        target[inside[0]] |= START
        target[inside[-1]] |= END
    return target


def learnable(target: np.ndarray) -> bool:
    """Tell whether a window has a right answer, be it none."""
    return bool((target & START).any())


def collated(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """A batch of one window a row, padded at the right, in the order of examples and their windows."""
    import torch

    counts = [1 if example.document is None else len(example.document.starts) for example in examples]
    filler = {"input_ids": tokenizer.pad_token_id}

    def rows(values: Sequence[np.ndarray], value: int) -> torch.Tensor:
        parts = [part for example, own in zip(examples, values, strict=True) for part in example.parts(own)]
        return pad(parts, value)

    inputs = {
        name: rows([example.inputs[name] for example in examples], filler.get(name, 0)) for name in examples[0].inputs
    }
    place = rows([np.arange(example.length) for example in examples], -1)
    real = place >= 0
    inputs["attention_mask"] = real.long()
    owners = torch.arange(len(examples)).repeat_interleave(torch.tensor(counts))
    return Batch(
        inputs,
        rows([example.target for example in examples], 0),
        example=owners[:, None].where(real, -1),
        place=place.clamp(min=0) if max(counts) > 1 else None,
    )


@dataclass(frozen=True)
class SpanOutputs(Outputs):
    """Logits of beginning and end (L, 2) at each place where an answer may stand, in the place of classes."""

    scores: torch.Tensor = field(kw_only=True)
    """(rows, T, 2) float32: the same where they stand, of all tokens."""
    marks: torch.Tensor = field(kw_only=True)
    """(rows, T) the target of each token; 0 at padding."""
    windows: torch.Tensor = field(kw_only=True)
    """(rows,) which example each window belongs to."""

    @classmethod
    def of(cls, scores: torch.Tensor, batch: Batch) -> SpanOutputs:
        """Sort out the model's ``scores``."""
        marks, windows = batch.targets, batch.example.amax(1)
        real = marks > 0
        owners = windows[:, None].expand_as(marks)[real]
        more = {"scores": scores, "marks": marks, "windows": windows}
        return cls(scores[real], marks[real], owners, batch.count, **more)

    def losses(self) -> torch.Tensor:
        """Compute the negative log-likelihoods of beginning and end, summed over each example's windows, (N,), nats.

        The softmax of each is over all places of a window where an answer may stand.
        """
        log_shares = self.scores.masked_fill((self.marks == 0)[..., None], -math.inf).log_softmax(1)
        losses = self.scores.new_zeros(len(self.windows))
        for mark, own in ((START, log_shares[..., 0]), (END, log_shares[..., 1])):
            losses = losses - own.where((self.marks & mark) > 0, 0.0).sum(1)
        return losses.new_zeros(self.examples).index_add(0, self.windows, losses)


@dataclass(frozen=True)
class Best:
    """The likeliest span of each window, each (rows,)."""

    start: np.ndarray
    """Column of its first token."""
    end: np.ndarray
    """Column of its last."""
    margin: np.ndarray
    """Its log-likelihood minus that of no answer in the same window, in nats."""
    chance: np.ndarray
    """Its log-likelihood, in nats."""


def best_spans(scores: torch.Tensor, marks: torch.Tensor, longest: int) -> Best:
    """Find the span of at most ``longest`` tokens with the largest sum of logits in each window, of all that there are.

    Of equally likely ones the shortest, and of these the first. ``scores`` and ``marks`` are as in
    :class:`SpanOutputs`.
    """
    import torch

    scores = scores.masked_fill((marks == 0)[..., None], -math.inf)
    starts, ends = scores[:, 1:, 0], scores[:, 1:, 1]
    found = scores.new_full((len(scores),), -math.inf)
    first = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    extra = torch.zeros_like(first)
    for more in range(min(longest, starts.shape[1])):
        value, where = (starts[:, : starts.shape[1] - more] + ends[:, more:]).max(1)
        better = value > found
        found, first, extra = found.where(~better, value), first.where(~better, where), extra.where(~better, more)
    margin, chance = found - scores[:, 0].sum(1), found - scores.logsumexp(1).sum(1)
    places = ((first + 1).cpu().numpy(), (first + extra + 1).cpu().numpy())
    return Best(*places, margin.double().cpu().numpy(), chance.double().cpu().numpy())
