"""The messages of a conversation as data have them, and as a chat template can be given them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from finetune.data.json_text import loads

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
"""Roles that everyone knows; a template may have others of its own."""

OWN_KEYS = ("weight", "train")
"""Keys of an answer that say whether it is learnt (`weight`: OpenAI's fine-tuning format; `train`: axolotl's)."""
CALLS = ("tool_calls", "function_call")
"""Keys of an answer that calls tools, which may have no words beside it."""


def mistake_in(messages: Any) -> str | None:
    """Say in words what is wrong with a list of messages; None when nothing is."""
    if not isinstance(messages, list):
        return f"is {type(messages).__name__} where a list of messages is wanted"
    if not messages:
        return "has no message, where a list of messages is wanted"
    for message in messages:
        if mistake := _mistake_in_one(message):
            return mistake
    if not any(map(_answers, messages)):
        return "has no answer by the assistant"
    if messages[0]["role"] == "assistant":
        return "begins with the assistant, so there is nothing to answer"
    last = last_learnt(messages)
    if last is None:
        return "has no answer that is to be learnt: each has weight 0 or train: false"
    if not _answers(messages[last]):
        return "ends with an answer in which there is nothing"
    for turn, message in enumerate(messages[:last], start=1):
        if is_learnt(message) and not _answers(message):
            return f"has an answer in which there is nothing, turn {turn}, and it is to be learnt"
        if message["role"] == "user" and not _says_something(message):
            return f"has a turn of the user's in which there is nothing, turn {turn}"
    return None


def _mistake_in_one(message: Any) -> str | None:
    if not isinstance(message, dict) or "role" not in message:
        return f"holds {message!r:.60} where a message with role and content is wanted"
    role, content = message["role"], message.get("content")
    calls = role == "assistant" and any(message.get(key) for key in CALLS)
    if "content" not in message and not calls:
        return f"holds {message!r:.60} where a message with role and content is wanted"
    parts = content if isinstance(content, list) else []
    text = isinstance(content, str) or (content is None and calls) or (parts and all(map(_is_part, parts)))
    if not isinstance(role, str) or not text:
        return f"has a message whose role or content is not text: {message!r:.60}"
    weight, train = message.get("weight"), message.get("train")
    if weight not in (None, 0, 1) or not isinstance(train, bool | None):
        return (
            f"has a message with {'train' if weight in (None, 0, 1) else 'weight'} that is neither 0 nor 1, true nor "
            + (f"false: {message!r:.60}; an answer is learnt, or it is not")
        )
    if role != "assistant" and (weight or train):
        return f"asks for a message of role '{role}' to be learnt, and the assistant's are: {message!r:.60}"
    return None


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("type"), str) and isinstance(part.get("text", ""), str)


def _answers(message: Message) -> bool:
    """Tell whether it is an answer in which there is something: words, a tool call, or an image."""
    return message["role"] == "assistant" and (_says_something(message) or any(message.get(key) for key in CALLS))


def _says_something(message: Message) -> bool:
    """Tell whether there are words in it, or an image."""
    content = message.get("content")
    other = isinstance(content, list) and any("text" not in part for part in content)
    return other or bool(text_of(message).strip())


def is_learnt(message: Message) -> bool:
    """Tell whether it is an answer that is learnt: the data do not say that it is only to be read."""
    return message["role"] == "assistant" and message.get("weight") != 0 and message.get("train") is not False


def last_learnt(messages: Sequence[Message]) -> int | None:
    """Find the place of the last answer that is learnt, with which a conversation ends for us."""
    return max((turn for turn, message in enumerate(messages) if is_learnt(message)), default=None)


def with_last_learnt(messages: Sequence[Message]) -> list[Message]:
    """Let the last answer that is learnt be the only one, and all before it be read."""
    last = last_learnt(messages)
    return [
        {**message, "weight": 0} if turn != last and is_learnt(message) else message
        for turn, message in enumerate(messages)
    ]


def text_of(message: Message) -> str:
    """Give the words of a message's content."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def has_value(value: Any) -> bool:
    """Tell whether a key says something: not null, not false, not empty."""
    return value is not None and value is not False and (not isinstance(value, str | list | dict) or bool(value))


def without_keys(messages: Sequence[Message], dropped: Collection[str], counts: Counter[str]) -> list[Message]:
    """Take out of ``messages`` the keys that say nothing, and the ``dropped`` ones, which are counted."""
    for message in messages:
        counts.update(key for key in dropped if has_value(message.get(key)))
    return [
        {key: value for key, value in message.items() if value is not None and key not in dropped}
        for message in messages
    ]


def changed_text(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text in ``value``, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [changed_text(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): changed_text(item, change) for key, item in value.items()}
    return value


def forms(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield ``messages`` as they are, and then other forms that say the same: content as one text instead of parts, the
    arguments of tool calls as an object instead of JSON text, or the other way round. Templates differ in what they
    take."""
    yield list(messages)
    seen = [list(messages)]
    for join in (False, True):
        for change in (lambda value: value, _as_object, _as_json):
            form = [_with_arguments(_joined(message) if join else message, change) for message in messages]
            if form not in seen:
                seen.append(form)
                yield form


def _joined(message: Message) -> Message:
    content = message.get("content")
    text = isinstance(content, list) and all("text" in part for part in content)
    return {**message, "content": text_of(message)} if text else message


def _with_arguments(message: Message, change: Callable[[Any], Any]) -> Message:
    def inside(value: Any) -> Any:
        if isinstance(value, list):
            return list(map(inside, value))
        if isinstance(value, dict):
            return {key: change(item) if key == "arguments" else inside(item) for key, item in value.items()}
        return value

    return {key: inside(value) if key in CALLS else value for key, value in message.items()}


def _as_object(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = loads(value)
    except json.JSONDecodeError:  # then it is text to the template too
        return value
    return found if isinstance(found, dict) else value


def _as_json(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def garbled(messages: Sequence[Message], text: str) -> str | None:
    """Say in words which of ``messages`` the rendered ``text`` shows as no one would write it: a list or an object as
    Python shows it, or JSON inside JSON. None where it shows none so."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and str(content) in text:
            return "content in parts"
        for key in CALLS:
            for arguments in _arguments(message.get(key)):
                if isinstance(arguments, dict):
                    shown = {str(arguments)} - {json.dumps(arguments, ensure_ascii=False)}
                elif isinstance(_as_object(arguments), dict):
                    shown = {json.dumps(arguments, ensure_ascii=ascii) for ascii in (False, True)}
                else:
                    continue
                if any(each in text for each in shown):
                    return f"the arguments of {key}"
    return None


def _arguments(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _arguments(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "arguments":
                yield item
            else:
                yield from _arguments(item)


def readable(value: Any) -> str:
    """Write a task's input as people read it: of messages, what comes before the last answer, a paragraph for each
    turn."""
    if not isinstance(value, list):
        return str(value)
    messages: list[Message] = value
    return "\n\n".join(f"{message['role']}: {_shown(message)}" for message in messages[: last_learnt(messages)])


def _shown(message: Message) -> str:
    calls = [json.dumps(message[key], ensure_ascii=False) for key in CALLS if message.get(key)]
    return "\n".join([*filter(None, [text_of(message)]), *calls])
