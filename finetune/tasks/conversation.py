"""Conversations as text, and which part of that text an answer is: the groundwork of the chat task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any

from finetune.errors import bad_input
from finetune.progress import parts

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that is not learnt."""


@dataclass(frozen=True)
class Conversation:
    """A conversation as text, and which parts of it are answers."""

    text: str
    answers: list[tuple[int, int]]
    """Character spans of the answers, each with the token that ends it; the last one ends the text."""

    def last_answer(self, special: tuple[str, ...]) -> str:
        """The last answer in words, without the ``special`` token that ends it."""
        begin, end = self.answers[-1]
        answer = self.text[begin:end]
        for token in special:
            answer = answer.removesuffix(token)
        return answer.strip()


@dataclass(frozen=True)
class Tokens:
    """A conversation as the model sees it: token numbers (tokens,), and what of them is learnt."""

    ids: np.ndarray
    labels: np.ndarray
    """(tokens,) the token itself inside an answer, -100 elsewhere."""
    prompt: np.ndarray
    """All that comes before the last answer."""


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Tokens that decoding leaves out, the longest first. A tokenizer names only some of them as its own."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens), key=lambda token: (-len(token), token)))


def readable(value: Any) -> str:
    """A task's input as people read it: of messages, what comes before the last answer, a paragraph for each turn."""
    if not isinstance(value, list):
        return str(value)
    messages: list[dict[str, str]] = value
    last = max(turn for turn, message in enumerate(messages) if message["role"] == "assistant")
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages[:last])


def mistake_in(messages: Any) -> str | None:
    """What is wrong with a list of messages, in words; None when nothing is."""
    if not isinstance(messages, list) or not messages:
        return f"is {type(messages).__name__} where a list of messages is wanted"
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return f"holds {message!r:.60} where a message with role and content is wanted"
        if not isinstance(message["content"], str) or not isinstance(message["role"], str):
            return f"has a message whose role or content is not text: {message!r:.60}"
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        return "has no answer by the assistant"
    if messages[0]["role"] == "assistant":
        return "begins with the assistant, so there is nothing to answer"
    return None


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


def templated(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, special: tuple[str, ...]
) -> Conversation:
    """Render ``messages``, up to the last answer, with the model's own template; ``special``: its special tokens.

    What an answer adds to the text that asks for it is what is learnt. This works for any template that shows
    earlier turns as it showed them when they were last, and needs no markers inside the template; for any other
    :class:`InputError` is raised, because such a model would be asked something else than what it learnt.
    """
    end = str(tokenizer.eos_token)
    turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    spans, after = [], ""
    for turn in turns:
        before = _render(messages[:turn], tokenizer, asking=True)
        former, after = after, _closed(_render(messages[: turn + 1], tokenizer, asking=False), before, end, special)
        if not after.startswith(before) or not after.startswith(former):
            raise bad_input(
                "task.template",
                "the model's chat template shows an answer differently once the conversation goes on, or without the "
                "words that ask for it, so what is learnt would not be what is later asked",
                "give single-turn conversations, or prompt and completion with task.template: none",
            )
        spans.append((len(before), len(after)))
    text = after if after.endswith(special) else after + end
    return Conversation(text, [*spans[:-1], (spans[-1][0], len(text))])


def _render(messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, asking: bool) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asking))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise bad_input(
            "task.template",
            f"the model's chat template refuses the turns {roles}: {error}",
            "change the conversations, leave task.system out, or use prompt and completion with task.template: none",
        ) from error


def _closed(text: str, before: str, end: str, special: tuple[str, ...]) -> str:
    """``text``, which an answer follows ``before`` in, up to the token that closes the answer's turn.

    Many templates put a line break behind that token, and some an end token behind that, when nothing follows
    (Phi-3): neither is something the model has to say.
    """
    text = text.rstrip()
    shorter = text.removesuffix(end).rstrip()
    return shorter if shorter.endswith(special) and shorter.startswith(before) else text


def tokenise(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, add_special: bool
) -> list[Tokens]:
    """Tokens and labels; ``add_special``: the tokenizer puts its own special tokens (such as a first one) around.

    Where answers begin and end is found by tokenising what comes before. The characters that tokenizers give for
    each token would not do: many leave spaces out of them.
    """

    import numpy as np

    def encode(texts: list[str], add: bool) -> list[list[int]]:
        found: list[list[int]] = []
        for some in parts(len(texts), "tokenising"):
            own = texts[some.start : some.stop]
            found += tokenizer(own, add_special_tokens=add, return_attention_mask=False)["input_ids"]
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
