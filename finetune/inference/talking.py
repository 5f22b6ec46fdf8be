"""Talks with a model: prompts of conversations or plain texts, and answers that are told while they are made.

Prompts are made, and answers begun, ended and freed of their template's frame, as in training and scoring: by the chat
task, and by :mod:`finetune.tasks.causal.generation`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from finetune import models
from finetune.core.errors import bad_input
from finetune.core.examples import Frame
from finetune.inference.loading import OpenedModel
from finetune.tasks.batching import Batching
from finetune.tasks.conversation import words_in

if TYPE_CHECKING:
    import torch

    from finetune.tasks.base import Task

MOST = 256
"""Tokens that an answer may have where nobody says it."""

AT = "messages"
"""What messages call a conversation."""

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Prompt:
    """What a model is shown."""

    ids: np.ndarray
    """(tokens,)"""
    frame: Frame = field(default_factory=Frame)
    """What stands around an answer's own words."""
    plain: bool = False
    """Whether white space around what follows is part of it."""


@dataclass(frozen=True)
class Settings:
    """How an answer is made."""

    max_tokens: int | None = None
    """None: :data:`MOST`, or as many as there is room for."""
    temperature: float = 0.0
    """0: each token is the likeliest."""
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    """None: another one each time."""
    stop: tuple[str, ...] = ()
    """Texts before the first of which an answer ends."""

    @property
    def together(self) -> tuple[Any, ...]:
        """What requests have in common that are answered at once."""
        return (self.temperature, self.top_p if self.temperature else 1.0, self.top_k if self.temperature else None)


@dataclass
class Request:
    """One prompt, and what becomes of it."""

    prompt: Prompt
    settings: Settings
    tell: Callable[[str], None] = lambda text: None
    """Called with each piece of the answer, as soon as nothing can change it."""
    cancelled: bool = False
    """Set to end the answer at the next token."""
    said: str = ""
    """What has been told."""
    finish: Finish | None = None
    """Why the answer has ended; None: it has not."""
    tokens: int = 0
    """Tokens of the answer."""

    def hear(self, text: str, final: bool) -> None:
        """Tell what is new in ``text``, all that has been said so far; what a stop text may begin with waits."""
        shown = text if final else settled(text, self.settings.stop)
        if len(shown) > len(self.said) and shown.startswith(self.said):
            new, self.said = shown[len(self.said) :], shown
            self.tell(new)
        elif final:
            self.said = shown


def settled(text: str, stops: Sequence[str]) -> str:
    """The part of ``text`` that no further token can take back: not half a character, and no beginning of a stop."""
    end = len(text.rstrip("\N{REPLACEMENT CHARACTER}"))
    for stop in stops:
        for size in range(min(len(stop), end), 0, -1):
            if text[:end].endswith(stop[:size]):
                end -= size
                break
    return text[:end]


