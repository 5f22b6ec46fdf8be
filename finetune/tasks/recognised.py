"""Conversations under the column names and keys that published data use, as lists of {role, content}."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.data.json_text import parsed
from finetune.tasks.messages import Message

if TYPE_CHECKING:
    from datasets import Dataset

MESSAGES = "messages"
"""The column in which recognised conversations are kept."""
LISTS = (MESSAGES, "conversations", "conversation")
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
"""ShareGPT's words, with those of the data sets and tools that took up its form."""


def known_columns(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Find which of ``names`` have conversations, by each way in which they may: a list in one column, or Alpaca's."""
    found: list[tuple[str, ...]] = [(name,) for name in LISTS if name in names]
    if {"instruction", "output"} <= set(names):
        found.append(("instruction", *(["input"] if "input" in names else []), "output"))
    return found


def recognised(data: Dataset, at: str) -> Dataset:
    """``data`` with a column `messages`, made of columns that are known by name: `messages` and `conversations` (a list
    of {role, content}, or of {from, value} as ShareGPT has it), or `instruction`, `input` and `output` (Alpaca); and,
    where it is there, of `system`. Raises InputError where no such columns are, and where several are."""
    from finetune.data.nested import values_of
    from finetune.data.rows import places_of

    found = known_columns(data.column_names)
    if len(found) != 1:
        either = " and ".join(", ".join(columns) for columns in found)
        known = "no column that is known to hold conversations (messages; conversations; instruction and output)"
        has = f"conversations twice: {either}" if found else f"{known}, but {', '.join(data.column_names)}"
        raise bad_input("task", f"{at} has {has}", "give either task.messages, or both task.prompt and task.completion")
    [columns] = found
    conversations = values_of(data, columns[0]) if len(columns) == 1 else _alpaca(data, at)
    conversations = as_messages(conversations, "task", places_of(data, at))
    if "system" in data.column_names:
        systems = values_of(data, "system")
        conversations = [_with_system(each, text) for each, text in zip(conversations, systems, strict=True)]
    return with_messages(data, MESSAGES, conversations)


def _with_system(messages: Any, text: Any) -> Any:
    begins = isinstance(messages, list) and messages and isinstance(messages[0], dict)
    own = not begins or messages[0].get("role") == "system" or not isinstance(text, str) or not text.strip()
    return messages if own else [{"role": "system", "content": text}, *messages]


def _alpaca(data: Dataset, at: str) -> list[list[Message]]:
    """Read Alpaca's columns: the instruction, a blank line and the input are the user's turn; the output is the
    answer."""
    from finetune.data.columns import require_text
    from finetune.data.nested import values_of
    from finetune.data.rows import places_of

    for column in ("instruction", "output"):
        require_text(data, column, at, "task")
    inputs = values_of(data, "input") if "input" in data.column_names else [None] * data.num_rows
    conversations = []
    rows = zip(places_of(data, at), values_of(data, "instruction"), inputs, values_of(data, "output"), strict=True)
    for where, instruction, given, output in rows:
        if not isinstance(given, str | None):
            found = f"{where}: input is {given!r:.60}, not text"
            raise bad_input("task", found, "name columns in task.prompt")
        asked = f"{instruction}\n\n{given}" if given and given.strip() else instruction
        conversations.append([{"role": "user", "content": asked}, {"role": "assistant", "content": output}])
    return conversations


def as_messages(values: Sequence[Any], path: str, places: Iterable[str]) -> list[Any]:
    """Read a column's conversations, whose rows stand at ``places``, as lists of {role, content}: out of JSON text, and
    out of ShareGPT's {from, value}."""
    found = []
    for where, value in zip(places, values, strict=True):
        try:
            found.append(from_sharegpt(parsed(value)))
        except ValueError as error:
            raise bad_input(path, f"{where}: {error}", "give [{role: …, content: …}, …]") from error
    return found


def with_messages(data: Dataset, column: str, conversations: list[Any]) -> Dataset:
    """Put ``conversations`` into ``column`` of ``data``, in its old place or as the last one."""
    from finetune.data.nested import json_array
    from finetune.data.sources import as_dataset, as_table

    table, array = as_table(data), json_array(conversations)
    if column in table.column_names:
        return as_dataset(table.set_column(table.column_names.index(column), column, array))
    return as_dataset(table.append_column(column, array))


def from_sharegpt(messages: Any) -> Any:
    """Turn a list of {from, value} into one of {role, content}; anything else stays as it is. ValueError, in words, for
    a speaker that is not known."""
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        return messages
    return [_from_sharegpt(each) if "from" in each and "role" not in each else each for each in messages]


def _from_sharegpt(message: Message) -> Message:
    speaker, said = message["from"], message.get("value")
    if speaker not in ROLES:
        raise ValueError(f"is from '{speaker}', where one of {', '.join(ROLES)} is expected")
    rest = {key: value for key, value in message.items() if key not in ("from", "value")}
    if speaker == "function_call":
        calls = parsed(said)
        functions = [{"type": "function", "function": each} for each in (calls if isinstance(calls, list) else [calls])]
        return {"role": ROLES[speaker], "content": "", "tool_calls": functions, **rest}
    return {"role": ROLES[speaker], "content": said, **rest}
