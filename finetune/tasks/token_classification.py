"""Token classification: entities in a text, by a tag for each word (Tjong Kim Sang and De Meulder 2003; with one label
on each word's first token as in Devlin et al. 2019, section 5.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.core.answers import Answer
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.data.labels import natural, visible
from finetune.metrics.entities import OUTSIDE
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.tags import Sentence, outside, refuse_units, sentences_of, told, untagged
from finetune.tasks.texts import IGNORED, encodings_of, padded
from finetune.tasks.used import with_columns, with_lists

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline

BLANK = "\N{NO-BREAK SPACE}"
"""What a space inside a word is shown as, where spaces stand between words."""

COUNTED = ("cut", "dropped", "words_unseen")
"""Counts that are facts; the others are of how tags were written, and told in words."""


class TokenClassificationOptions(Options):
    """Columns and encoding."""

    type: Literal["token-classification"]
    words: str = "words"
    """Column with a list of words; .conll files are read so. What the model is shown are these words with a space
    between them."""
    tags: str = "tags"
    """Column with a list of tags, one for each word: `O`, `B-TYPE` and `I-TYPE` (IOB2 or IOB1), or those of BIOES. They
    are learnt and scored as IOB2."""
    text: str | None = None
    """Column with a text, in the place of words and tags. Its words are runs of letters and digits, and single
    signs."""
    spans: str | None = None
    """Column with the text's entities: a list of {start, end, label} or of [start, end, label], in characters from 0;
    `end` is the one after the last. They may not overlap; one that ends inside a word is widened."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    max_length: int = Field(256, ge=4)
    """Tokens an example may have. Of longer ones the end is neither learnt nor predicted: its words count as tagged
    `O` in every score, and are counted in the data facts."""
    metrics: list[str] = Field(["entity_f1", "token_accuracy"], min_length=1)
    """Metrics of the held-out tasks, the headline first; `hub:NAME` loads one with `evaluate.load`."""

    @model_validator(mode="after")
    def _text_goes_with_spans(self) -> TokenClassificationOptions:
        if (self.text is None) != (self.spans is None):
            missing = "spans" if self.spans is None else "text"
            raise ValueError(f"a text and its entities are text and spans; give {missing} too, or words and tags")
        return self


