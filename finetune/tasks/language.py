"""Language modelling on plain text: what a base model was trained with, continued on texts of another domain
(Gururangan et al. 2020, "Don't stop pretraining", section 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from finetune.core.answers import Column
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.models import is_masked, rows_said
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.batching import Batching
from finetune.tasks.conversation import IGNORED
from finetune.tasks.corruption import bytes_before, corrupted, draw_spans, restored, sentinels_of, span_counts

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline
    from finetune.tasks.causal.loss_paths import Head, LossPath

MASKED, RANDOM = 0.8, 0.1
"""Of the tokens to predict, the shares that are masked and replaced by any token; the rest stay as they are (Devlin et
al. 2019, section 3.1)."""


class LanguageOptions(Options):
    """Column, objective, and how texts are cut."""

    type: Literal["language"]
    text: str = "text"
    """Column with the text."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    objective: Literal["auto", "masked", "causal", "span-corruption"] = "auto"
    """`masked`: predict hidden words from both sides; `causal`: predict the next one; `span-corruption`: write down
    hidden spans, each after the token `<extra_id_n>` that stands for it (encoder-decoders whose tokenizer has such
    tokens, as T5's; Raffel et al. 2020, section 3.1.4); `auto`: whichever the base was trained with."""
    max_length: int = Field(256, ge=8)
    """Tokens an example may have; longer texts are several examples."""
    share: float = Field(0.15, gt=0, lt=1)
    """Share of the tokens that are to be predicted, drawn anew each time an example is seen (masked and span
    corruption; Devlin et al. 2019 and Raffel et al. 2020, drawn anew as in Liu et al. 2019)."""
    span: float = Field(3.0, ge=1)
    """Mean length of a hidden span, in tokens (span corruption only; Raffel et al. 2020, section 3.3.4)."""
    packing: bool = Field(True, json_schema_extra=OPERATIONAL)
    """Put several examples into one row where that changes nothing (causal only)."""
    metrics: list[str] = Field(["loss"], min_length=1)
    """Metrics of the held-out tasks: `loss` is the negative log-likelihood of a token, in nats, `perplexity` its
    exponential, and `bits_per_byte` the same for each byte of text."""


