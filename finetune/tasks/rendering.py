"""Messages as the model's chat template shows them, with the study's date, in the form that the template takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from finetune.core.errors import InputError, bad_input, did_you_mean
from finetune.tasks.messages import ROLES, Message, forms, garbled, has_value

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLOCK = """{%- macro strftime_now(format) -%}{%- set ns = namespace(text=format) -%}
{%- for code, value in study_date.items() -%}{%- set ns.text = ns.text.replace(code, value) -%}{%- endfor -%}
{{- ns.text -}}{%- endmacro -%}"""
"""Put before a template that asks what day it is. It answers with the study's date, at midnight."""
CODES = [f"%-{code}" for code in "dmHIMSjy"] + [f"%{code}" for code in "aAbBcdeFHIjmMpSUwWxXyYzZ"]
DATE_STRING = "%d %b %Y"
"""How Llama's templates write the date."""

ADVICE = "change the conversations, leave task.system out, or use prompt and completion with task.template: none"


class Renderer:
    """Shows messages as the template of ``tokenizer`` does; ``today`` is the date that it may print."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, today: date):
        self.tokenizer = tokenizer
        self.today = datetime.combine(today, datetime.min.time())
        self._dated = cache(self._date)
        self._read: set[tuple[str, str]] = set()
        """Role and key of what the template has been seen to read."""

    def source(self, tools: bool = False) -> str:
        """Give the template; some models have another one for conversations with ``tools``."""
        return str(self.tokenizer.get_chat_template(None, [{}] if tools else None))

    def _date(self, tools: bool) -> dict[str, Any]:
        source = self.source(tools)
        if "strftime_now" in source:
            known = {code: self.today.strftime(code) for code in CODES}
            return {"chat_template": CLOCK + source, "study_date": known}
        # One that sets it by itself has a date of its own.
        if re.search(r"\bdate_string\b", source) and not re.search(r"\bset\s+date_string\b", source):
            return {"date_string": self.today.strftime(DATE_STRING)}
        return {}

    def render(self, messages: Sequence[Message], tools: list[Any] | None, asking: bool) -> str:
        """Render the conversation's text; ``asking``: with what asks for an answer. Raises InputError, without a
        place."""
        from jinja2 import TemplateError

        dated = self._dated(bool(tools))
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), tools=tools or None, tokenize=False, add_generation_prompt=asking, **dated
                )
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            roles = ", ".join(message["role"] for message in messages)
            found = f"the model's chat template refuses the turns {roles}: {error}"
            raise bad_input("task.template", found, ADVICE) from error

    def fitting(self, messages: Sequence[Message], tools: list[Any] | None) -> tuple[list[Message], str]:
        """Find the first form of ``messages`` that the template shows as it should; give it and the text that it
        shows."""
        found: InputError | None = None
        for form in forms(messages):
            try:
                text = self.render(form, tools, asking=False)
            except InputError as error:
                found = found or error
                continue
            wrong = garbled(form, text)
            if wrong is None:
                return form, text
            found = found or bad_input("task.template", f"the model's chat template cannot show {wrong}", ADVICE)
        assert found is not None
        raise found

    def refuse_unknown(self, messages: Sequence[Message], tools: list[Any] | None) -> None:
        """Refuse a role that is none of those that everyone knows, and of which the template does not speak."""
        for role in dict.fromkeys(message["role"] for message in messages):
            if role not in ROLES and not re.search(rf"\b{re.escape(role)}\b", self.source(bool(tools))):
                found = f"there is a message of role '{role}', which the model's chat template does not know"
                raise bad_input("task.messages", found, did_you_mean(role, ROLES))

    def refuse_unread(self, messages: Sequence[Message], tools: list[Any] | None, text: str) -> None:
        """Refuse a message that says something under a key that the template does not read, and unread ``tools``.

        ``text`` shows all messages. A key counts as read when a change of it changes what is shown, either of the
        whole conversation or of it up to this message.
        """
        if tools and ("", "tools") not in self._read:
            if self._outcome(messages, None) == text:
                raise _unread("tools", "which task.tools names", "leave task.tools out")
            self._read.add(("", "tools"))
        for turn, message in enumerate(messages):
            for key, others in _changes(message):
                name = (message["role"], key)
                if name in self._read:
                    continue
                if not self._matters(messages, turn, others, tools, text):
                    drop = f"write task.drop_keys: [{key}], which drops it and counts it"
                    kept = "leave such messages out, or use another template"
                    found = f"in messages of role '{message['role']}'"
                    raise _unread(
                        key, found, kept if key.startswith("content") else f"take it out of the data, or {drop}"
                    )
                self._read.add(name)

    def _matters(
        self, messages: Sequence[Message], turn: int, others: Sequence[Message], tools: list[Any] | None, text: str
    ) -> bool:
        until = self._outcome(messages[: turn + 1], tools)
        for other in others:
            if self._outcome([*messages[:turn], other, *messages[turn + 1 :]], tools) != text:
                return True
            if until is not None and self._outcome([*messages[:turn], other], tools) != until:
                return True
        return False

    def _outcome(self, messages: Sequence[Message], tools: list[Any] | None) -> str | None:
        """Render the messages; None where the template refuses."""
        try:
            return self.render(messages, tools, asking=False)
        except InputError:
            return None


def _changes(message: Message) -> Iterator[tuple[str, list[Message]]]:
    """Yield each key that says something, and the message with something else there, or nothing."""
    for key, value in message.items():
        if key == "role" or not has_value(value):
            continue
        rest = {name: item for name, item in message.items() if name != key}
        if key == "content" and isinstance(value, list):
            for place, part in enumerate(value):
                yield f"content of type {part['type']}", [{**message, key: [*value[:place], *value[place + 1 :]]}]
        elif isinstance(value, str):
            yield key, [{**message, key: f"{value} x"}, rest]
        else:
            yield key, [rest]


def _unread(key: str, where: str, advice: str) -> InputError:
    return bad_input("task.template", f"the model's chat template does not read '{key}' {where}", advice)
