"""Labels as words: a causal language model says how likely each label's words are after the text.

Pattern and verbaliser are from Schick & Schütze 2021, "Exploiting Cloze Questions for Few Shot Text Classification and
Natural Language Inference", section 3; contextual calibration from Zhao et al. 2021, "Calibrate Before Use: Improving
Few-Shot Performance of Language Models", section 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.core.answers import Answer, Column
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input, did_you_mean
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.tasks.asking import Asking
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.candidates import Likelihoods, outputs_among, refuse_masked, tree
from finetune.tasks.choosing import ChoosingTask
from finetune.tasks.label_column import LabelColumn
from finetune.tasks.labels import refuse_unknown

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline

PLACE = "{text}"
"""Where in a prompt the text stands."""


class LabelWordsOptions(Options):
    """Columns, words and prompt."""

    type: Literal["label-words"]
    text: str = "text"
    """Column with the text. Prompts of several columns are made in `data.columns`."""
    label: str = "label"
    """Column with the label, text or whole number."""
    verbaliser: dict[str, str] = Field({})
    """The words that stand for a label, by label. Those of others are their names, with underscores as blanks."""
    prompt: str = "Text: {text}\n\nQuestion: Which category does this text belong to?\nAnswer:"
    """What the model is asked, with the text in the place of `{text}`. The words of a label are its answers."""
    template: Literal["model", "none"] | None = None
    """`model`: the prompt is the user's turn in the model's own chat template, and the words are the assistant's, with
    the token that ends them. `none`: the words follow the prompt after a space, and nothing follows them. Default:
    `model` where the tokenizer has a chat template."""
    calibrate: Literal["none", "contextual"] = "none"
    """`contextual`: divide the probability of each label's words by the one that they have after a text without content
    (Zhao et al. 2021), so that words which the model likes to say count no more than others. Each example is nearly
    twice as long for it, in training as in scoring."""
    content_free: str = "N/A"
    """The text without content, for `calibrate`. Zhao et al. average over `N/A`, an empty text and `[MASK]`."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    max_length: int = Field(256, ge=8)
    """Tokens that a prompt may have with the longest label's words; texts of longer ones are cut at their end, and
    counted in the data facts."""
    metrics: list[str] = Field(["accuracy", "macro_f1", "mcc", "nll"], min_length=1)
    """Metrics of the held-out tasks, the headline first; `hub:NAME` loads one with `evaluate.load`."""

    @model_validator(mode="after")
    def _has_a_place(self) -> LabelWordsOptions:
        if self.prompt.count(PLACE) != 1:
            raise ValueError(f"prompt needs {PLACE} once, where the text goes")
        return self


