"""Control tokens inside data: what a person wrote there is text, and no turn begins or ends with it.

A text that holds the name of a control token (`<|im_end|>`, say) is given marks around that name before a template sees
it. The marks tell it from the control tokens that the template writes, and are taken out again where the text becomes
tokens, with the marked names spelt out in ordinary ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.tasks.messages import changed_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

MARKS = ("\U000f5e00", "\U000f5e01")
"""Private-use characters: no text has them but by agreement."""
_MARKED = re.compile(f"{MARKS[0]}(.*?){MARKS[1]}", re.DOTALL)
_BRACKETED = re.compile(r"[^\w\s].*\w.*[^\w\s]", re.DOTALL)

ADVICE = "take it out of the data, or write it in another way"


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """List the tokens that decoding leaves out, the longest first. A tokenizer names only some of them as its own."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return _longest_first(added | set(tokenizer.all_special_tokens))


def template_tokens(tokenizer: PreTrainedTokenizerBase, source: str) -> tuple[str, ...]:
    """List the added tokens in brackets (`<think>`, `<|turn|>`) that a template's ``source`` names and decoding
    keeps."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if not token.special}
    return _longest_first(name for name in added if _BRACKETED.fullmatch(name) and name in source)


def partner(name: str) -> str:
    """Give the tag that closes what the tag ``name`` opens, or opens what it closes."""
    return name[0] + name[2:] if name[1:2] == "/" else f"{name[0]}/{name[1:]}"


def _longest_first(tokens: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(tokens), key=lambda token: (-len(token), token)))


def unmarked(text: str) -> str:
    """Take the marks out of ``text``."""
    return text.translate({ord(mark): None for mark in MARKS})


def without_tokens(text: str, tokens: Sequence[str]) -> str:
    """Take out of ``text`` the marks and those ``tokens`` that are not marked."""
    names = re.compile(f"{_MARKED.pattern}|{'|'.join(map(re.escape, tokens)) or '(?!)'}", re.DOTALL)
    return unmarked(names.sub(lambda found: found[1] or "", text))


class Marker:
    """Marks the control tokens inside data, and spells them out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]):
        self.tokenizer = tokenizer
        self.tokens = _longest_first(tokens)
        self._names = re.compile("|".join(map(re.escape, self.tokens)) or "(?!)")
        # The unknown token is what any strange character becomes, and begins or ends nothing.
        self._ids = {tokenizer.convert_tokens_to_ids(token) for token in self.tokens} - {tokenizer.unk_token_id}

    def mark(self, value: Any) -> Any:
        """Mark every control token in the texts of ``value``."""
        return changed_text(value, self._mark)

    def _mark(self, text: str) -> str:
        if any(mark in text for mark in MARKS):
            raise bad_input(None, f"holds the character U+{ord(MARKS[0]):X} or the one after it, which we need", ADVICE)
        if self._changing:
            self._refuse_hidden(text)
        return self._names.sub(lambda found: f"{MARKS[0]}{found[0]}{MARKS[1]}", text)

    @cached_property
    def _changing(self) -> bool:
        """Tell whether the tokenizer finds a control token in texts that do not have its name: in other letter case,
        say."""
        own = [token for token in self.tokenizer.added_tokens_decoder.values() if token.content in self.tokens]
        return self.tokenizer.backend_tokenizer.normalizer is not None and any(token.normalized for token in own)

    def _refuse_hidden(self, text: str) -> None:
        ids = self.tokenizer(self._names.sub(" ", text), add_special_tokens=False).input_ids
        if found := [each for each in ids if each in self._ids]:
            name = self.tokenizer.convert_ids_to_tokens(found[0])
            raise bad_input(None, f"holds what this tokenizer reads as the control token {name}: {text!r:.60}", ADVICE)

    def encode(self, text: str, add_special: bool) -> list[int]:
        """Tokenise a text with marks; ``add_special``: the tokenizer puts its own special tokens around."""
        first, *rest = _MARKED.split(text)  # ordinary text and marked names in turn
        ids = list(self.tokenizer(unmarked(first), add_special_tokens=add_special).input_ids)
        for number, piece in enumerate(rest):
            if number % 2:
                ids += _continued(self._ordinary, unmarked(piece))
            else:
                ids += self._spelt(piece)
        return ids

    def _spelt(self, name: str) -> list[int]:
        for pieces in ([name], [name[:1], name[1:]]):  # some vocabularies have the name as a word of its own
            ids = [each for piece in pieces for each in _continued(self._plain, piece)]
            if not self._ids & set(ids):
                return ids
        raise bad_input(None, f"holds the control token {name}, which this tokenizer cannot spell out", ADVICE)

    def _ordinary(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _plain(self, text: str) -> list[int]:
        return list(self._without_added.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _without_added(self) -> Tokenizer:
        """Make the tokenizer as it would be without added tokens."""
        from tokenizers import Tokenizer

        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        bare: dict[str, Any] = {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        return Tokenizer.from_str(json.dumps(state | bare))


def _continued(encode: Any, text: str) -> list[int]:
    """Tokenise a ``text`` that follows another: some tokenizers put a space before the first word that they see."""
    line = list(encode("\n"))
    ids = list(encode(f"\n{text}")) if text else []
    return ids[len(line) :] if ids[: len(line)] == line else list(encode(text))