@TASKS.register
class TokenClassification(Task):
    """Tags each word of a text, which finds the entities in it, with a new linear head."""

    name: ClassVar[str] = "token-classification"
    Options = TokenClassificationOptions
    new_head: ClassVar[bool] = True
    answer: ClassVar[Answer] = "tags"
    example_score: ClassVar[str] = "sentence_f1"
    architecture = "AutoModelForTokenClassification"

    options: TokenClassificationOptions

    def inputs(self) -> list[str]:
        return [self.options.text or self.options.words]

    def check(self, data: Dataset, at: str) -> None:
        for _ in self.sentences(data, at):
            pass

    def sentences(self, data: Dataset, at: str) -> Iterator[Sentence]:
        """Read the rows of ``data``, read at recipe path ``at``, in their order."""
        return sentences_of(data, at, self.options)

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        kinds = self._kinds(splits.train, "data.train")
        if not kinds:
            found = "no training example has an entity: every word is tagged O"
            raise bad_input(self._column, found, "check the column and the split")
        ordered = sorted(kinds, key=natural)
        self.labels = (OUTSIDE, *(f"{mark}-{kind}" for kind in ordered for mark in "BI"))
        for name, data in {"validation": splits.validation, **splits.held_out}.items():
            if data is not None:
                self._refuse_unseen(self._kinds(data, name), f"'{name}'")

    def check_fitted(self, data: Dataset) -> None:
        option = self._column.removeprefix("task.")
        self._refuse_unseen(self._kinds(data, "data.train"), f"column '{getattr(self.options, option)}'")

    @property
    def _column(self) -> str:
        """The option that names the column with the entities."""
        return f"task.{'tags' if self.options.text is None else 'spans'}"

    def _refuse_unseen(self, kinds: Counter[str], what: str) -> None:
        """Refuse entities of types, in ``what``, that no training example has."""
        known = [label[2:] for label in self.labels if label.startswith("B-")]
        if unseen := sorted(set(kinds) - set(known)):
            raise bad_input(
                self._column,
                f"{what} has entities of types that no training example has: {_listed(unseen[:5])}",
                f"no model could learn them; training has {_listed(known[:12])}. Correct the tags, or add training "
                "examples",
            )

    def _kinds(self, data: Dataset, at: str) -> Counter[str]:
        """Count the entities of each type."""
        return Counter(tag[2:] for each in self.sentences(data, at) for tag in each.tags if tag.startswith("B-"))

    def asked(self, data: Dataset, at: str) -> Dataset:
        if self.options.spans is not None:
            return with_columns(data, {self.options.spans: []})
        return with_lists(data, {self.options.tags: untagged(data, self.options.words, at)})

    def model_config(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
            "pad_token_id": self.tokenizer.pad_token_id,
        }

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        read = list(self.sentences(data, at))
        inputs, encodings = encodings_of([[each.text for each in read]], self.tokenizer, self.options.max_length)
        examples, counts = list[Example](), Counter[str](cut=0)
        for number, own, encoding, each in zip(data["example"][:], inputs, encodings, read, strict=True):
            words = first_tokens(each.words, encoding.offsets or [(0, 0)])
            seen = int((words >= 0).sum())
            counts.update(each.seen)
            counts["cut"] += bool(encoding.overflowing)
            counts["words_unseen"] += len(each.words) - seen
            if training and not seen:
                counts["dropped"] += 1
                continue
            examples.append(Example(number, own, words, float(max(seen, 1)), " ".join(each.tags)))
        return EncodedRows(examples, counts)

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        if not len(encoded.examples):
            raise bad_input("task", f"the tokenizer makes no token of any word of {at}", "check the column")
        facts = {"labels": dict(sorted(self._kinds(data, at).items()))} | encoded.facts
        facts |= {name: count for name, count in counts.items() if name in COUNTED}
        refuse_units(counts, at)
        notes = told(counts, at)
        if unseen := counts["words_unseen"]:
            total = sum(len(example.reference.split()) for example in encoded.examples)
            notes.append(
                f"{at}: {unseen:,} of {total:,} words are beyond task.max_length, or have no token of their own: they "
                "are not learnt, and count as tagged O in every score"
            )
        return replace(encoded, facts=facts | ({"notes": notes} if notes else {}), notes=[*encoded.notes, *notes])

    def shown(self, data: Dataset, encoded: Encoded) -> list[str]:
        """List the words of each example with one space between them."""
        return [" ".join(word.replace(" ", BLANK) for word in each.spelt) for each in self.sentences(data, "the data")]

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        return padded(examples, self.tokenizer, [self._labels_of(example) for example in examples])

    def _labels_of(self, example: Example) -> np.ndarray:
        """Give the label of each token, (tokens,): that of the word which begins there, if one does."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        tags = np.array([numbers[tag] for tag in example.reference.split()])
        return np.where(example.target >= 0, tags[example.target], IGNORED)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        logits = model(**batch.inputs).logits
        learnt = batch.targets != IGNORED
        return Outputs(logits[learnt].float(), batch.targets[learnt], batch.example[learnt], batch.count)

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        import torch

        device = next(model.parameters()).device
        inputs = {name: torch.tensor(value).long()[None].to(device) for name, value in example.inputs.items()}
        labels = torch.tensor(self._labels_of(example), device=device)
        learnt = labels != IGNORED
        logits = model(**inputs).logits[0, learnt].float()
        return Outputs(logits, labels[learnt], torch.zeros_like(labels[learnt]), 1)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        found = self.outputs(model, batch)
        best = found.logits.softmax(-1).max(-1)
        said, owners, sure = (each.cpu().numpy() for each in (best.indices, found.owners, best.values))
        predictions = []
        for number, (example, loss) in enumerate(zip(examples, found.losses().tolist(), strict=True)):
            tags = [OUTSIDE] * len(example.reference.split())
            words, own = example.target[example.target >= 0], owners == number
            for word, label in zip(words.tolist(), said[own].tolist(), strict=True):
                tags[word] = self.labels[label]
            chances = np.full(len(tags), np.nan)  # of words that are not seen
            chances[words] = sure[own]
            predictions.append(Prediction(" ".join(tags), loss, chances=chances))
        return predictions

    def trivial_answers(self, examples: Sequence[Example]) -> list[str]:
        return [outside(len(example.reference.split())) for example in examples]

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.tags import CommonestTag, Gazetteer, WordLogistic

        return [kind(self.sentences) for kind in (CommonestTag, Gazetteer, WordLogistic)]


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(map(visible, kinds))


def first_tokens(words: Sequence[tuple[int, int]], tokens: Sequence[tuple[int, int]]) -> np.ndarray:
    """Find the word that begins with each token, (tokens,); -1: none does.

    ``words`` and ``tokens`` are given by their first character and the one after their last; special tokens have none.
    A space before a word may belong to its token. A token that spans several words is the first one's.
    """
    ends = [end for _, end in words]
    found, taken = np.full(len(tokens), -1), set[int]()
    places = np.searchsorted(ends, [start for start, _ in tokens], side="right")
    for place, ((start, end), word) in enumerate(zip(tokens, places.tolist(), strict=True)):
        if start < end and word < len(words) and words[word][0] < end and word not in taken:
            found[place] = word
            taken.add(word)
    return found