@TASKS.register
class LabelWords(ChoosingTask):
    """Predicts one label for each text by the likelihood of its words, without a new head."""

    name: ClassVar[str] = "label-words"
    Options = LabelWordsOptions
    architecture = Likelihoods.architecture
    causal = True
    new_head: ClassVar[bool] = False
    answer: ClassVar[Answer] = "label"
    example_score: ClassVar[str] = "accuracy"
    pipeline_tag = "text-generation"

    options: LabelWordsOptions
    column: LabelColumn
    asking: Asking
    combining: bool = True
    """Whether what is calibrated is made of the two scores that each label has."""

    @property
    def fills(self) -> frozenset[Column]:
        return super().fills | {"probabilities"}

    @cached_property
    def scorer(self) -> Likelihoods:
        """What gives the labels their scores."""
        return Likelihoods(self.tokenizer)

    def inputs(self) -> list[str]:
        return [self.options.text]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_labels, require_text

        require_text(data, self.options.text, at, "task.text")
        require_labels(data, self.options.label, at, "task.label")

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        self.column = LabelColumn(self.options.label, splits)
        self.labels, self.commonest = self.column.labels, self.column.commonest
        self._refuse_unfit_words()
        self.asking = Asking(tokenizer, self.options.template, self.today)

    def adopt(self, fitted: Task) -> None:
        super().adopt(fitted)
        self.recall({})

    def check_fitted(self, data: Dataset) -> None:
        self._refuse_unfit_words()
        refuse_unknown(self.column.counts(data), self.labels, "task.label", self.options.label)

    def _refuse_unfit_words(self) -> None:
        """Refuse words of labels that there are not, and those that tell no labels apart."""
        unknown = sorted(set(self.options.verbaliser) - set(self.labels))
        if unknown:
            found = f"'{unknown[0]}' is no label of the training examples"
            raise bad_input("task.verbaliser", found, did_you_mean(unknown[0], self.labels))
        by_words: dict[str, str] = {}
        for label, words in zip(self.labels, self.words, strict=True):
            if not words:
                raise bad_input("task.verbaliser", f"label '{label}' has no words", "write some")
            if words in by_words:
                found = f"labels '{by_words[words]}' and '{label}' have the same words, '{words}'"
                raise bad_input("task.verbaliser", found, "give each label words of its own")
            by_words[words] = label

    def recall(self, known: Mapping[str, Any]) -> None:
        self.column = LabelColumn.known(self.options.label, self.labels)
        self.asking = Asking(self.tokenizer, self.options.template, self.today)

    def stand_ins(self) -> dict[str, Any]:
        return {self.options.label: self.labels[0]}

    @property
    def words(self) -> list[str]:
        """The words of each label."""
        said = self.options.verbaliser
        return [said.get(label, " ".join(label.replace("_", " ").split())).strip() for label in self.labels]

    def check_model(self, model: Any) -> None:
        refuse_masked(model)

    def model_config(self) -> dict[str, Any]:
        return {"pad_token_id": self.tokenizer.pad_token_id}

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        from finetune.data.rows import places_of

        examples, counts = [], Counter(cut=0)
        numbers, free = {label: number for number, label in enumerate(self.labels)}, self._free(at)
        texts, labels = data[self.options.text][:], self.column.of(data)
        for number, where, text, label in zip(data["example"][:], places_of(data, at), texts, labels, strict=True):
            asked = self.asking.fitting(text, self.prompted, self.words, self.options.max_length, where)
            prompt, words, cut = asked
            counts["cut"] += cut
            parts = [*free, tree(prompt, words, 1 + len(free) * len(words))]
            ids, branch = (np.concatenate(own) for own in zip(*parts, strict=True))
            examples.append(Example(number, {"input_ids": ids}, numbers[label], 1.0, label, branch=branch))
        return EncodedRows(examples, counts)

    def prompted(self, text: str) -> str:
        """Write what the model is asked about a text."""
        return self.options.prompt.replace(PLACE, text)

    def _free(self, at: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Make the tokens and branches of the labels after the text without content; none where not calibrated."""
        if self.options.calibrate == "none":
            return []
        prompt, words = self.asking.tokens(self.prompted(self.options.content_free), self.words)
        return [tree(prompt, words)]

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        labels = {"labels": dict(sorted(self.column.counts(data).items()))}
        return replace(encoded, facts=labels | encoded.facts | counts)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        return outputs_among(self._calibrated(self.scorer.scores(model, batch)), self._once(batch))

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        device = next(model.parameters()).device
        scores = self._calibrated(self.scorer.plain(model, example))
        return outputs_among(scores, self._once(self.collate([example]).to(device)))

    def uncombined(self) -> LabelWords:
        found = copy(self)
        found.combining = False
        return found

    @property
    def _calibrates(self) -> bool:
        return self.combining and self.options.calibrate != "none"

    def _calibrated(self, scores: torch.Tensor) -> torch.Tensor:
        """Compute the scores of labels, (N * labels,), from those of all candidates, which have the ones after the text
        without content first."""
        if not self._calibrates:
            return scores
        free, own = scores.view(-1, 2, len(self.labels)).unbind(1)
        return (own - free).flatten()

    def _once(self, batch: Batch) -> Batch:
        """``batch`` as if its labels were there once."""
        branch = batch.branch
        return (
            batch
            if branch is None or not self._calibrates
            else replace(batch, branch=branch.clamp(max=len(self.labels)))
        )

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        log_likelihoods = self.outputs(model, batch).logits.log_softmax(-1).cpu().numpy()
        return [
            Prediction(text=self.labels[int(row.argmax())], loss=float(-row[example.target]), probabilities=np.exp(row))
            for row, example in zip(log_likelihoods, examples, strict=True)
        ]

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.labels import CommonestLabel, TfidfLogistic

        return [CommonestLabel(self.labels), TfidfLogistic(self.labels, self.shown)]
