"""Baselines of tasks that answer in words of their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetune.core.errors import FinetuneError
from finetune.core.examples import Prediction
from finetune.data.draws import SHOTS, random_keys
from finetune.tasks.baselines.base import Baseline, ExampleSet, Untuned, Uses
from finetune.tasks.chat_columns import ChatColumns, Given
from finetune.tasks.messages import Message, last_learnt, text_of

if TYPE_CHECKING:
    from datasets import Dataset

SENTENCE_END = re.compile(r"(?<=[.!?])\s|(?<=[。！？])|\n")
"""Where the first sentence of a text ends."""

SEED = 0
"""Draws the examples that are shown: the same for every study."""

APART = "\n\n"
"""Between examples that are shown without a chat template."""


class CopyFirstSentence(Baseline):
    """Copies the first sentence of the last thing the user says, as lead sentences summarise news.

    Words with which all training prompts begin are the instruction, and left out.
    """

    name: ClassVar[str] = "copy-first-sentence"
    repeats_inputs: ClassVar[bool] = True
    instruction: str

    def __init__(self, columns: ChatColumns):
        self.columns = columns

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        asked = set(self._asked(training))
        first, last = min(asked), max(asked)  # with what these two begin, all in between them do
        shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
        # In whole words; and a question that is always the same is no instruction.
        self.instruction = re.sub(r"\S*\Z", "", "".join(shared)) if len(asked) > 1 else ""

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        return [Prediction(self._copied(asked), None) for asked in self._asked(held_out)]

    def _copied(self, asked: str) -> str:
        text = asked.removeprefix(self.instruction).strip() or asked.strip()
        return SENTENCE_END.split(text, maxsplit=1)[0].strip()

    def _asked(self, examples: ExampleSet) -> Iterator[str]:
        """List what the user has said last before each answer that is scored."""
        for given in self.columns.rows(examples.data, False, Counter()):
            before = given.messages[: last_learnt(given.messages)]
            yield next((text_of(message) for message in reversed(before) if message["role"] == "user"), "")


class FewShot(Baseline):
    """The untuned model, shown some training examples before each question.

    The same ones before all questions, drawn from the training examples, in the order in which they were drawn. As
    Brown et al. 2020, section 2: nothing is learnt.
    """

    name: ClassVar[str] = "few-shot"
    uses: ClassVar[Uses] = "model"
    untuned: Untuned

    def __init__(self, task: Any, shots: int):
        """``task`` is a fitted task whose :class:`ChatColumns` are in `columns`, and ``shots`` how many are shown."""
        self.task, self.shots = task, shots

    @property
    def settings(self) -> dict[str, int]:
        return {"shots": self.shots}

    def fit(self, training: ExampleSet, untuned: Untuned) -> None:
        self.untuned, count = untuned, training.data.num_rows
        if count < self.shots:
            raise FinetuneError(f"baselines.shots asks for {self.shots} examples, and there are {count} to show")
        drawn = np.argsort(random_keys(count, SEED, SHOTS), kind="stable")[: self.shots]
        shown = list(self.task.columns.rows(training.data.select(drawn), False, Counter()))
        self.task = copy(self.task)
        self.task.columns = ColumnsAfterShots(self.task.options, shown)

    def predict(self, held_out: ExampleSet) -> list[Prediction]:
        asked = self.task.encode(held_out.data, held_out.at, training=False)
        return self.untuned.predict(asked.examples)


class ColumnsAfterShots(ChatColumns):
    """Reads the columns of a chat task, and puts ``shots`` before each conversation."""

    def __init__(self, options: Any, shots: Sequence[Given]):
        super().__init__(options)
        self.shown = [message for shot in shots for message in _as_shown(shot.messages)]
        self.text = "".join(f"{shot.prompt}{shot.answer}{APART}" for shot in shots)

    def rows(self, data: Dataset, rejected: bool, dropped: Counter[str]) -> Iterator[Given]:
        for given in super().rows(data, rejected, dropped):
            begins = int(given.messages[0]["role"] == "system")
            messages = [*given.messages[:begins], *self.shown, *given.messages[begins:]]
            yield given._replace(messages=messages, prompt=f"{self.text}{given.prompt}")


def _as_shown(messages: Sequence[Message]) -> Iterator[Message]:
    """Give the turns of an example up to its last answer, none of which is learnt or scored. A system message stands
    only at the beginning of a conversation, which has its own."""
    for message in messages[: (last_learnt(messages) or 0) + 1]:
        plain = {key: value for key, value in message.items() if key != "train"}
        if message["role"] != "system":
            yield {**plain, "weight": 0} if message["role"] == "assistant" else plain