@TASKS.register
class Language(Task):
    """Learns to continue text, or to fill in its gaps, whichever the base model was trained with."""

    name: ClassVar[str] = "language"
    Options = LanguageOptions
    new_head: ClassVar[bool] = False
    answer: ClassVar[None] = None
    example_score: ClassVar[str] = "loss"

    options: LanguageOptions
    masked: bool
    """Whether words are hidden and predicted where they stood."""
    spans: bool
    """Whether spans are hidden, and written down by a decoder."""
    sentinels: list[int]
    """Tokens that stand for hidden spans, in order."""
    tokens: int
    """How many tokens there are that tokenizer and model both know, counted from 0."""

    @property
    def architecture(self) -> str:
        if self.spans:
            return "AutoModelForSeq2SeqLM"
        return "AutoModelForMaskedLM" if self.masked else "AutoModelForCausalLM"

    @property
    def pipeline_tag(self) -> str:
        return "text2text-generation" if self.spans else "fill-mask" if self.masked else "text-generation"

    @property
    def fills(self) -> frozenset[Column]:
        return super().fills | {"bytes"}

    @property
    def dynamic(self) -> bool:
        return self.masked or self.spans

    @property
    def causal(self) -> bool:
        return not self.dynamic

    def inputs(self) -> list[str]:
        return [self.options.text]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_text

        require_text(data, self.options.text, at, "task.text")

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        self.recall({})

    def recall(self, known: Mapping[str, Any]) -> None:
        config, asked, tokenizer = self.config(), self.options.objective, self.tokenizer
        self.spans = bool(getattr(config, "is_encoder_decoder", False))
        self.masked = is_masked(config) and not self.spans
        self.tokens = min(len(tokenizer), rows_said(config) or len(tokenizer))
        own = "span-corruption" if self.spans else "masked" if self.masked else "causal"
        if asked not in ("auto", own):
            found = f"is {asked}, which a {config.model_type} model was not trained for"
            raise bad_input("task.objective", found, f"write {own}, or auto")
        if self.spans:
            self._find_sentinels(config)
        if self.masked and tokenizer.mask_token_id is None:
            found = "its tokenizer has no mask token, to hide words with"
            raise bad_input("model.source", found, "name the tokenizer that the model was trained with")

    def _find_sentinels(self, config: Any) -> None:
        """Find the tokens that stand for spans; refuse a model that has none, or fewer than a text may need."""
        options, known = self.options, rows_said(config) or len(self.tokenizer)
        self.sentinels = sentinels_of(self.tokenizer, known)
        if not self.sentinels or self.tokenizer.eos_token_id is None:
            found = f"is a {config.model_type} model whose tokenizer has no <extra_id_0>, ... or no end token"
            raise bad_input("model.source", f"{found}, to hide spans with", "use T5, an encoder or a decoder")
        spans = span_counts(options.max_length - 1, options.share, options.span)[1]
        if spans >= len(self.sentinels):
            found = f"a text of {options.max_length} tokens has {spans} hidden spans, and the tokenizer has tokens"
            advice = "lower task.max_length or task.share, or raise task.span"
            raise bad_input("task.max_length", f"{found} <extra_id_n> for {len(self.sentinels) - 1}", advice)

    def model_config(self) -> dict[str, Any]:
        return {"pad_token_id": self.tokenizer.pad_token_id}

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        end = None if self.masked else self.tokenizer.eos_token_id
        room, texts = self.options.max_length - (end is not None), data[self.options.text][:]
        how = {"truncation": True, "max_length": room, "return_overflowing_tokens": True}
        found = self.tokenizer(texts, **how, add_special_tokens=not self.spans, return_offsets_mapping=not training)
        owners: list[int] = found["overflow_to_sample_mapping"]
        examples: list[Example] = []
        rows: list[int] = []
        for number, ids in enumerate(found["input_ids"]):
            last = number + 1 == len(owners) or owners[number + 1] != owners[number]
            # What spans are hidden in ends every time, as T5's texts do.
            whole = np.asarray([*ids, end] if end is not None and (last or self.spans) else ids)
            if len(whole) > (2 if self.spans else 1) and (not self.masked or len(self._words(whole))):
                example = self._example(len(examples), whole)
                if not training:
                    before = 0 if number == 0 or owners[number - 1] != owners[number] else _end(found, number - 1)
                    example = replace(example, bytes=self._bytes(example, texts[owners[number]], before, found, number))
                examples.append(example)
                rows.append(owners[number])
        return EncodedRows(examples, Counter(cut=len(owners) - len(set(owners))), rows)

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        if not encoded.examples:
            raise bad_input("task.text", f"{at} has no text that could be learnt from", "give longer texts")
        return super().described(encoded, counts, data, at)

    def shown(self, data: Dataset, encoded: Encoded) -> list[str]:
        """List the pieces, with the words that are to be filled in."""
        return self.tokenizer.batch_decode(list(map(self._whole, encoded.examples)), skip_special_tokens=True)

    def _whole(self, example: Example) -> list[int]:
        """The tokens of a piece, hidden ones among them."""
        ids = example.inputs["input_ids"]
        if self.spans:
            return restored(ids, example.target, self.sentinels)
        found: list[int] = np.where(example.target == IGNORED, ids, example.target).tolist()
        return found

    def _bytes(self, example: Example, text: str, before: int, found: Any, number: int) -> float:
        """Count the bytes of the text that piece ``number`` predicts, which begins after ``before`` characters. A token
        has those from the end of the token before it on. Where tokens are drawn, it is their share of the piece's."""
        sizes, offsets = bytes_before(text), found["offset_mapping"][number]
        if self.causal:  # whose first token is not predicted
            return float(sizes[max(_end(found, number), before)] - sizes[max(offsets[0][1], before)])
        ids = example.inputs["input_ids"]
        if self.spans:
            tokens, predicted = len(ids) - 1, span_counts(len(ids) - 1, self.options.share, self.options.span)[0]
        else:
            tokens, predicted = len(self._words(ids)), int(example.weight)
        return float(sizes[max(_end(found, number), before)] - sizes[before]) * predicted / max(tokens, 1)

    def _example(self, number: int, ids: np.ndarray) -> Example:
        if self.masked:
            weight = float(max(1, round(self.options.share * len(self._words(ids)))))
            return Example(number, {"input_ids": ids}, np.full_like(ids, IGNORED), weight, "")
        if self.spans:
            hidden, spans = span_counts(len(ids) - 1, self.options.share, self.options.span)
            labels = hidden + spans + 2  # the last sentinel, and the end
            return Example(number, {"input_ids": ids}, np.full(labels, IGNORED), float(labels), "")
        # Nothing stands before the first token, or, in a packed row, another example.
        target = np.concatenate([[IGNORED], ids[1:]])
        return Example(number, {"input_ids": ids}, target, float(len(ids) - 1), "")

    def _words(self, ids: np.ndarray) -> np.ndarray:
        """Find the places of the tokens that are not special."""
        return np.flatnonzero(~np.isin(ids, self.tokenizer.all_special_ids))

    def resample(self, example: Example, seed: int) -> Example:
        if not self.dynamic:
            return example
        rng, ids = np.random.default_rng(seed), example.inputs["input_ids"]
        if self.spans:
            hidden = draw_spans(len(ids) - 1, self.options.share, self.options.span, rng)
            seen, target = corrupted(ids[:-1], hidden, self.sentinels, int(ids[-1]))
            return replace(example, inputs={"input_ids": seen}, target=target, origin=None)
        words = self._words(ids)
        hidden = rng.permutation(words)[: int(example.weight)]
        target, seen, how = np.full_like(ids, IGNORED), ids.copy(), rng.random(len(hidden))
        target[hidden] = ids[hidden]
        seen[hidden[how < MASKED]] = self.tokenizer.mask_token_id
        changed = hidden[(how >= MASKED) & (how < MASKED + RANDOM)]
        seen[changed] = rng.integers(0, self.tokens, len(changed))
        return replace(example, inputs={"input_ids": seen}, target=target, origin=None)

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        from finetune.tasks.causal.both_halves import collated
        from finetune.tasks.causal.packing import lay_out, packed_rows, with_mask

        if self.spans:
            return collated(examples, self.tokenizer)
        ids, targets = [example.inputs["input_ids"] for example in examples], [example.target for example in examples]
        rows = [[n] for n in range(len(ids))]
        if self.packing:
            rows = packed_rows([len(own) for own in ids], counts or [len(ids)])
        batch = lay_out(rows, ids, targets, self.tokenizer.pad_token_id)
        if self.packing:
            return batch
        if self.masked:  # whose positions some models count from another number than 0, and all by themselves
            batch = replace(batch, inputs={"input_ids": batch.inputs["input_ids"]})
        return with_mask(batch)

    @property
    def packing(self) -> bool:
        return self.options.packing and self.causal and self.batching == Batching.PACKED

    def packs(self, model: torch.nn.Module) -> bool:
        return self.packing and self._loss_path(model).packed

    def loss_path(self, model: torch.nn.Module, replicas: int = 1) -> str | None:
        from finetune.tasks.causal.loss_paths import HEADS

        if self.dynamic:
            return self.in_words(HEADS[self._head(model, replicas)])
        found = self._loss_path(model, replicas)
        return self.in_words(replace(found, packed=found.packed and self.packing))

    def _loss_path(self, model: torch.nn.Module, replicas: int = 1) -> LossPath:
        from finetune.tasks.causal.loss_paths import loss_path_of

        return loss_path_of(model, self._any_tokens(), replicas)

    def _head(self, model: torch.nn.Module, replicas: int = 1) -> Head:
        """Find where logits are computed."""
        from finetune.tasks.causal.both_halves import head_of_both
        from finetune.tasks.causal.loss_paths import masked_head_of

        if self.spans:
            return head_of_both(model, self._any_tokens(), replicas)
        if self.masked:
            return masked_head_of(model, self._any_tokens(), replicas)
        return self._loss_path(model, replicas).head

    def _any_tokens(self) -> list[int]:
        return np.linspace(0, self.tokens, 18, dtype=int)[1:-1].tolist()

    def arranged(self, model: torch.nn.Module, batch: Batch) -> Batch:
        from finetune.tasks.causal.packing import unpacked

        return batch if self.dynamic or self._loss_path(model).packed else unpacked(batch, self.tokenizer.pad_token_id)

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        from finetune.tasks.causal.both_halves import losses_of_both
        from finetune.tasks.causal.loss_paths import losses_of

        if self.spans:
            return losses_of_both(model, batch, self._head(model))
        return losses_of(model, self.arranged(model, batch), self._head(model), ahead=not self.masked)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        from finetune.tasks.causal.both_halves import outputs_of_both
        from finetune.tasks.causal.loss_paths import outputs_of

        if self.spans:
            return outputs_of_both(model, batch, self._head(model))
        return outputs_of(model, self.arranged(model, batch), self._head(model), ahead=not self.masked)

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        from finetune.tasks.causal.both_halves import plain_of_both
        from finetune.tasks.causal.loss_paths import plain_outputs

        if self.spans:
            return plain_of_both(model, example.inputs["input_ids"], example.target)
        return plain_outputs(model, example.inputs["input_ids"], example.target, ahead=not self.masked)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        return [Prediction("", loss) for loss in self.losses(model, batch).cpu().tolist()]

    def baselines(self, shots: int = 0) -> list[Baseline]:
        """List nothing: every pretrained model is beyond what counting words in the training texts predicts, and the
        rival that matters is the untuned model, which is scored as `base`."""
        return []


def _end(found: Any, number: int) -> int:
    """Find the character behind the last one that piece ``number`` of tokenised texts has."""
    return max((int(end) for _, end in found["offset_mapping"][number]), default=0)
