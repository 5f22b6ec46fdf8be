"""The columns that conversations are read from: what is in them, what is refused, and what each row says."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.core.errors import InputError, bad_input
from finetune.core.progress import track
from finetune.data.json_text import parsed
from finetune.tasks.messages import (
    Message,
    changed_text,
    has_value,
    is_learnt,
    mistake_in,
    with_last_learnt,
    without_keys,
)
from finetune.tasks.recognised import MESSAGES, as_messages, known_columns, recognised, with_messages
from finetune.tasks.used import STAND_IN, with_columns, with_lists

if TYPE_CHECKING:
    from datasets import Dataset

TOOLS = "tools"


class Given(NamedTuple):
    """The contents of one row: messages, or a prompt and its answer, and the tools that may be called."""

    messages: list[Message]
    prompt: str = ""
    answer: str = ""
    tools: list[Any] | None = None


class ChatColumns:
    """Reads the columns that a chat task's ``options`` name, or those that are known by their names."""

    def __init__(self, options: Any):
        self.options = options
        self.messages = MESSAGES if options.prompt is None and options.messages is None else options.messages
        """The column of lists of messages; None where prompt and completion are given."""

    @property
    def found_by_name(self) -> bool:
        """Tell whether the recipe names no column."""
        return self.messages is not None and self.options.messages is None

    def inputs(self) -> list[str]:
        """Name the columns that make two examples the same one."""
        return [self.messages or str(self.options.prompt), *([self.options.tools] if self.options.tools else [])]

    def converted(self, data: Dataset, at: str) -> Dataset:
        """Convert the conversations of ``data`` to lists of {role, content}."""
        from finetune.data.sources import as_dataset, as_table, slices
        from finetune.data.spool import spooled

        if not self.messages:
            return data
        found = (as_table(self._converted(rows, at)) for _, rows in slices(data, f"reading conversations of {at}"))
        return as_dataset(spooled(found))

    def _converted(self, data: Dataset, at: str) -> Dataset:
        from finetune.data.nested import values_of
        from finetune.data.rows import places_of

        if self.found_by_name:
            return recognised(data, at)
        for option in ("messages", "rejected"):
            column = getattr(self.options, option)
            if column in data.column_names:
                values = values_of(data, column)
                found = as_messages(values, f"task.{option}", places_of(data, at))
                data = data if found == values else with_messages(data, column, found)
        return data

    def asked(self, data: Dataset, at: str) -> Dataset:
        """Convert ``data`` that may lack answers: conversations end with one, which is a stand-in where the last word
        is not the assistant's."""
        from finetune.data.nested import values_of

        if not self.messages:
            return with_columns(data, {str(self.options.completion): STAND_IN})
        if self.found_by_name and "instruction" in data.column_names and "output" not in data.column_names:
            data = with_columns(data, {"output": STAND_IN})
        found = self.converted(data, at)
        if self.messages not in found.column_names:
            return found  # which is refused
        values = values_of(found, self.messages)
        open_ended = [with_answer(each, None) for each in values]
        return found if open_ended == values else with_messages(found, self.messages, open_ended)

    def answered(self, data: Dataset, texts: Sequence[str]) -> Dataset:
        """Put ``texts`` in the place of the answers in ``data`` that :meth:`asked` has made."""
        from finetune.data.nested import values_of

        if not self.messages:
            return with_lists(data, {str(self.options.completion): texts})
        values = zip(values_of(data, self.messages), texts, strict=True)
        return with_messages(data, self.messages, [with_answer(each, text) for each, text in values])

    def told(self, data: Dataset, at: str) -> list[str]:
        """Say in one line which columns are read, or are not, though the recipe does not name them."""
        from finetune.data.nested import values_of
        from finetune.data.sources import slices

        if not self.found_by_name:
            named = {self.options.tools, self.options.messages, self.options.prompt, self.options.completion}
            unread = TOOLS in data.column_names and TOOLS not in {*named, *self.options.drop_keys}
            found = (
                f"{at}: column '{TOOLS}' is not read; if it has the tools that may be called, write task.tools: {TOOLS}"
            )
            parts = slices(data, f"reading conversations of {at}") if unread and self.messages else ()
            return [found] if any(has_value(value) for _, rows in parts for value in values_of(rows, TOOLS)) else []
        known = known_columns(data.column_names)
        columns = next((each for each in known if each != (MESSAGES,)), known[0])
        also = [name for name in ("system", TOOLS) if name in data.column_names]
        return [f"{at}: columns {', '.join([*columns, *also])} are read as conversations; task.messages names another"]

    def check(self, data: Dataset, at: str) -> None:
        """Refuse columns that are missing, and rows that cannot be learnt from."""
        from finetune.data.columns import require_column, require_text
        from finetune.data.nested import values_of
        from finetune.data.rows import places_of
        from finetune.data.sources import slices

        if self.options.tools:
            require_column(data, self.options.tools, at, "task.tools")
        for option in ("messages", "prompt", "completion", "rejected"):
            column, path = getattr(self.options, option) or "", f"task.{option}"
            if option == "messages" and self.messages:
                column = self.messages
            if not column:
                continue
            if self.messages:
                require_column(data, column, at, path)
            else:
                require_text(data, column, at, path)
            for _, rows in slices(data, f"checking {at}"):
                for where, value in zip(places_of(rows, at), values_of(rows, column), strict=True):
                    self._check_value(value, where, option)

        if self.options.rejected:
            self._refuse_equal(data, at)

    def _refuse_equal(self, data: Dataset, at: str) -> None:
        """Refuse pairs whose answers differ in nothing that can be seen."""
        from finetune.data.nested import values_of
        from finetune.data.rows import places_of
        from finetune.data.sources import slices

        for _, rows in slices(data, f"comparing answers of {at}"):
            both = (self.messages or self.options.completion, self.options.rejected)
            answers = (values_of(rows, str(name)) for name in both)
            for where, chosen, rejected in zip(places_of(rows, at), *answers, strict=True):
                if _seen(chosen) == _seen(rejected):
                    found = f"{where}: the chosen and the rejected answer are the same"
                    advice = "take this row out of the file: blanks around an answer are no reason to prefer it"
                    raise bad_input("task.rejected", found, advice)

    def _check_value(self, value: Any, where: str, option: str) -> None:
        path = f"task.{option}"
        if self.messages and (mistake := self._mistake_in(value)):
            raise bad_input(path, f"{where}: {mistake}", "give [{role: …, content: …}, …]")
        if option in ("completion", "rejected") and isinstance(value, str) and not value.strip():
            found = f"{where} has an empty answer"
            raise bad_input(path, found, "complete the file, or take this row out of it")

    def _mistake_in(self, messages: Any) -> str | None:
        mistake = mistake_in(messages)
        return mistake or mistake_in(without_keys(messages, self.options.drop_keys, Counter()))

    def rows(self, data: Dataset, rejected: bool, dropped: Counter[str]) -> Iterator[Given]:
        """Read each row, with its chosen answer or its rejected one; keys that are ``dropped`` are counted."""
        from finetune.data.nested import values_of

        options = self.options
        column = options.tools or (TOOLS if self.found_by_name and TOOLS in data.column_names else None)
        tools = values_of(data, column) if column else repeat(None)
        answers = values_of(data, str(options.rejected if rejected else self.messages or options.completion))
        prompts = repeat("") if self.messages else values_of(data, str(options.prompt))
        for prompt, answer, own in zip(prompts, track(answers, "writing out conversations"), tools, strict=False):
            if self.messages:
                messages, words = without_keys(answer, options.drop_keys, dropped), ("", "")
                messages = with_last_learnt(messages) if options.learn == "last" else messages
            else:
                messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
                words = (prompt, answer)
            begins = messages[0]["role"] == "system"
            if options.system and not begins:
                messages = [{"role": "system", "content": options.system}, *messages]
            if TOOLS in options.drop_keys and has_value(own):
                dropped[TOOLS] += 1
                own = None
            yield Given(messages, *words, own)


