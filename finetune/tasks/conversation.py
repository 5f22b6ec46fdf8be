"""Conversations as text, and which part of that text an answer is: the groundwork of the chat task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING

from finetune.errors import bad_input
from finetune.progress import parts
from finetune.tasks.control import MARKS, without_tokens

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from finetune.tasks.control import Marker

IGNORED = -100
"""Label of a token that is not learnt."""

_TAG = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
"""Such as `</think>` or `[/THINK]`."""


@dataclass(frozen=True)
class Frame:
    """What a template puts around an answer's own words, such as an empty think block before them: it is learnt, and
    does not count when answers are compared."""

    lead: str = ""
    tail: str = ""

    def __bool__(self) -> bool:
        return bool(self.lead.strip() or self.tail.strip())

    def inside(self, answer: str, special: Sequence[str] = ()) -> str:
        """``answer`` without lead and tail, and without the ``special`` tokens that it may end with."""
        answer = self._after_lead(answer)
        for token in special:
            answer = answer.rstrip().removesuffix(token) if answer.rstrip().endswith(token) else answer
        return answer.rstrip().removesuffix(self.tail.strip()) if self.tail.strip() else answer

    def _after_lead(self, answer: str) -> str:
        """What closes with a tag, as reasoning does, may hold something else than our lead. Where it was begun and is
        not closed, there is no answer yet."""
        lead, begins = self.lead.strip(), answer.lstrip()
        if begins.startswith(lead):
            return begins[len(lead) :] if lead else answer
        tags = _TAG.findall(lead)
        opens, closes = bool(tags) and lead.startswith(tags[0]), bool(tags) and lead.endswith(tags[-1])
        if not closes or (opens and (len(tags) == 1 or not begins.startswith(tags[0]))):
            return answer
        return begins.partition(tags[-1])[2]


@dataclass(frozen=True)
class Conversation:
    """A conversation as text, and which parts of it are answers."""

    text: str
    """Control tokens that the data hold have marks around them."""
    answers: list[tuple[int, int]]
    """Character spans of the answers, each with the token that ends it; the last one ends the text."""
    frame: Frame = Frame()
    """What the template puts around the last answer's own words."""

    def last_answer(self, special: tuple[str, ...]) -> str:
        """The last answer in words, without what stands around them and without ``special`` tokens."""
        begin, end = self.answers[-1]
        return without_tokens(self.frame.inside(self.text[begin:end], special), special).strip()


@dataclass(frozen=True)
class Tokens:
    """A conversation as the model sees it: token numbers (tokens,), and what of them is learnt."""

    ids: np.ndarray
    labels: np.ndarray
    """(tokens,) the token itself inside an answer, -100 elsewhere."""
    prompt: np.ndarray
    """All that comes before the last answer."""


def mistake_in_pair(chosen: Tokens, rejected: Tokens) -> str | None:
    """What is wrong with two answers that are to be compared, in words; None when nothing is."""
    if chosen.prompt.tolist() != rejected.prompt.tolist():
        return "the rejected answer is one to something else than the chosen one"
    if chosen.ids.tolist() == rejected.ids.tolist():
        return f"the chosen and the rejected answer are the same, up to their {len(chosen.ids)} tokens with the prompt"
    return None


def joined(prompt: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> Conversation:
    """Prompt and answer as they are, and the end token."""
    text = prompt + answer + str(tokenizer.eos_token)
    return Conversation(text, [(len(prompt), len(text))])


def tokenise(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    add_special: bool,
    marker: Marker | None = None,
) -> list[Tokens]:
    """Tokens and labels; ``add_special``: the tokenizer puts its own special tokens (such as a first one) around;
    ``marker`` has marked the control tokens that are data.

    Where answers begin and end is found by tokenising what comes before. The characters that tokenizers give for
    each token would not do: many leave spaces out of them.
    """

    import numpy as np

    def encode(texts: list[str], add: bool) -> list[list[int]]:
        found: list[list[int]] = []
        for some in parts(len(texts), "tokenising"):
            own = texts[some.start : some.stop]
            found += tokenizer(own, add_special_tokens=add, return_attention_mask=False)["input_ids"]
        for place, text in enumerate(texts if marker else []):
            if marker and MARKS[0] in text:
                found[place] = marker.encode(text, add)
        return found

    cuts = [[cut for span in conversation.answers for cut in span] for conversation in conversations]
    heads = iter(
        encode([talk.text[:cut] for talk, own in zip(conversations, cuts, strict=True) for cut in own], add_special)
    )
    found = []
    for conversation, own in zip(conversations, cuts, strict=True):
        *starts, ids = [next(heads) for _ in own]
        lengths = [len(start) for start in starts]
        if any(ids[: len(start)] != start for start in starts):
            # A token spans the place where an answer begins (a prompt that ends in a space). It is split there, since
            # whoever asks gives the prompt alone.
            pieces = [conversation.text[begin:cut] for begin, cut in pairwise([0, *own])]
            apart = [*encode(pieces[:1], add_special), *encode(pieces[1:], False)]
            ids, lengths = list(chain(*apart)), list(accumulate(map(len, apart)))[:-1]
        found.append(_label(np.asarray(ids, dtype=np.int32), [*lengths, len(ids)]))
    return found


def _label(ids: np.ndarray, cuts: list[int]) -> Tokens:
    """``cuts``: the first token of each answer and the one after its last, in turn."""
    import numpy as np

    labels = np.full(len(ids), IGNORED, dtype=np.int64)
    for begin, end in zip(cuts[::2], cuts[1::2], strict=True):
        labels[begin:end] = ids[begin:end]
    labels[:1] = IGNORED  # nothing comes before the first token that could predict it
    return Tokens(ids, labels, ids[: cuts[-2]])
