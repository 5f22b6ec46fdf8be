"""Conversations as text, and which part of that text an answer is: the groundwork of the chat task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input
from finetune.core.examples import Frame
from finetune.core.progress import parts
from finetune.tasks.control import MARKS, without_tokens

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from finetune.tasks.control import Marker

IGNORED = -100
"""Label of a token that is not learnt."""


@dataclass(frozen=True)
class Conversation:
    """A conversation as text, and which parts of it are answers."""

    text: str
    """Control tokens that the data hold have marks around them."""
    answers: list[tuple[int, int]]
    """Character spans of the answers, each with the token that ends it; the last one ends the text."""
    frame: Frame = field(default_factory=Frame)
    """What the template puts around the last answer's own words."""

    def last_answer(self, special: tuple[str, ...]) -> str:
        """Give the last answer in words, without what stands around them and without ``special`` tokens."""
        begin, end = self.answers[-1]
        answer = without_tokens(self.frame.after_lead(self.text[begin:end]), special)
        return self.frame.before_tail(answer).strip()


@dataclass(frozen=True)
class Tokens:
    """A conversation as the model sees it: token numbers (tokens,), and what of them is learnt."""

    ids: np.ndarray
    labels: np.ndarray
    """(tokens,) the token itself inside an answer, -100 elsewhere."""
    prompt: np.ndarray
    """All that comes before the last answer."""


def refuse_unfit(tokenizer: PreTrainedTokenizerBase, template: bool) -> None:
    """Refuse a tokenizer that cannot make conversations, with its chat ``template`` or without one."""
    if tokenizer.eos_token is None:
        raise bad_input("model.source", "its tokenizer has no end token", "an answer could never end; set eos_token")
    if template and not tokenizer.chat_template:
        raise bad_input(
            "task.template",
            "this model's tokenizer has no chat template",
            "use a chat model, or write task.template: none to join prompt and completion as they are",
        )
    if not template and tokenizer("a").input_ids[-1] == tokenizer.eos_token_id:
        raise bad_input(
            "task.template",
            "this tokenizer ends every text with the end token, so prompts would end before their answers",
            "use the model's chat template, or a tokenizer without that habit",
        )


def mistake_in_pair(chosen: Tokens, rejected: Tokens) -> str | None:
    """Say in words what is wrong with two answers that are to be compared; None when nothing is."""
    if chosen.prompt.tolist() != rejected.prompt.tolist():
        return "the rejected answer is one to something else than the chosen one"
    if chosen.ids.tolist() == rejected.ids.tolist():
        return f"the chosen and the rejected answer are the same, up to their {len(chosen.ids)} tokens with the prompt"
    return None


def joined(prompt: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> Conversation:
    """Join prompt and answer as they are, and the end token. An empty prompt before which the tokenizer puts nothing is
    the token that begins a text, or else ends one: an answer follows something."""
    if not prompt and not tokenizer("").input_ids:
        prompt = str(tokenizer.bos_token or tokenizer.eos_token)
    text = prompt + answer + str(tokenizer.eos_token)
    return Conversation(text, [(len(prompt), len(text))])


def tokenise(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    add_special: bool,
    marker: Marker | None = None,
) -> list[Tokens]:
    """Compute tokens and labels; ``add_special``: the tokenizer puts its own special tokens (such as a first one)
    around; ``marker`` has marked the control tokens that are data.

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
    """Label the tokens of the answers; ``cuts``: the first token of each answer and the one after its last, in turn."""
    import numpy as np

    labels = np.full(len(ids), IGNORED, dtype=np.int64)
    for begin, end in zip(cuts[::2], cuts[1::2], strict=True):
        labels[begin:end] = ids[begin:end]
    labels[:1] = IGNORED  # nothing comes before the first token that could predict it
    return Tokens(ids, labels, ids[: cuts[-2]])


def shortened(tokens: Tokens, limit: int, refuse: bool, where: str) -> Tokens:
    """Keep the first ``limit`` tokens, of which some must be learnt. Raises InputError, with ``where`` the row stands,
    for longer ones where they are to be ``refuse``d, and where none would be learnt."""
    ids, labels = tokens.ids, tokens.labels
    if len(ids) <= limit:  # one of a pair
        return tokens
    if refuse:
        raise bad_input(
            "task.max_length",
            f"{where} has {len(ids)} tokens, more than {limit}",
            f"raise task.max_length to {len(ids)}, or write task.too_long: cut",
        )
    if (labels[:limit] == IGNORED).all():
        raise bad_input(
            "task.max_length",
            f"{where} has {len(ids)} tokens, and its answer begins after the first {limit}: cut there, "
            "nothing of it would be learnt",
            "raise task.max_length, shorten the prompt ({body:.800} in data.columns), or write task.too_long: drop",
        )
    return replace(tokens, ids=ids[:limit], labels=labels[:limit])


def words_in(ids: Sequence[int], frame: Frame, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> str:
    """Decode the words of a generated answer, ``ids`` up to one of ``ends``, without its ``frame``. Decoding leaves
    special tokens out, and the frame may have some, so that it is looked for with them."""

    def decode(part: Sequence[int], whole: bool) -> str:
        return str(tokenizer.decode(list(part), skip_special_tokens=not whole))

    ids = ids[: next((place for place, each in enumerate(ids) if each in ends), len(ids))]
    text = decode(ids, True)
    after = frame.after_lead(text)
    begin = next(place for place in range(len(ids) + 1) if len(decode(ids[place:], True)) <= len(after))
    return frame.before_tail(decode(ids if after == text else ids[begin:], False)).strip()
