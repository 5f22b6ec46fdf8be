"""Finds the answers in a conversation's text, under any chat template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from finetune.core.errors import InputError, bad_input
from finetune.core.examples import Frame
from finetune.tasks.control import Marker, partner, special_tokens, template_tokens, unmarked
from finetune.tasks.conversation import Conversation
from finetune.tasks.messages import OWN_KEYS, Message, is_learnt, last_learnt, text_of
from finetune.tasks.rendering import Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys under which data and templates have what was thought before an answer."""
PROBES = ("q", "Z")
"""Answers that have no character in common."""


class Template:
    """The chat template of a ``tokenizer``; ``today`` is the date that it may print.

    What an answer adds to the text that asks for it is what is learnt. This works for any template, and needs no
    markers inside it. An earlier answer that the template shows in another way once the conversation goes on (without
    its reasoning, say) is read and not learnt: no answer that the model gives looks like that.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, today: date):
        self.tokenizer = tokenizer
        self.special = special_tokens(tokenizer)
        self.renderer = Renderer(tokenizer, today)

    @cached_property
    def of_others(self) -> Marker:
        """List the control tokens that are text where anybody but the assistant writes them."""
        return Marker(self.tokenizer, {*self.special, *self._own})

    @cached_property
    def of_answers(self) -> Marker:
        """List those that are text where the assistant writes them: it may say `<think>` and `</think>`, and other tags
        that come in pairs, but nothing that makes a turn."""
        turns = self._turn_tokens()
        inside = {name for name in self._own if {name, partner(name)} <= {*self._own} - turns}
        return Marker(self.tokenizer, {*self.special, *self._own} - inside)

    def _turn_tokens(self) -> set[str]:
        """List those that the template puts around what a user says, and the first that asks for an answer."""
        said: list[Message] = [{"role": "user", "content": "x"}]
        try:
            turn, asked = (self.renderer.render(said, None, asking) for asking in (False, True))
        except InputError:  # a template that wants other turns
            return set()
        asks = sorted((asked.index(name, len(turn)), name) for name in self._own if name in asked[len(turn) :])
        return {name for name in self._own if name in turn} | {name for _, name in asks[:1]}

    @cached_property
    def _own(self) -> tuple[str, ...]:
        return template_tokens(self.tokenizer, self.renderer.source() + self.renderer.source(tools=True))

    def conversation(
        self, messages: Sequence[Message], tools: list[Any] | None = None, counts: Counter[str] | None = None
    ) -> Conversation:
        """Render ``messages``, up to the last answer that is learnt, as text. Raises InputError, without saying where.

        Counted: `control_tokens`, conversations that hold some as text; `answers_changed`, answers that the template
        shows without something that they say; `answers_not_learnt`, earlier ones that it shows in another way later.
        """
        counts = Counter() if counts is None else counts
        self.renderer.refuse_unknown(messages, tools)
        last = last_learnt(messages)
        assert last is not None
        learnt = [turn for turn in range(last + 1) if is_learnt(messages[turn])]
        plain = [{key: value for key, value in each.items() if key not in OWN_KEYS} for each in messages[: last + 1]]
        markers = [self.of_answers if message["role"] == "assistant" else self.of_others for message in plain]
        marked = [marker.mark(message) for marker, message in zip(markers, plain, strict=True)]
        marked_tools = self.of_others.mark(tools)
        shown, text = self.renderer.fitting(marked, marked_tools)
        if marked != plain or marked_tools != tools:
            counts["control_tokens"] += 1
            if unmarked(text) != self.renderer.fitting(plain, tools)[1]:
                found = "has a control token in a text that the template changes"
                raise bad_input("task.template", found, "take it out of the data, or write it in another way")
        self.renderer.refuse_unread(shown, marked_tools, text)
        return self._with_answers(shown, marked_tools, learnt, text, counts)

    def asked(
        self, messages: Sequence[Message], tools: list[Any] | None
    ) -> tuple[list[Message], list[Any] | None, str, str] | None:
        """Give ``messages``, up to the last answer that is learnt, and ``tools`` in the form that the template takes,
        the text that it makes of them, and the one that asks for the last answer; None where they hold control tokens,
        which another reader of the text would take for its own."""
        last = last_learnt(messages)
        assert last is not None
        plain = [{key: value for key, value in each.items() if key not in OWN_KEYS} for each in messages[: last + 1]]
        markers = [self.of_answers if message["role"] == "assistant" else self.of_others for message in plain]
        if [own.mark(each) for own, each in zip(markers, plain, strict=True)] != plain:
            return None
        if self.of_others.mark(tools) != tools:
            return None
        shown, text = self.renderer.fitting(plain, tools)
        return shown, tools, text, self.renderer.render(shown[:-1], tools, asking=True)

    def _with_answers(
        self, messages: list[Message], tools: Any, learnt: list[int], whole: str, counts: Counter[str]
    ) -> Conversation:
        *_, last = learnt
        spans, frame, after = [], Frame(), whole
        for turn in learnt:
            before = self.renderer.render(messages[:turn], tools, asking=True)
            shown = whole if turn == last else self.renderer.render(messages[: turn + 1], tools, asking=False)
            after = self._closed(shown, before)
            if turn == last and not after.startswith(before):
                raise bad_input(
                    "task.template",
                    "the model's chat template shows an answer differently without the words that ask for it, so what "
                    "is learnt would not be what is later asked",
                    "give the reasoning that it asks for, or prompt and completion with task.template: none",
                )
            if not after.startswith(before) or not whole.startswith(after):
                counts["answers_not_learnt"] += 1
                continue
            before, frame = self._framed(messages[: turn + 1], tools, before, after)
            if _lacks(after[len(before) :], messages[turn]):
                counts["answers_changed"] += 1
            spans.append((len(before), len(after)))
        text = after if after.endswith(self.special) else after + str(self.tokenizer.eos_token)
        return Conversation(text, [*spans[:-1], (spans[-1][0], len(text))], frame)

    def _framed(self, messages: list[Message], tools: Any, before: str, after: str) -> tuple[str, Frame]:
        """Find the text that asks for the last answer of ``messages``, and what the template puts around its words.

        Found by showing other answers in its place. A template that does not know `add_generation_prompt` heads its
        answers all the same; that heading asks for the answer, and is no part of it.
        """
        own = text_of(messages[-1]).strip()
        if own and self._bare(after[len(before) :]) == own:
            return before, Frame()
        thoughts = [key for key in REASONING if messages[-1].get(key)]
        probes = self._probes(messages, tools, before, thoughts)
        if probes[0] == probes[1]:  # which shows no such answer
            return before, Frame()
        lead = _common_start(probes)
        if lead.strip() and before == self.renderer.render(messages[:-1], tools, asking=False):
            without = self._probes(messages, tools, before, []) if thoughts else probes
            heading = _common_start([after[len(before) :], *without])
            before, lead = before + heading, lead[len(heading) :]
        bare = [self._bare(probe) for probe in probes]
        tail = _common_start([probe[::-1] for probe in bare])[::-1]
        return before, Frame(unmarked(lead), unmarked(tail))

    def _probes(self, messages: list[Message], tools: Any, before: str, keys: Sequence[str]) -> list[str]:
        """Render other words in the place of the last answer: what the template shows after ``before``. ``keys`` of the
        answer are kept."""
        kept = {key: messages[-1][key] for key in ("role", *keys)}
        found = []
        for word in PROBES:
            content = [{"type": "text", "text": word}] if isinstance(messages[-1].get("content"), list) else word
            try:
                shown = self.renderer.render([*messages[:-1], {**kept, "content": content}], tools, asking=False)
            except InputError:  # a template that wants something beside the words, and so has nothing around them alone
                return ["", ""]
            found.append(self._closed(shown, before).removeprefix(before) if shown.startswith(before) else "")
        return found

    def _bare(self, said: str) -> str:
        """Take the token that ends it off an answer."""
        said = said.strip()
        for token in self.special:
            said = said.removesuffix(token)
        return said.strip()

    def _closed(self, text: str, before: str) -> str:
        """Cut ``text``, in which an answer follows ``before``, after the token that closes the answer's turn.

        Many templates put a line break behind that token, and some an end token behind that, when nothing follows
        (Phi-3): neither is something the model has to say.
        """
        text = text.rstrip()
        shorter = text.removesuffix(str(self.tokenizer.eos_token)).rstrip()
        return shorter if shorter.endswith(self.special) and shorter.startswith(before) else text


def _common_start(texts: Sequence[str]) -> str:
    return "".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, zip(*texts, strict=False)))


def _lacks(said: str, message: Message) -> bool:
    """Tell whether the text lacks something of a message's words or thoughts."""
    thoughts = [str(message[key]).strip() for key in REASONING if message.get(key)]
    return any(text not in said for text in (text_of(message), *thoughts))


def told(counts: Counter[str], at: str) -> list[str]:
    """Write what has been counted, in lines for a person."""
    said = {
        "control_tokens": "{} conversations hold control tokens of the model in their words, which are read as text",
        "answers_changed": "the model's chat template leaves something out of {} answers as the data have them "
        "(spaces around them, or reasoning)",
        "answers_stopped": "{} right answers have a text of task.stop in them, at which generated ones end: none "
        "can equal them",
        "answers_not_learnt": "{} earlier answers are read and not learnt, because the model's chat template shows "
        "them differently once the conversation goes on (without reasoning, say); end a conversation with each answer "
        "that is to be learnt",
    }
    lines = {
        key: said.get(key, f"task.drop_keys: {key.removeprefix('dropped_')} was left out of {{}} messages")
        for key in counts
    }
    return [f"{at}: {line.format(counts[key])}" for key, line in lines.items() if counts[key]]