class Talker:
    """A model that answers, and the tokens that it is asked with."""

    def __init__(self, opened: OpenedModel, model: torch.nn.Module):
        """``model`` is the one that was opened, on its device. Raises InputError for one that answers no text."""
        refuse_silent(opened)
        self.opened, self.model = opened, model
        self.tokenizer = opened.task.tokenizer
        self.both = opened.task.name == "seq2seq"
        self.task = opened.task if self.both else _chat_task(opened)
        self.chats = not self.both and self.task.options.template == "model"
        """Whether it has a template for several turns."""
        self.room = None if self.both else models.positions_of(self._bare)
        self.ends = self._ends()
        self.batching: Batching = opened.task.answering
        self._alone = threading.Lock()  # a tokenizer has settings, and a template what it has seen

    @property
    def _bare(self) -> Any:
        from finetune.tasks.causal.loss_paths import bare

        return bare(self.model)

    def _ends(self) -> list[int]:
        """Find the tokens that end an answer: the tokenizer's, and the one that closes a turn of the template."""
        if self.both:
            return [int(self.task.end or 0)]  # type: ignore[attr-defined]
        found = {self.tokenizer.eos_token_id}
        if self.chats:
            example = self._example([{"role": "user", "content": "x"}])
            found |= self.task.end_tokens([example])  # type: ignore[attr-defined]
        return sorted(int(token) for token in found if token is not None)

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> Prompt:
        """Make the prompt of a conversation whose last word is not the assistant's. Raises InputError for one that the
        model's template cannot show. Of a model without a template it is the last turn alone."""
        if not messages or messages[-1].get("role") == "assistant":
            found = "is empty" if not messages else "ends with the assistant"
            raise bad_input(AT, f"the conversation {found}, so there is nothing to answer", "end it with the user")
        if not self.chats:
            return self.text(str(messages[-1].get("content") or ""))
        with self._alone:
            example = self._example(messages)
        assert example.prompt is not None
        return Prompt(example.prompt, example.frame)

    def text(self, text: str) -> Prompt:
        """Make the prompt of a plain text that is to be continued, or by an encoder-decoder to be made another of."""
        if self.both:
            options: Any = self.task.options
            with self._alone:
                example = self._encoded({options.source: [text]})
            assert example.prompt is not None
            return Prompt(example.prompt)
        with self._alone:
            ids = self.tokenizer(text, return_attention_mask=False)["input_ids"]
        first = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        return Prompt(np.asarray(ids or [first], np.int32), plain=True)

    def _example(self, messages: Sequence[Mapping[str, Any]]) -> Any:
        from finetune.data.nested import json_array

        return self._encoded({"messages": json_array([list(map(dict, messages))])})

    def _encoded(self, columns: Mapping[str, Any]) -> Any:
        """Encode one row as the task does that is asked about it."""
        import pyarrow as pa

        from finetune.data.sources import as_dataset, with_example

        data = self.task.asked(as_dataset(with_example(pa.table(dict(columns)))), AT)
        self.task.check(data, AT)
        return self.task.encode_rows(data, AT, training=False).examples[0]

    def most(self, request: Request) -> int:
        """Count the tokens that the answer may have. Raises InputError where there is no room for any."""
        asked, used = request.settings.max_tokens, len(request.prompt.ids)
        if self.room is None:
            return asked or MOST
        left = self.room - used
        if left < 1:
            found = f"the conversation has {used:,} tokens, and the model takes {self.room:,} with its answer"
            raise bad_input(AT, found, "shorten it")
        return min(asked or MOST, left)

    def answer(self, requests: Sequence[Request]) -> None:
        """Answer all ``requests``, which have the same :attr:`Settings.together`, at once."""
        from finetune.tasks.causal.generation import Sampling, answers

        limits = [self.most(request) for request in requests]

        def done(place: int, ids: Sequence[int]) -> bool:
            return self._heard(requests[place], ids, limits[place])

        settings, drawn = requests[0].settings, None
        if settings.temperature:
            draws = np.stack([_draws(request.settings.seed, max(limits)) for request in requests])
            drawn = Sampling(draws, settings.temperature, settings.top_k, settings.top_p)
        prompts = [request.prompt.ids for request in requests]
        filler: Any = self.tokenizer.pad_token_id
        more = self._settings()
        found = answers(self.model, prompts, filler, self.ends, max(limits), self.batching, drawn, done, **more)
        for request, ids, limit in zip(requests, found, limits, strict=True):
            if request.finish is None:
                self._heard(request, ids, min(limit, len(ids)))

    def _settings(self) -> dict[str, Any]:
        if not self.both:
            return {}
        options: Any = self.task.options
        beams: dict[str, Any] = {} if options.num_beams == 1 else {"num_beams": options.num_beams}
        if options.target_language is not None:
            beams["forced_bos_token_id"] = self.task._language(options.target_language)  # type: ignore[attr-defined]
        return beams

    def _heard(self, request: Request, ids: Sequence[int], most: int) -> bool:
        """Take in all the tokens of an answer so far, at most so many; tells whether it has ended."""
        if request.finish is not None:
            return True
        own = list(ids[:most])
        end = next((place for place, each in enumerate(own) if each in self.ends), None)
        text = self._words(request, own)
        stop = min((place for each in request.settings.stop if (place := text.find(each)) >= 0), default=None)
        request.tokens = len(own) if end is None else end + 1
        if stop is not None:
            text, request.finish = text[:stop], "stop"
        elif end is not None:
            request.finish = "stop"
        elif request.cancelled:
            request.finish = "cancelled"
        elif len(own) >= most:
            request.finish = "length"
        request.hear(text, request.finish is not None)
        return request.finish is not None

    def _words(self, request: Request, ids: list[int]) -> str:
        if not request.prompt.plain:
            return words_in(ids, request.prompt.frame, self.tokenizer, self.ends)
        own = ids[: next((place for place, each in enumerate(ids) if each in self.ends), len(ids))]
        return str(self.tokenizer.decode(own, skip_special_tokens=True))


def refuse_silent(opened: OpenedModel) -> None:
    """Refuse a model that answers no text."""
    if not opened.talks and opened.task.name != "seq2seq":
        found = f"'{opened.source}' is for the task {opened.task.name}, and does not talk"
        raise bad_input("MODEL", found, f"ask it with: finetune predict {opened.source} FILE; or finetune serve")


def _chat_task(opened: OpenedModel) -> Task:
    """Make the task that conversations are shown by: with the chat template where the model was trained with it."""
    from finetune.core.registry import TASKS

    said, tokenizer = opened.task.options, opened.task.tokenizer
    own = opened.task.name == "chat"
    plain = not tokenizer.chat_template or (own and said.template == "none")
    kind = TASKS.get("chat")
    if plain:
        options = kind.Options(type="chat", prompt="prompt", completion="completion", template="none")
    else:
        options = kind.Options(type="chat", messages="messages", system=said.system if own else None)
    task: Task = kind.fitted(options, tokenizer, (), None, False)
    task.recall({})
    return task


def _draws(seed: int | None, count: int) -> np.ndarray:
    """Draw ``count`` numbers from 0 up to 1: the same for the same ``seed``, whatever else is answered beside."""
    return np.random.default_rng(seed).random(count)
