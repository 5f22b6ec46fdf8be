"""A task of lm-evaluation-harness as a task of ours, which is scored and never learnt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetune.core.answers import Answer, Column
from finetune.core.encoded import Encoded
from finetune.core.errors import InputError, bad_input, first_line
from finetune.core.examples import Example, Prediction
from finetune.metrics.harness import HarnessMetric
from finetune.tasks.base import EncodedRows
from finetune.tasks.causal_task import CausalTask
from finetune.tasks.choice_columns import name_of
from finetune.tasks.harness.documents import Documents, Outcome
from finetune.tasks.harness.options import HarnessOptions
from finetune.tasks.rendering import Renderer

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.core.encoded import Examples
    from finetune.data import Splits

NO_LIMIT = 2048
"""Tokens that a model without a limit takes at once: the harness's default."""


class HarnessTask(CausalTask):
    """What a task of the harness asks of a causal language model, and what the harness makes of the answers."""

    name: ClassVar[str] = "lm_eval"
    Options = HarnessOptions
    asks: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("lm_eval",)
    packing = False

    options: HarnessOptions
    at: str
    """Where the recipe says it."""
    documents: Documents
    requests: list[list[Any]]
    """About each document, the harness's instances; known once the task is fitted."""

    def load(self, at: str) -> Documents:
        """Load what is said at recipe path ``at``. Raises InputError for everything that is wrong with it."""
        from finetune.tasks.harness.documents import load

        return load(self.options, at)

    def bring(self, documents: Documents, at: str) -> Dataset:
        """Take the loaded ``documents``, and give them as a table: `text` and `document`, both texts."""
        import pyarrow as pa

        from finetune.data.sources import as_dataset, with_example

        self.documents, self.at = documents, at
        texts = [documents.text_of(row) for row in documents.rows]
        told = [json.dumps(row, default=str, ensure_ascii=False) for row in documents.rows]
        return as_dataset(with_example(pa.table({"text": texts, "document": told})))

    @property
    def metrics(self) -> Sequence[HarnessMetric]:
        return self.documents.metrics

    @property
    def example_score(self) -> str:  # type: ignore[override]
        return self.metrics[0].name

    @property
    def answer(self) -> Answer | None:  # type: ignore[override]
        kind = self.documents.kind
        return "choice" if kind == "multiple_choice" else "text" if kind == "generate_until" else None

    @property
    def pipeline_tag(self) -> str:
        return "text-generation"

    @property
    def fills(self) -> frozenset[Column]:
        return frozenset(("prediction",) if self.answer else ())

    def inputs(self) -> list[str]:
        return ["text"]

    def check(self, data: Dataset, at: str) -> None:
        """Nothing is left to be checked: the harness has made the table."""

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        if tokenizer.eos_token_id is None:
            raise bad_input(self.at, "ends answers with the tokenizer's end token, and this tokenizer has none")
        chat = self._chat if self.options.apply_chat_template else None
        if chat and not tokenizer.chat_template:
            found = "is true, and the model's tokenizer has no chat template"
            raise bad_input(f"{self.at}.apply_chat_template", found, "leave it out")
        try:
            self.requests = self.documents.requests(chat, f"asking {self.options.task}")
        except InputError as error:
            problems = [replace(problem, path=f"{self.at}.apply_chat_template") for problem in error.problems]
            raise InputError(problems) from error
        except Exception as error:  # the task's own code: anything can come out of it
            found = f"'{self.options.task}' cannot ask about its documents: {first_line(error)}"
            raise bad_input(f"{self.at}.task", found, "correct its file, or leave it out") from error
        self._refuse_long_answers()

    def _chat(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Show messages in the model's chat template; without ``add_generation_prompt`` the last one is an answer that
        has begun."""
        shown = Renderer(self.tokenizer, self.today or date.today())
        if add_generation_prompt:
            return shown.render(messages, None, asking=True)
        return shown.render(messages[:-1], None, asking=True) + messages[-1]["content"]

    def _refuse_long_answers(self) -> None:
        """Refuse answers so long that the model has no room for a prompt."""
        if self.documents.kind != "generate_until":
            return
        from finetune.tasks.harness.answering import MOST_NEW_TOKENS, longest_answer

        most = self.options.max_new_tokens or max(
            (longest_answer(one) for own in self.requests for one in own if one.request_type == "generate_until"),
            default=MOST_NEW_TOKENS,
        )
        if most >= (room := self.room(self.config())):
            found = f"'{self.options.task}' asks for answers of up to {most} tokens, and the model has room for {room}"
            raise bad_input(f"{self.at}.max_new_tokens", found, f"write fewer than {room}, less what a prompt needs")

    def room(self, config: Any, virtual: int = 0) -> int:
        """Count the tokens that a model of this ``config`` takes at once, beside so many ``virtual`` ones."""
        from finetune.models import positions_said

        limit = positions_said(config)
        room = NO_LIMIT if limit is None else limit - virtual
        return min(room, self.options.max_length or room)

    def positions(self, examples: Examples) -> np.ndarray:
        return np.zeros(len(examples), np.int64)  # what is too long is cut, as in the harness

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        examples, counts, room = [], Counter(cut=0), self.room(self.config())
        for number in data["example"][:]:
            longest = max(("".join(map(str, one.args[:1])) for one in self.requests[number]), key=len)
            ids = np.asarray(self.tokenizer.encode(longest, verbose=False) or [self.tokenizer.eos_token_id], np.int32)
            counts["cut"] += len(ids) > room
            self._refuse_long_choices(number, room)
            reference = self._reference(self.documents.rows[number])
            # There are no labels to learn.
            examples.append(Example(number, {"input_ids": ids}, np.empty(0, np.int64), 1.0, reference))
        return EncodedRows(examples, counts)

    def _refuse_long_choices(self, number: int, room: int) -> None:
        """Refuse a document with something to be chosen that the model has no room for."""
        for one in self.requests[number]:
            if one.request_type == "loglikelihood":
                said = one.args[1]
                if len(said.encode()) > room and (count := len(self.tokenizer.encode(said, verbose=False))) > room:
                    found = f"document {number} has a choice of {count} tokens, and the model has room for {room}"
                    raise bad_input(f"{self.at}.max_length", found, "raise it, or leave the task out")

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        shown, names = self.documents, ", ".join(metric.name for metric in self.metrics)
        several = "s" if shown.shots > 1 else ""
        before = f", {shown.shots} solved example{several} before each" if shown.shots else ""
        line = f"{at}: {shown.source}{before}; {names}"
        return replace(encoded, facts=encoded.facts | counts | {"notes": [line]}, notes=[line])

    def shown(self, data: Dataset, encoded: Encoded) -> list[str]:
        return data["text"][:]

    def ask(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[Prediction]:
        from finetune.tasks.causal.loss_paths import without_adapter
        from finetune.tasks.harness.answering import Answering

        room = self.room(without_adapter(model).config, getattr(model, "virtual", 0))
        batching, path = max(self.batching, self.answering), self._loss_path(model)
        most, longest = len(examples), self.options.max_new_tokens
        asked = Answering(model, self.tokenizer, room, most, batching, path, longest)
        every = [one for example in examples for one in self.requests[example.number]]
        said: list[list[Any]] = [[] for _ in every]
        for kind in dict.fromkeys(one.request_type for one in every):
            own = [place for place, one in enumerate(every) if one.request_type == kind for _ in range(one.repeats)]
            for place, answer in zip(own, getattr(asked, kind)([every[place] for place in own]), strict=True):
                said[place].append(answer)
        left = iter(said)
        return [
            Prediction("", None, answers=tuple(tuple(next(left)) for _ in self.requests[example.number]))
            for example in examples
        ]

    def completed(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Prediction]:
        asked = [self.requests[example.number] for example in examples]
        outcomes = self.documents.outcomes(asked, [prediction.answers for prediction in predictions])
        own = {
            metric.name: metric.made_of([each.values for each in outcomes[metric.filter_name]])
            for metric in self.metrics
        }
        first = outcomes[self.metrics[0].filter_name]
        return [
            replace(
                one,
                text=self._said(self.documents.rows[example.number], first[place]),
                own={name: float(values[place]) for name, values in own.items()},
            )
            for place, (example, one) in enumerate(zip(examples, predictions, strict=True))
        ]

    def _said(self, row: Any, outcome: Outcome) -> str:
        """Say what was answered: the likeliest choice's letter, or a text."""
        if self.answer == "choice":  # behind the choices there may be others, which they are compared with
            among = outcome.answers[: len(self.documents.task.doc_to_choice(row))]
            return name_of(int(np.argmax([likelihood for likelihood, _ in among])))
        return str(outcome.answers[0]) if self.answer == "text" else ""

    def _reference(self, row: Any) -> str:
        """Say what would have been right, where one answer is."""
        if self.answer is None:
            return ""
        task = self.documents.task
        found = task.doc_to_text(row) if getattr(task, "multiple_input", 0) else task.doc_to_target(row)
        if self.answer == "choice":
            choices = task.doc_to_choice(row)
            places = [choices.index(each) if each in choices else each for each in _listed(found)]
            return ", ".join(name_of(place) if isinstance(place, int) else str(place) for place in places)
        named = isinstance(found, int) and task.config.doc_to_choice is not None
        return str(task.doc_to_choice(row)[found] if named else found)


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]
