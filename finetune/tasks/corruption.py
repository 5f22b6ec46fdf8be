"""Span corruption: what T5 was trained with (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a
Unified Text-to-Text Transformer", section 3.1.4), and how many bytes of a text its tokens stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINEL = re.compile(r"<extra_id_(\d+)>")


def sentinels_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[int]:
    """List the numbers of the tokens `<extra_id_0>`, `<extra_id_1>`, ... that are below ``rows``, in that order."""
    found = {int(match[1]): number for word, number in tokenizer.get_vocab().items() if (match := SENTINEL.match(word))}
    return [found[place] for place in sorted(found) if found[place] < rows]


def span_counts(tokens: int, share: float, mean: float) -> tuple[int, int]:
    """Compute how many of so many ``tokens`` (2 or more) are hidden, and in how many spans of ``mean`` length: one at
    least, and no more than there are tokens to stand between them."""
    hidden = min(max(round(share * tokens), 1), tokens - 1)
    return hidden, min(max(round(hidden / mean), 1), hidden, tokens - hidden)


def draw_spans(tokens: int, share: float, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Draw which tokens are hidden, (tokens,) bool: spans that are kept and spans that are hidden take turns, and a
    text begins with one that is kept, as in T5's `random_spans_noise_mask`."""
    hidden, spans = span_counts(tokens, share, mean)
    lengths = np.stack([_parts(tokens - hidden, spans, rng), _parts(hidden, spans, rng)], 1).flatten()
    return np.repeat(np.tile([False, True], spans), lengths)


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cut ``total`` into ``count`` parts of 1 or more, every way being as likely: (count,)."""
    cuts = np.sort(rng.permutation(total - 1)[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupted(ids: np.ndarray, hidden: np.ndarray, sentinels: Sequence[int], end: int) -> tuple[np.ndarray, np.ndarray]:
    """Make of ``ids`` (tokens,) what the encoder sees, with one sentinel for each hidden span, and the labels: each
    sentinel with what it stands for, and one more to say that this is all. Both end with ``end``."""
    begins = hidden & ~np.concatenate([[False], hidden[:-1]])
    number = np.asarray(sentinels)[np.cumsum(begins) - 1]
    seen = np.where(begins, number, ids)[begins | ~hidden]
    spans = int(begins.sum())
    answer = [part for place in range(spans) for part in ([sentinels[place]], ids[_span(begins, hidden, place)])]
    return np.append(seen, end), np.concatenate([*answer, [sentinels[spans], end]]).astype(np.int64)


def _span(begins: np.ndarray, hidden: np.ndarray, place: int) -> np.ndarray:
    return hidden & (np.cumsum(begins) == place + 1)


def restored(seen: np.ndarray, labels: np.ndarray, sentinels: Sequence[int]) -> list[int]:
    """Put what the ``labels`` say back into what the encoder has ``seen``."""
    known, spans, current = set(sentinels), dict[int, list[int]](), -1
    for token in labels.tolist():
        if token in known:
            current = token
            spans[current] = []
        elif current >= 0:
            spans[current].append(token)
    return [token for own in seen.tolist() for token in (spans.get(own, []) if own in known else [own])]


def bytes_before(text: str) -> np.ndarray:
    """Count the bytes in UTF-8 before each character of ``text``, and of all: (characters + 1,)."""
    if text.isascii():
        return np.arange(len(text) + 1)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([[0], np.cumsum(sizes)])
