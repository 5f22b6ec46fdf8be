"""Extractive question answering: the part of a text that answers a question, or that none does (Devlin et al. 2019,
sections 4.2 and 4.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from finetune.core.answers import Answer, Column, spans_said
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Document, Example, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.models import is_masked
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.spans import Question, questions_of
from finetune.tasks.thresholds import best_threshold

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.core.encoded import Examples
    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline
    from finetune.tasks.windows import Pair, SpanOutputs

NONE = spans_said(())
"""The reference of a question that the text does not answer."""
THRESHOLD = "threshold"
"""What is decided by: how much likelier than no answer a span has to be to be said, in nats."""


class QuestionAnsweringOptions(Options):
    """Columns, windows and answers."""

    type: Literal["question-answering"]
    question: str = "question"
    """Column with the question."""
    context: str = "context"
    """Column with the text that may answer it."""
    answers: str = "answers"
    """Column with the answers, each a part of the context: `{text: [...], answer_start: [...]}` as the hub's `squad`
    has them (characters count from 0; empty lists: no answer), or the answer's text alone (empty: no answer). A JSON
    file of SQuAD's own can be read as it is. Of several right answers the first is learnt, and all count in metrics."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (an article, of which there are many questions), so that errors are
    computed by group and not by example. A group must not be on both sides of a split: see `data.split.group` and
    `data.leaks`."""
    max_length: int = Field(384, ge=16)
    """Tokens of question and text that the model is shown at once (Devlin et al. 2019's code); a longer text is shown
    in several windows, each with the whole question. `data.json` counts such texts as `cut`."""
    stride: int = Field(128, ge=0)
    """Tokens of the text that two neighbouring windows have in common (Devlin et al. 2019's code); at most half of a
    window."""
    max_answer_length: int = Field(30, ge=1)
    """Tokens that an answer may have when one is looked for (Devlin et al. 2019's code)."""
    metrics: list[str] = Field(["squad_f1", "squad_em", "no_answer_accuracy"], min_length=1)
    """Metrics of the held-out tasks, the headline first."""


@TASKS.register
class QuestionAnswering(Task):
    """Finds the part of a text that answers a question, or says that none does, with a new linear head."""

    name: ClassVar[str] = "question-answering"
    Options = QuestionAnsweringOptions
    new_head: ClassVar[bool] = True
    answer: ClassVar[Answer] = "span"
    example_score: ClassVar[str] = "squad_f1"
    architecture = "AutoModelForQuestionAnswering"

    options: QuestionAnsweringOptions
    unanswerable: bool = False
    """Whether training has questions without an answer; where it has none, one is always given."""
    validated: bool = False
    """Whether there are validation examples to choose a threshold by."""

    @property
    def fills(self) -> frozenset[Column]:
        return super().fills | {"margin"}

    @property
    def decides(self) -> bool:
        return self.unanswerable

    def inputs(self) -> list[str]:
        return [self.options.question, self.options.context]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_column, require_text

        require_text(data, self.options.question, at, "task.question")
        require_text(data, self.options.context, at, "task.context")
        require_column(data, self.options.answers, at, "task.answers")
        for _ in questions_of(data, self.options, at):
            pass  # each is refused by itself

    def check_config(self) -> None:
        config = self.config()
        if not (is_masked(config) or getattr(config, "is_encoder_decoder", False)):
            found = (
                f"is a {config.model_type} model, which reads the first token, where no answer stands, before all else"
            )
            raise bad_input("model.source", found, "use an encoder; or task type chat, with answers in words")

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        self.unanswerable = any(not each.answers for each in questions_of(splits.train, self.options, "data.train"))
        self.validated = splits.validation is not None
        # What is beaten is silence, where that can be right, be it the commonest answer or not.
        self.commonest = NONE if self.unanswerable else None

    def remembered(self) -> dict[str, Any]:
        return {"unanswerable": self.unanswerable}

    def recall(self, known: Mapping[str, Any]) -> None:
        self.unanswerable = bool(known.get("unanswerable", False))

    def stand_ins(self) -> dict[str, Any]:
        return {self.options.answers: ""}

    def positions(self, examples: Examples) -> np.ndarray:
        return examples.lengths // examples.windows  # which are equally long

    def model_config(self) -> dict[str, Any]:
        return {"num_labels": 2, "pad_token_id": self.tokenizer.pad_token_id}

    def idle(self, parameter: str) -> bool:
        """The head's bias, which adds the same to all places, and which every softmax over them takes out again."""
        return parameter.split(".")[-1] == "bias" and "qa_outputs" in parameter.split(".")

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        from finetune.data.rows import places_of
        from finetune.tasks.windows import pairs_of

        questions = list(questions_of(data, self.options, at))
        pairs = pairs_of([each.question for each in questions], [each.context for each in questions], self.tokenizer)
        examples, owners, counts = list[Example](), list[int](), Counter[str](cut=0, unanswerable=0)
        rows = zip(pairs, questions, data["example"][:], places_of(data, at), strict=True)
        for row, (pair, question, number, where) in enumerate(rows):
            windows = self._windows(pair, where)
            own = self._encoded(pair, windows, question, number, training, counts)
            examples += own
            owners += [row] * len(own)
        return EncodedRows(examples, counts, owners if training else None)

    def _windows(self, pair: Pair, where: str) -> list[np.ndarray]:
        from finetune.tasks.windows import LEAST, room_of, windows_of

        limit = min(self.options.max_length, self.tokenizer.model_max_length)
        if pair.first == pair.last:
            found = f"{where} has a context that the tokenizer makes nothing of"
            raise bad_input("task.context", found, "correct the text, or take this row out of it")
        room = room_of(pair, limit)
        if room < min(LEAST, pair.last - pair.first):
            found = f"{where} has a question that leaves {max(room, 0)} of {limit} tokens for the text"
            raise bad_input("task.max_length", found, "raise it, or shorten the question")
        return windows_of(pair, limit, self.options.stride)

    def _encoded(
        self,
        pair: Pair,
        windows: Sequence[np.ndarray],
        question: Question,
        number: int,
        training: bool,
        counts: Counter[str],
    ) -> list[Example]:
        """Make an example of each window to learn from, or one of all windows to answer; what is to be told is
        counted."""
        from finetune.tasks.windows import START, learnable, target_of

        answer, reference = next(iter(question.answers), None), spans_said(each.text for each in question.answers)
        targets = [target_of(pair, window, answer) for window in windows]
        told = sum(map(learnable, targets))
        there = any((target[1:] & START).any() for target in targets)
        counts.update(
            cut=len(windows) > 1,
            unanswerable=answer is None,
            answers_lost=answer is not None and not there,
            answers_repeated=question.repeated,
            windows_left_out=len(targets) - told,
        )
        # Beginning and end are two labels; losses are means over labels, as those of transformers' own class.
        if training:
            return [
                Example(number, {name: own[window] for name, own in pair.inputs.items()}, target, 2.0, reference)
                for window, target in zip(windows, targets, strict=True)
                if learnable(target)
            ]
        order = np.concatenate(windows)
        starts = np.cumsum([0, *map(len, windows[:-1])]).astype(np.int32)
        inputs = {name: own[order] for name, own in pair.inputs.items()}
        document = Document(question.context, pair.places[order], starts)
        weight = 2.0 * max(told, 1)
        return [Example(number, inputs, np.concatenate(targets), weight, reference, document=document)]

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        if not encoded.examples:
            raise bad_input("task.answers", f"{at} has no window with a whole answer", "raise task.max_length")
        notes = list(self._notes(counts, at, learnt=encoded.rows is not None))
        return replace(encoded, facts=encoded.facts | counts | ({"notes": notes} if notes else {}), notes=notes)

    def _notes(self, counts: Counter[str], at: str, learnt: bool) -> list[str]:
        """Say what a person has to know of the answers."""
        notes = []
        if counts["answers_lost"]:
            lost = f"{at}: {counts['answers_lost']:,} answers are in no window as a whole"
            notes.append(f"{lost}; nothing is learnt from the parts, and they cannot be found. Raise max_length")
        if counts["answers_repeated"]:
            found = f"{at}: {counts['answers_repeated']:,} answers stand in several places of their context"
            notes.append(f"{found}, and without answer_start the first is taken")
        if learnt and self.unanswerable and not self.validated:
            notes.append("there is no validation split: no answer is said where it is the likeliest (threshold 0)")
        if not learnt and counts["unanswerable"] and not self.unanswerable:
            found = f"{at}: {counts['unanswerable']:,} questions have no answer"
            notes.append(f"{found}, and no training question is like that: the model always gives one")
        return notes

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        from finetune.tasks.windows import collated

        return collated(examples, self.tokenizer)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> SpanOutputs:
        from finetune.tasks.windows import SpanOutputs

        return SpanOutputs.of(_scores(model, batch.inputs), batch)

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        from finetune.tasks.windows import SpanOutputs

        batch = self.collate([example]).to(next(model.parameters()).device)
        alone = {name: value for name, value in batch.inputs.items() if name != "attention_mask"}
        return SpanOutputs.of(_scores(model, alone), batch)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        """Predict the likeliest span of each example, whether or not it is likelier than no answer.

        Of several windows it is the span that is likeliest compared with no answer in its own window: logits have no
        common level in different windows (Clark & Gardner 2018, section 3).
        """
        from finetune.tasks.windows import best_spans

        found = self.outputs(model, batch)
        losses, windows = found.losses().tolist(), found.windows.cpu().numpy()
        best = best_spans(found.scores, found.marks, self.options.max_answer_length)
        predictions = []
        for number, example in enumerate(examples):
            [own] = np.nonzero(windows == number)
            window = int(best.margin[own].argmax())
            row, document = own[window], example.document
            text = ""
            if document is not None:
                places = document.places[document.starts[window] :]
                text = document.text[places[best.start[row], 0] : places[best.end[row], 1]].strip()
            own_chances = np.exp([best.chance[row], best.chance[row] - best.margin[row]])  # of it, and of no answer
            predictions.append(Prediction(text, losses[number], margin=float(best.margin[row]), chances=own_chances))
        return predictions

    def decide(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Choose the threshold with the best F1 (Rajpurkar et al. 2018, section 5, choose it so)."""
        from finetune.metrics import find

        metric = find(self.example_score)
        if metric is None:
            raise ValueError(f"there is no metric {self.example_score}")
        references = [example.reference for example in examples]
        margins = np.array([each.margin for each in predictions], dtype=float)
        said, silent = (
            metric.contributions({"prediction": texts, "reference": references})
            for texts in ([each.text for each in predictions], [""] * len(predictions))
        )
        return {THRESHOLD: best_threshold(margins, said, silent)}

    def decided(self, predictions: Sequence[Prediction], decision: Mapping[str, float]) -> list[Prediction]:
        """Say a span where it is likelier than no answer by more than the threshold."""
        threshold = decision.get(THRESHOLD, 0.0)
        if not self.unanswerable:
            return list(predictions)
        return [
            replace(each, text="") if each.margin is not None and each.margin <= threshold else each
            for each in predictions
        ]

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.spans import NearestSentence, NoAnswer

        silent: list[Baseline] = [NoAnswer()] if self.unanswerable else []
        return [*silent, NearestSentence(self.options)]


def _scores(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits of beginning and end of each token, (rows, T, 2) float32."""
    import torch

    found = model(**inputs)
    both = torch.stack([found.start_logits, found.end_logits], -1).float()
    return both[:, both.shape[1] - inputs["input_ids"].shape[1] :]  # virtual tokens before the text have some too
