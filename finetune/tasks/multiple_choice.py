"""Multiple choice: the right one of a question's choices, by a new head over each of them or by their likelihood.

The head, with a softmax over choices, is Radford et al. 2018, "Improving Language Understanding by Generative
Pre-Training", section 3.3, and Devlin et al. 2019 (BERT), section 4.4. Likelihoods of choices are Brown et al. 2020,
section 2.4; their softmax as a loss is Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper
than In-Context Learning", section 3.2, equation 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.core.answers import Answer, Column
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.data.rows import places_of
from finetune.models import has_choice_head
from finetune.tasks.asking import Asking, filled
from finetune.tasks.base import EncodedRows
from finetune.tasks.candidates import (
    HeadScores,
    Likelihoods,
    Scorer,
    beside,
    margin_norm,
    outputs_among,
    refuse_masked,
    tree,
)
from finetune.tasks.choice_columns import MOST_CHOICES, ChoiceColumns, Question, listed, name_of
from finetune.tasks.choosing import ChoosingTask
from finetune.tasks.trivial import Trivial
from finetune.tasks.used import with_options

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline


class MultipleChoiceOptions(Options):
    """Columns, what scores the choices, and encoding."""

    type: Literal["multiple-choice"]
    question: str = "question"
    """Column with the question, or with the beginning of what the choices go on with."""
    context: str | None = None
    """Column with the text that the question is about. Longer examples are cut at its end."""
    choices: str | list[str] = "choices"
    """Column with the list of choices, or with `{text: [...], label: [...]}`; or several columns, one for each choice.
    Rows may have different numbers of choices."""
    draw: int | None = Field(None, ge=1)
    """How many wrong choices to draw for each row, where the data bring none: among the right answers of other rows, in
    `answer`, of the same split, the same ones for every seed. The right one's place among them is drawn too."""
    draw_within: str | None = None
    """Column whose equal values rows have in common whose answers are drawn for each other (a section, a source), so
    that the wrong choices are near the right one. Default: all rows."""
    answer: str = "answer"
    """Column that names the right choice; with `draw`, that has it as text."""
    answer_is: Literal["text", "label", "index", "number", "letter"] | None = None
    """How it does: by the choice's text, by the label that the choices bring, by its place from 0 (`index`) or from 1
    (`number`), or by its letter. Default: what fits the answers of all examples, which is told; where two ways fit and
    differ, this has to be said."""
    head: Literal["model", "likelihood"] | None = None
    """`model`: a new head scores each choice beside its question. `likelihood`: a causal language model's own
    log-likelihood of the choice after the prompt, without a new head. Default: `model` where transformers has such a
    head for the model, else `likelihood`."""
    likelihood: Literal["sum", "mean"] = "sum"
    """Of `head: likelihood`, what is learnt and chosen by: log-likelihoods summed over the tokens of a choice, as
    lm-evaluation-harness does for `acc`, or their mean (Liu et al. 2022), which favours short choices less."""
    prompt: str | None = None
    """Of `head: likelihood`, what the model is asked, with `{question}`, `{context}` and `{choices}` (listed with
    letters) in their places. Default: the context, an empty line, `Question: {question}` and `Answer:`, a line each."""
    template: Literal["model", "none"] | None = None
    """Of `head: likelihood`: the prompt is the user's turn in the model's chat template and a choice the assistant's,
    with the token that ends it (`model`), or a choice follows the prompt after a space (`none`). Default: `model` where
    the tokenizer has a chat template."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    max_length: int = Field(256, ge=8)
    """Tokens that a question may have with its longest choice; the context of longer ones, or the question where there
    is none, is cut at its end, and that is counted in the data facts."""
    metrics: list[str] = Field(["accuracy", "nll"], min_length=1)
    """Metrics of the held-out tasks, the headline first; `accuracy_norm` for `head: likelihood`; `hub:NAME` loads one
    with `evaluate.load`."""

    @model_validator(mode="after")
    def _fit_together(self) -> MultipleChoiceOptions:
        # Not by what is set: a resolved recipe sets everything.
        if self.draw and (self.choices != type(self).model_fields["choices"].default or self.answer_is):
            raise ValueError("draw makes choices of answers that are texts; leave choices and answer_is out")
        if self.draw_within and not self.draw:
            raise ValueError("draw_within says from which rows wrong choices are drawn; say how many in draw")
        if not isinstance(self.choices, str) and len(self.choices) < 2:
            raise ValueError("choices are one column of lists, or two columns and more")
        if self.prompt is not None and "{question}" not in self.prompt:
            raise ValueError("prompt needs {question}, where the question goes")
        if self.prompt is not None and "{context}" in self.prompt and not self.context:
            raise ValueError("prompt has {context}; name its column in context")
        if self.head == "model" and "accuracy_norm" in self.metrics:
            raise ValueError("accuracy_norm compares likelihoods, and head: model has none")
        return self


@TASKS.register
class MultipleChoice(ChoosingTask):
    """Chooses one of the answers that a question brings, by a new head or by their likelihood."""

    name: ClassVar[str] = "multiple-choice"
    Options = MultipleChoiceOptions
    answer: ClassVar[Answer] = "choice"
    example_score: ClassVar[str] = "accuracy"

    options: MultipleChoiceOptions
    asking: Asking
    fixed: bool = False
    """Whether all questions have the same number of choices."""
    notes: tuple[str, ...] = ()

    def __init__(self, options: MultipleChoiceOptions, **known: Any):
        super().__init__(options, **known)
        self.columns = ChoiceColumns(options)

    @property
    def by_likelihood(self) -> bool:
        """Tell whether choices are scored by their likelihood; not before the base model's configuration is known,
        where the options do not say."""
        if self.options.head is None:
            return self._config is not None and not has_choice_head(self.config())
        return self.options.head == "likelihood"

    @property
    def new_head(self) -> bool:  # type: ignore[override]
        return not self.by_likelihood

    @property
    def causal(self) -> bool:
        return self.by_likelihood

    @property
    def architecture(self) -> str:
        return self.scores_by.architecture

    @property
    def scores_by(self) -> type[Scorer]:
        """The class of what gives choices their scores."""
        return Likelihoods if self.by_likelihood else HeadScores

    @cached_property
    def scorer(self) -> Scorer:
        """What gives choices their scores."""
        return self.scores_by(self.tokenizer)

    @property
    def pipeline_tag(self) -> str:
        return "text-generation" if self.by_likelihood else "multiple-choice"

    @property
    def fills(self) -> frozenset[Column]:
        probabilities: frozenset[Column] = frozenset(("probabilities",) if self.fixed else ())
        norms: frozenset[Column] = frozenset(("margin_norm",) if self.by_likelihood else ())
        return super().fills | probabilities | norms

    def inputs(self) -> list[str]:
        return self.columns.inputs()

    def check(self, data: Dataset, at: str) -> None:
        self.columns.check(data, at)

    def check_config(self) -> None:
        if not self.by_likelihood and "accuracy_norm" in self.options.metrics:
            found = "'accuracy_norm' compares likelihoods, and this model gets a new head, which has none"
            raise bad_input("task.metrics", found, "leave it out, or write task.head: likelihood")

    def check_model(self, model: Any) -> None:
        if self.by_likelihood:
            refuse_masked(model)

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        every = {"train": splits.train, "validation": splits.validation, **splits.held_out}
        found = self.columns.read({splits.at(name): data for name, data in every.items() if data})
        self._count([row for own in found.values() for row in own])
        learnt = Counter(self.columns.right(row) for row in found["data.train"])
        self.commonest = name_of(min(learnt, key=lambda place: (-learnt[place], place)))
        if self.by_likelihood:
            self.asking = Asking(tokenizer, self.options.template, self.today)

    def _count(self, rows: Sequence[Question]) -> None:
        """Give the choices of all questions ``rows`` their names; a head, which scores one choice, knows of none."""
        counts = Counter(len(row.choices) for row in rows)
        self.labels, self.fixed = tuple(map(name_of, range(max(counts)))), len(counts) == 1
        self.notes = self.columns.told(counts)

    def check_fitted(self, data: Dataset) -> None:
        self._count(self.columns.read({"data.train": data})["data.train"])

    def recall(self, known: Mapping[str, Any]) -> None:
        self.labels, self.fixed, self.columns.form = tuple(map(name_of, range(MOST_CHOICES))), True, "number"
        if self.by_likelihood:
            self.asking = Asking(self.tokenizer, self.options.template, self.today)

    def for_use(self, columns: Collection[str]) -> MultipleChoice:
        found: MultipleChoice = with_options(self, draw=None, draw_within=None)
        found.columns = ChoiceColumns(found.options)
        found.columns.form = "number"
        return found

    def stand_ins(self) -> dict[str, Any]:
        return {self.options.answer: 1}

    def spelt(self, data: Dataset, texts: Sequence[str]) -> list[str]:
        rows = zip(self.columns.rows(data, "data"), texts, strict=True)
        return [row.choices[self.labels.index(name)] for row, name in rows]

    def model_config(self) -> dict[str, Any]:
        return {"pad_token_id": self.tokenizer.pad_token_id}

    def encode(self, data: Dataset, at: str, training: bool) -> Encoded:
        task = copy(self)
        task.columns = self.columns.over(data)
        return super(MultipleChoice, task).encode(data, at, training)

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        examples, counts = [], Counter(cut=0)
        rows = zip(data["example"][:], places_of(data, at), self.columns.rows(data, at), strict=True)
        for number, where, row in rows:
            encode = self._asked if self.by_likelihood else partial(beside, self.tokenizer, self.options)
            inputs, branch, cut = encode(row, where)
            counts["cut"] += cut
            sizes = np.array(list(map(len, row.choices)), np.int64)
            right = self.columns.right(row)
            examples.append(Example(number, inputs, right, 1.0, name_of(right), branch=branch, sizes=sizes))
        return EncodedRows(examples, counts)

    def _pattern(self, row: Question) -> tuple[str, dict[str, str], str]:
        """Give the pattern of a prompt, what goes into its places, and the place of what is cut where it is long."""
        pattern = "Question: {question}\nAnswer:"
        pattern = self.options.prompt or ("{context}\n\n" + pattern if self.options.context else pattern)
        named = {"{question}": row.question, "{context}": row.context, "{choices}": listed(row.choices)}
        return pattern, named, "{context}" if "{context}" in pattern else "{question}"

    def prompted(self, row: Question) -> str:
        """Write what the model is asked, by likelihood, about a row."""
        return filled(*self._pattern(row)[:2])

    def _asked(self, row: Question, where: str) -> tuple[dict[str, np.ndarray], np.ndarray, bool]:
        """Encode the choices as answers to a prompt."""
        pattern, named, long = self._pattern(row)

        def prompted(text: str) -> str:
            return filled(pattern, {**named, long: text})

        asked = self.asking.fitting(named[long], prompted, row.choices, self.options.max_length, where)
        ids, branch = tree(*asked[:2])
        return {"input_ids": ids}, branch, asked[2]

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        notes = [f"{at}: {self.notes[0]}", *self.notes[1:]] if at == "data.train" else []
        return replace(encoded, facts=encoded.facts | counts | ({"notes": notes} if notes else {}), notes=notes)

    def shown(self, data: Dataset, encoded: Encoded) -> list[str]:
        rows = self.columns.rows(data, "data")
        return ["\n\n".join(filter(None, (row.context, row.question, listed(row.choices)))) for row in rows]

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        return outputs_among(self._compared(self.scorer.scores(model, batch), batch), batch)

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        device = next(model.parameters()).device
        batch = self.collate([example]).to(device)
        return outputs_among(self._compared(self.scorer.plain(model, example), batch), batch)

    def _compared(self, scores: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Compute what choices are compared by, (S,), from their scores."""
        if not self.by_likelihood or self.options.likelihood == "sum":
            return scores
        from finetune.tasks.causal.branches import tokens_of

        return scores / tokens_of(batch)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        scores = self.scorer.scores(model, batch)
        found = outputs_among(self._compared(scores, batch), batch)
        log_likelihoods = found.logits.log_softmax(-1).cpu().numpy()
        sums = outputs_among(scores, batch).logits.cpu().numpy()
        return [
            Prediction(
                text=self.labels[int(row.argmax())],
                loss=float(-row[example.target]),
                probabilities=np.exp(row) if self.fixed else None,
                margin_norm=self._margin_norm(example, own) if self.by_likelihood else None,
            )
            for own, row, example in zip(sums, log_likelihoods, examples, strict=True)
        ]

    def _margin_norm(self, example: Example, scores: np.ndarray) -> float:
        sizes = np.asarray(example.sizes)
        return margin_norm(scores[: len(sizes)], sizes, example.target)

    def trivial(self, examples: Sequence[Example]) -> Trivial | None:
        chance = np.array([1 / len(np.asarray(example.sizes)) for example in examples])
        place = super().trivial(examples)
        better = place is not None and place.scores.mean() > chance.mean()
        return place if better else Trivial("guessing", self.example_score, chance)

    def majority(self, examples: Sequence[Example]) -> float | None:
        """Compute the share that the commonest place gets right, or that chance does where that is more."""
        chance = float(np.mean([1 / len(np.asarray(example.sizes)) for example in examples]))
        return max(super().majority(examples) or 0.0, chance)

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.choices import CommonestPlace, LongestChoice, WordOverlap

        return [CommonestPlace(self.labels, self.fixed), LongestChoice(self.columns), WordOverlap(self.columns)]
