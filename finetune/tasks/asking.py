"""Prompts and candidate answers to them as tokens, through the model's chat template or joined as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input
from finetune.tasks.control import Marker, special_tokens
from finetune.tasks.conversation import Conversation, refuse_unfit, tokenise
from finetune.tasks.templates import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = 32
"""Characters of a prompt's end on which the tokens of an answer may depend: more than a word and what is around it."""

Tokens = Sequence[int]


class Asking:
    """Asks for answers. With the chat template the prompt is the user's turn, an answer the assistant's, up to the
    token that ends it; without one an answer follows the prompt after a space, and nothing follows it, as in
    lm-evaluation-harness."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None, today: date | None):
        """``template``: `model`, `none`, or None for `model` where there is one. Raises InputError for `model` where
        there is none."""
        self.tokenizer = tokenizer
        self.shown_by: Template | None = None
        if template == "model" or (template is None and tokenizer.chat_template):
            refuse_unfit(tokenizer, True)
            self.shown_by = Template(tokenizer, today or date.today())
        special = special_tokens(tokenizer)
        self.marker = self.shown_by.of_others if self.shown_by else Marker(tokenizer, special)
        self._known: dict[tuple[str, str], list[int]] = {}

    def tokens(self, prompt: str, answers: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Give the tokens of ``prompt``, and of each of ``answers`` behind it."""
        whole = self.conversations(prompt, answers)
        begin = whole[0].answers[-1][0]
        end = whole[0].text[:begin][-END:]
        missing = [one for one in whole if (end, one.text[begin:]) not in self._known]
        asked = tokenise([*missing, *whole[: not missing]], self.tokenizer, self.shown_by is None, self.marker)
        found = asked[0].prompt.tolist()
        for one, tokens in zip(missing, asked, strict=False):
            self._known[end, one.text[begin:]] = tokens.ids[len(found) :].tolist()
        answered = [self._known[end, one.text[begin:]] for one in whole]
        if len(self._known) > 1 << 16:  # of choices that each question has of its own
            self._known.clear()
        return found, answered

    def conversations(self, prompt: str, answers: Sequence[str]) -> list[Conversation]:
        """Write the prompt with each answer as text."""
        if self.shown_by is None:
            asked = self.marker.mark(prompt) or str(self.tokenizer.bos_token or self.tokenizer.eos_token or "")
            space = "" if not prompt or prompt[-1].isspace() else " "
            texts = [f"{asked}{space}{self.marker.mark(answer)}" for answer in answers]
            return [Conversation(text, [(len(asked), len(text))]) for text in texts]
        first = self.shown_by.conversation([_said("user", prompt), _said("assistant", answers[0])])
        begin, end = first.answers[-1]
        marked = [self.shown_by.of_answers.mark(answer.strip()) for answer in answers]
        lead, found, tail = first.text[begin:end].partition(marked[0])
        if not found:
            raise bad_input(
                "task.template",
                f"the model's chat template does not show the answer {answers[0]!r} as it is",
                "write task.template: none",
            )
        texts = [f"{first.text[:begin]}{lead}{answer}{tail}" for answer in marked]
        return [Conversation(text, [(begin, len(text))]) for text in texts]

    def fitting(
        self, text: str, prompted: Callable[[str], str], answers: Sequence[str], limit: int, where: str
    ) -> tuple[list[int], list[list[int]], bool]:
        """Give the same of the prompt that ``prompted`` makes of ``text``, and whether the text had to be cut at its
        end for the prompt with the longest answer to have ``limit`` tokens. Raises InputError where no cut does."""
        kept = text
        while True:
            prompt, answered = self.tokens(prompted(kept), answers)
            over = len(prompt) + max(map(len, answered)) - limit
            if over <= 0:
                return prompt, answered, kept != text
            if not kept:
                found = f"{where}: prompt and longest answer are {over} tokens too long without any text"
                raise bad_input("task.max_length", found, f"raise task.max_length to {limit + over} or more")
            kept = self._without_last(kept, over)

    def _without_last(self, text: str, count: int) -> str:
        """Take the last ``count`` tokens, at least a character, off ``text``."""
        pieces = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        end = pieces[-count][0] if count <= len(pieces) else 0
        return text[: min(end, len(text) - 1)]


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def filled(pattern: str, values: dict[str, str]) -> str:
    """Put ``values`` into their places in ``pattern``, whatever braces they hold."""
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], pattern)
