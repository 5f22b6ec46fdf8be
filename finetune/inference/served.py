"""The model behind a server: what it can be asked, and the work of one turn of its thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.inference.asking import Asker
from finetune.inference.protocol import Refused
from finetune.inference.rows import Row, predicted, texts_as_rows, wanted
from finetune.inference.talking import Request, Talker


class Served:
    """One model that is asked by many."""

    def __init__(self, asker: Asker):
        opened = asker.opened
        self.asker, self.name, self.source, self.task = asker, opened.name, opened.source, opened.task.name
        talks = opened.talks or opened.task.name == "seq2seq"
        self._talker = Talker(opened, asker.group.model) if talks else None

    @property
    def endpoints(self) -> list[str]:
        """Name the places where the model answers."""
        if self._talker is None:
            return ["/v1/classify"]
        return ["/v1/chat/completions", "/v1/completions"] if self._talker.chats else ["/v1/completions"]

    def talker(self, path: str) -> Talker:
        """Give what answers in words. Raises Refused where that is not what the model does at ``path``."""
        if self._talker is None or path not in self.endpoints:
            kind = f"is for the task {self.task}" if self._talker is None else "has no chat template"
            raise Refused(400, f"this model {kind}; ask it at {' or '.join(self.endpoints)}", code="wrong_task")
        return self._talker

    def refuse_talker(self) -> None:
        """Refuse rows that are to be classified where the model talks."""
        if self._talker is not None:
            found = f"this model answers in words; ask it at {' or '.join(self.endpoints)}"
            raise Refused(400, found, code="wrong_task")

    def rows_of(self, given: Sequence[str | Mapping[str, Any]]) -> list[Row]:
        """Make rows of texts or objects, with the columns that the task reads. Raises InputError where they have not
        got them."""
        texts = [each for each in given if isinstance(each, str)]
        rows = texts_as_rows(self.asker, texts) if texts else [dict(each) for each in given if isinstance(each, dict)]
        return wanted(self.asker, rows)

    def work(self, asked: Sequence[Any]) -> Sequence[Any]:
        """Do one turn: answer requests, or classify rows of several."""
        if isinstance(asked[0], Request):
            assert self._talker is not None
            self._talker.answer(asked)
            return [None] * len(asked)
        found = predicted(self.asker, [row for rows in asked for row in rows])
        answers = iter(found)
        return [[next(answers) for _ in rows] for rows in asked]
