"""Texts as vectors, learnt from pairs of them (Reimers & Gurevych 2019, "Sentence-BERT", section 3), or from labels of
single ones (Tunstall et al. 2022, "SetFit", section 3.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from finetune.core.answers import Answer
from finetune.core.encoded import INPUT, Encoded, Examples
from finetune.core.errors import bad_input
from finetune.core.examples import PART, Batch, Example, Prediction, pad
from finetune.core.numbers import exact
from finetune.core.registry import TASKS
from finetune.data.labels import natural
from finetune.models import Pooling, is_masked, width_of
from finetune.models.pooling import EMBEDDED, declare
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.contrastive.drawing import Rows, joined
from finetune.tasks.contrastive.options import UNKNOWN, EmbeddingOptions
from finetune.tasks.contrastive.ranks import ranks
from finetune.tasks.encoding import encode
from finetune.tasks.texts import tokenised
from finetune.tasks.used import with_options

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline, ExampleSet
    from finetune.tasks.contrastive.losses import Embedded


@TASKS.register
class Embedding(Task):
    """Gives each text a vector, near to those of texts that mean the same, from pairs of texts or from labels."""

    name: ClassVar[str] = "embedding"
    Options = EmbeddingOptions
    new_head: ClassVar[bool] = False
    answer: ClassVar[Answer] = "number"
    architecture = EMBEDDED

    options: EmbeddingOptions
    codes: dict[str, int]
    """Numbers of the labels, or of the second texts of pairs without a score: equal ones are equally right."""
    pool: Callable[[], Rows]
    """The training examples that others are drawn from, tokenised when they are first asked for."""
    drawing: bool = True
    """Whether others are drawn with an example anew each time."""
    alone: bool = False
    """Whether each text is given its vector, and nothing is compared with other rows."""

    @property
    def example_score(self) -> str:  # type: ignore[override]
        return "loss" if self.options.score else "recall_at_1"

    @property
    def pipeline_tag(self) -> str:
        return "sentence-similarity"

    @property
    def dynamic(self) -> bool:
        return self.drawing and not self.alone and self.options.others is not None

    @property
    def roles(self) -> int:
        """Count the texts of a row."""
        return len(self.options.texts)

    def inputs(self) -> list[str]:
        return self.options.texts[:2]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_labels, require_numbers, require_words

        names = ("text", "pair", "negative")
        for option in (name for name in names if getattr(self.options, name)):
            require_words(data, getattr(self.options, option), at, f"task.{option}")
        if self.options.label:
            require_labels(data, self.options.label, at, "task.label")
        if self.options.score:
            require_numbers(data, self.options.score, at, "task.score", *self.options.score_range)
        if self.options.negative:
            self._refuse_right_negatives(data, at)

    def _refuse_right_negatives(self, data: Dataset, at: str) -> None:
        """Refuse a wrong text that is the right one."""
        from finetune.data.rows import places_of

        assert self.options.pair is not None and self.options.negative is not None
        both = data[self.options.pair][:], data[self.options.negative][:]
        for where, right, wrong in zip(places_of(data, at), *both, strict=True):
            if right.split() == wrong.split():
                found = f"{where}: the text that is wrong is the right one, {wrong!r:.60}"
                raise bad_input("task.negative", found, "take this row out of the file, or name another column")

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        held_out = [data for data in (splits.validation, *splits.held_out.values()) if data is not None]
        if self.options.meaning is None:
            self.codes = {}
            self._refuse_one_score(splits)
        else:
            every = (map(str, data[self.options.meaning]) for data in (splits.train, *held_out))
            first = next(every)
            known = dict.fromkeys(first)
            if len(known) < 2:
                found = f"column '{self.options.meaning}' has one value only in the training examples"
                advice = "there is nothing to tell apart; check the column, the split and data.split.stratify"
                raise bad_input(f"task.{'label' if self.options.label else 'pair'}", found, advice)
            names = sorted({*known, *(value for values in every for value in values)}, key=natural)
            self.codes = {name: number for number, name in enumerate(names)}
        self.pool = _Once(lambda: self._rows(splits.train)[0])

    def _refuse_one_score(self, splits: Splits) -> None:
        """Refuse pairs that all have one score: they say nothing of which are more alike, and no correlation with it
        exists."""
        sets = {"the training examples": splits.train} | {f"'{name}'": data for name, data in splits.held_out.items()}
        for name, data in sets.items():
            values = self._values(data)
            if len(values) > 1 and values.min() == values.max():
                found = f"column '{self.options.score}' has one value only in {name}"
                raise bad_input("task.score", found, "there is nothing to tell apart; check the column and the split")

    def pooled(self, pooling: Pooling) -> Task:
        """Where nobody says how, of a model that sees what follows the mean, of others the last token."""
        if pooling.mode == "auto":
            sees = is_masked(self.config()) or self.config().is_encoder_decoder
            reason = "the mean over all tokens" if sees else "the last token alone of a causal model has seen all of it"
            pooling = pooling.model_copy(update={"mode": "mean" if sees else "last", "reason": reason})
        if pooling.normalise is None:  # which no cosine depends on
            pooling = pooling.model_copy(update={"normalise": False})
        return super().pooled(pooling)

    def for_use(self, columns: Collection[str]) -> Embedding:
        pair = self.options.pair if self.options.pair in columns else None
        given = {"score": UNKNOWN} if pair else {"score": None, "label": UNKNOWN}
        plain = {"pair": pair, "label": None, "negative": None, "loss": "auto"}
        found: Embedding = with_options(self, **{**plain, **given})
        found.alone = True
        return found

    def stand_ins(self) -> dict[str, Any]:
        return {UNKNOWN: self.options.score_range[0]} if self.options.score else {UNKNOWN: UNKNOWN}

    def model_config(self) -> dict[str, Any]:
        return {"pad_token_id": self.tokenizer.pad_token_id}

    def positions(self, examples: Examples) -> np.ndarray:
        """The longest text of each example."""
        found = []
        for batch in examples.table.to_batches():
            column = batch[INPUT + PART]
            offsets, part = column.offsets.to_numpy(), column.values.to_numpy()
            starts = np.union1d(offsets[:-1], np.flatnonzero(np.diff(part)) + 1)
            sizes = np.diff(np.append(starts, offsets[-1]))
            longest = np.zeros(len(offsets) - 1, np.int64)
            np.maximum.at(longest, np.searchsorted(offsets, starts, "right") - 1, sizes)
            found.append(longest)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def encode(self, data: Dataset, at: str, training: bool) -> Encoded:
        task = self
        if not training:  # what is held out meets the same others each time, of its own set
            task = copy(self)
            task.drawing = False
        return encode(task, data, at, training)

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        rows, cut = self._rows(data)
        numbers, references = data["example"][:], self._references(data)
        examples = []
        for row, (number, reference) in enumerate(zip(numbers, references, strict=True)):
            # Scored pairs that are held out are compared with their scores alone, whatever is learnt.
            alone = self.alone or self.options.others is None or (self.options.score and not training)
            others = [] if alone else rows.others(row, self.options.drawn, self.options.others, number)
            inputs, values = rows.together([row, *others])
            examples.append(Example(number, inputs, values, 1.0, reference))
        return EncodedRows(examples, Counter(cut=cut))

    def _references(self, data: Dataset) -> list[str]:
        """The score of each pair as it was given; or the rank that what is right ought to have."""
        if self.options.score:
            return list(map(exact, data[self.options.score][:]))
        return ["1"] * data.num_rows

    def _rows(self, data: Dataset) -> tuple[Rows, int]:
        """The rows of ``data``, and how many of their texts were cut."""
        columns, cut = [], 0
        for name in self.options.texts:
            inputs, shortened = tokenised(data, [name], self.tokenizer, self.options.max_length)
            columns.append(inputs)
            cut += shortened
        return Rows(list(zip(*columns, strict=True)), self._values(data)), cut

    def _values(self, data: Dataset) -> NDArray[np.float64]:
        """The number of each row: its score between 0 and 1, or the code of what is right."""
        if self.options.score:
            low, high = self.options.score_range
            return (np.array(data[self.options.score][:], dtype=np.float64) - low) / (high - low)
        if self.alone:
            return np.zeros(data.num_rows)
        assert self.options.meaning is not None
        return np.array([self.codes[str(value)] for value in data[self.options.meaning][:]], dtype=np.float64)

    def resample(self, example: Example, seed: int) -> Example:
        """The same row with others, of the training examples. It is about as long as with those that it was encoded
        with: what is counted of lengths is right on average."""
        if not self.dynamic:
            return example
        rows, row = self.pool(), example.number
        others = rows.others(row, self.options.drawn, self.options.others, seed)
        split = {name: example.parts(values)[: self.roles] for name, values in example.inputs.items() if name != PART}
        own = [{name: parts[role] for name, parts in split.items()} for role in range(self.roles)]
        inputs = joined([*own, *(text for other in others for text in rows.texts[other])])
        values = (float(rows.values[row]), *rows.values[others].tolist())
        return replace(example, inputs=inputs, target=values, origin=None)

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        """One text a row, those of each example below each other."""
        import torch

        places = [example.parts(np.arange(example.length)) for example in examples]
        lengths = torch.tensor([len(part) for parts in places for part in parts])
        inputs = {
            name: pad(
                [example.inputs[name][part] for example, parts in zip(examples, places, strict=True) for part in parts],
                self.tokenizer.pad_token_id if name == "input_ids" else 0,
            )
            for name in examples[0].inputs
            if name != PART
        }
        real = torch.arange(inputs["input_ids"].shape[1])[None, :] < lengths[:, None]
        inputs["attention_mask"] = real.long()
        owners = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor([len(parts) for parts in places]))
        place = pad([part for parts in places for part in parts], 0)
        targets = torch.full((len(examples), max(len(example.target) for example in examples)), torch.nan)
        for row, example in zip(targets, examples, strict=True):
            row[: len(example.target)] = torch.tensor(example.target)
        return Batch(inputs, targets, example=owners[:, None].where(real, -1), place=place)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Embedded:
        return self._embedded(model(**batch.inputs).logits.float(), batch.targets, batch.example.amax(1))

    def plain(self, model: torch.nn.Module, example: Example) -> Embedded:
        import torch

        device = next(model.parameters()).device
        inputs = {name: example.parts(values) for name, values in example.inputs.items() if name != PART}
        texts = [
            {name: torch.tensor(parts[number]).long()[None].to(device) for name, parts in inputs.items()}
            for number in range(len(inputs["input_ids"]))
        ]
        vectors = torch.cat([model(**text).logits.float() for text in texts])
        targets = torch.tensor([example.target], device=device)
        return self._embedded(vectors, targets, torch.zeros(len(vectors), dtype=torch.long, device=device))

    def _embedded(self, vectors: torch.Tensor, targets: torch.Tensor, owners: torch.Tensor) -> Embedded:
        from finetune.tasks.contrastive.losses import Embedded

        how = {"kind": self.options.objective, "scale": self.options.scale, "roles": self.roles}
        return Embedded(vectors, targets, owners, len(targets), **how)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        """Of scored pairs the cosine; of others vectors, from which :meth:`completed` finds ranks."""
        found = self.outputs(model, batch)
        losses, units = found.losses().tolist(), found.units()[:, 0, :2].cpu().numpy()
        if self.options.score:
            cosines = found.cosines()[:, 0].tolist()
            scored = [self._scored(cosine, loss) for cosine, loss in zip(cosines, losses, strict=True)]
            both = zip(scored, units, strict=True)
            return [replace(each, vectors=own) for each, own in both] if self.alone else scored
        return [Prediction("", loss, vectors=own) for loss, own in zip(losses, units, strict=True)]

    @staticmethod
    def _scored(cosine: float, loss: float) -> Prediction:
        return Prediction(f"{cosine:.6f}", loss)

    def completed(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Prediction]:
        vectors = [each.vectors for each in predictions if each.vectors is not None]
        if not vectors:
            return list(predictions)
        both = np.stack(vectors)
        found = self._ranks(examples, lambda some: both[some, 0] @ both[:, -1].T)
        return [replace(each, text=str(rank), vectors=None) for each, rank in zip(predictions, found, strict=True)]

    def _ranks(self, examples: Sequence[Example], similar: Callable[[slice], NDArray[np.floating]]) -> list[int]:
        codes = np.array([example.target[0] for example in examples])
        return ranks(similar, codes, itself=self.options.pair is not None).tolist()

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.similarity import TfidfCosine

        def scored(held_out: ExampleSet, cosines: NDArray[np.float64]) -> list[Prediction]:
            wanted = [example.target[0] for example in held_out.examples]
            return [self._scored(one, (one - other) ** 2) for one, other in zip(cosines.tolist(), wanted, strict=True)]

        def ranked(held_out: ExampleSet, similar: Callable[[slice], NDArray[np.floating]]) -> list[Prediction]:
            return [Prediction(str(rank), None) for rank in self._ranks(held_out.examples, similar)]

        return [TfidfCosine(self.inputs(), scored, None if self.options.score else ranked)]

    def save_beside(self, folder: Path) -> None:
        """Make a sentence-transformers folder of it; of an encoder-decoder it would be another class's."""
        config = self.config()
        if self.pooling is not None and not config.is_encoder_decoder:
            limit = min(self.options.max_length, self.tokenizer.model_max_length)
            declare(self.pooling, width_of(config), limit, folder)


class _Once:
    """Calls a function the first time, and gives its result again: shared by copies of what holds it."""

    def __init__(self, make: Callable[[], Rows]):
        self.make, self.made = make, list[Rows]()

    def __call__(self) -> Rows:
        if not self.made:
            self.made.append(self.make())
        return self.made[0]