def with_answer(messages: Any, text: str | None) -> Any:
    """Give the conversation with ``text`` as its last answer; None: with its own, or a stand-in where it has none. What
    is no conversation stays as it is."""
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        return messages
    last = messages[-1]
    ends = last.get("role") == "assistant"
    if text is None and ends and is_learnt(last) and (has_value(last.get("content")) or last.get("tool_calls")):
        return messages
    said = STAND_IN if text is None else text
    return [*(messages[:-1] if ends else messages), {"role": "assistant", "content": said}]


def _seen(value: Any) -> Any:
    """Give an answer without what cannot be seen of it: blanks around, and how its letters are encoded."""
    return changed_text(value, lambda text: unicodedata.normalize("NFC", text).strip())


def as_tools(value: Any) -> list[Any] | None:
    """Read a list of tools, from a list or JSON text; None where there are none."""
    found = parsed(value)
    if not has_value(found) or (isinstance(found, str) and not found.strip()):
        return None
    tools = [parsed(tool) for tool in (found if isinstance(found, list) else [found])]
    if not all(isinstance(tool, dict) for tool in tools):
        raise bad_input("task.tools", f"holds {value!r:.60}, not a list of tools", "give a list of JSON schemas")
    return tools


@contextmanager
def in_row(where: str, path: str) -> Iterator[None]:
    """Say ``where`` the row stands that an InputError is about; ``path`` is the option, where it names none."""
    try:
        yield
    except InputError as error:
        raise InputError(
            replace(problem, found=f"{where}: {problem.found}", path=problem.path or path) for problem in error.problems
        ) from error
