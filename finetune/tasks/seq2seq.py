"""One text made of another by an encoder-decoder: summaries, translations, corrections (Sutskever et al. 2014; Raffel
et al. 2020, section 2.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.core.answers import Answer, Column
from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Frame, Outputs, Prediction
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.models import WARM_STARTED, is_masked
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.conversation import words_in
from finetune.tasks.used import STAND_IN, with_lists

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.core.encoded import Examples
    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline
    from finetune.tasks.causal.loss_paths import Head


class Seq2SeqOptions(Options):
    """Columns, encoding and generation."""

    type: Literal["seq2seq"]
    source: str = "source"
    """Column with the text that is given."""
    target: str = "target"
    """Column with the text that is to be made of it."""
    prefix: str = ""
    """Put before every source, such as `summarize: `, by which T5 is told what to do (Raffel et al. 2020, section
    2.4)."""
    source_language: str | None = None
    """Language of the sources, as the tokenizer of a multilingual model (mBART, NLLB, M2M100) writes it, such as
    `eng_Latn`."""
    target_language: str | None = None
    """Language of the targets; answers begin with its token."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    max_length: int = Field(512, ge=4)
    """Tokens a source may have; longer ones are cut at the end, and counted in the data facts. The default is what T5
    was trained with."""
    max_target_length: int = Field(128, ge=2)
    """Tokens a training target may have; longer ones are cut at the end, and counted. Held-out targets are never cut:
    their loss is that of the whole text."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest generated answer, in tokens."""
    num_beams: int = Field(1, ge=1)
    """Beams of beam search; 1: greedy decoding."""
    metrics: list[str] = Field(["rouge_l", "chrf", "sacrebleu", "loss"], min_length=1)
    """Metrics of the held-out tasks, the headline first; `hub:NAME` loads one with `evaluate.load`."""

    @model_validator(mode="after")
    def _both_languages(self) -> Seq2SeqOptions:
        if (self.source_language is None) != (self.target_language is None):
            raise ValueError("give both source_language and target_language, or neither")
        return self


@TASKS.register
class Seq2Seq(Task):
    """Writes a text that is made of another (summaries, translations), with an encoder-decoder."""

    name: ClassVar[str] = "seq2seq"
    Options = Seq2SeqOptions
    new_head: ClassVar[bool] = False
    answer: ClassVar[Answer] = "text"
    example_score: ClassVar[str] = "rouge_l"

    options: Seq2SeqOptions
    whole: bool
    """Whether the base model has both halves, and not an encoder that becomes both."""
    start: int | None
    """The token with which a decoder begins; None: none is known."""

    @property
    def architecture(self) -> str:
        return "AutoModelForSeq2SeqLM" if self.whole else WARM_STARTED

    @property
    def pipeline_tag(self) -> str:
        return "text2text-generation"

    @property
    def fills(self) -> frozenset[Column]:
        return super().fills | {"bytes"}

    def inputs(self) -> list[str]:
        return [self.options.source]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import refuse_empty, require_text

        for option in ("source", "target"):
            column = getattr(self.options, option)
            require_text(data, column, at, f"task.{option}")
            refuse_empty(data, column, at, f"task.{option}")

    def check_config(self) -> None:
        config = self.config()
        if getattr(config, "is_encoder_decoder", False):
            return
        if not is_masked(config):
            found = f"is a {config.model_type} model, a decoder, which continues one text"
            advice = (
                "use an encoder-decoder, such as T5 or BART, or an encoder, of which one is made; or task type chat"
            )
            raise bad_input("model.source", found, advice)
        from finetune.models.warm_started import check_encoder

        check_encoder(config)

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        self.recall({})

    def recall(self, known: Mapping[str, Any]) -> None:
        config, tokenizer = self.config(), self.tokenizer
        self.whole = bool(getattr(config, "is_encoder_decoder", False))
        own = getattr(config, "decoder_start_token_id", None)
        # And not with padding, which transformers hides from such a decoder.
        first = (tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id)
        self.start = own if self.whole else _first(*first)
        if self.start is None:
            found = "does not say with which token its decoder begins"
            advice = "write decoder_start_token_id into its config.json, as the model's authors have it"
            raise bad_input("model.source", found, advice)
        if self.end is None:
            raise bad_input("model.source", "its tokenizer has no end token, by which answers end", "name another one")
        self._speak()

    @property
    def end(self) -> int | None:
        """The token that ends a target."""
        return _first(self.tokenizer.eos_token_id, self.tokenizer.sep_token_id)

    def _speak(self) -> None:
        """Take a tokenizer that reads the task's languages, and refuse one that it does not know. It is a copy: the
        other one is shared with tasks of other languages."""
        options, tokenizer = self.options, self.tokenizer
        for option in ("source_language", "target_language"):
            word, unknown = getattr(options, option), tokenizer.unk_token_id
            if word is None:
                continue
            if not hasattr(tokenizer, "src_lang"):
                raise bad_input(f"task.{option}", f"is '{word}', and this tokenizer knows no languages", "leave it out")
            if self._language(word) in (None, unknown):
                advice = "write it as the model's card does, such as eng_Latn (NLLB), en_XX (mBART) or en (M2M100)"
                raise bad_input(f"task.{option}", f"this tokenizer knows no language '{word}'", advice)
        if options.source_language is not None:
            self.tokenizer = tokenizer = deepcopy(tokenizer)
            tokenizer.src_lang, tokenizer.tgt_lang = options.source_language, options.target_language

    def _language(self, word: str) -> int | None:
        """The number of the token that stands for a language."""
        codes: dict[str, int] = getattr(self.tokenizer, "lang_code_to_id", None) or {}
        found: Any = codes.get(word, self.tokenizer.convert_tokens_to_ids(word))
        return found

    def check_model(self, model: Any) -> None:
        from finetune.tasks.causal.both_halves import shifting

        if shifting(model) is None:
            found = f"is a {model.config.model_type} model, which does not say how its decoder's inputs are made"
            raise bad_input("model.source", found, "use another encoder-decoder, such as T5 or BART")

    def stand_ins(self) -> dict[str, Any]:
        return {self.options.target: STAND_IN}

    def answered(self, data: Dataset, texts: Sequence[str]) -> Dataset:
        return with_lists(data, {self.options.target: texts})

    def positions(self, examples: Examples) -> np.ndarray:
        return np.maximum(examples.lengths, np.maximum(examples.label_counts, self.options.max_new_tokens + 1))

    def model_config(self) -> dict[str, Any]:
        padding = {"pad_token_id": self.tokenizer.pad_token_id}
        if self.whole:
            return padding
        return {**padding, "decoder_start_token_id": self.start, "bos_token_id": self.start, "eos_token_id": self.end}

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        options, tokenizer = self.options, self.tokenizer
        sources = [f"{options.prefix}{text}" for text in data[options.source][:]]
        wanted: list[str] = data[options.target][:]
        limit = min(options.max_length, tokenizer.model_max_length)
        given = tokenizer(sources, truncation=True, max_length=limit, return_attention_mask=False)
        counts = Counter(cut=sum(bool(encoding.overflowing) for encoding in given.encodings), cut_targets=0)
        targets = tokenizer(text_target=wanted)["input_ids"]
        rows = zip(data["example"][:], given["input_ids"], targets, wanted, strict=True)
        examples = []
        for number, ids, labels, text in rows:
            target = self._target(labels)
            if training and len(target) > options.max_target_length:
                target = np.append(target[: options.max_target_length - 1], target[-1:])
                counts["cut_targets"] += 1
            source = np.asarray(ids, np.int32)
            learnt, written = float(len(target)), len(text.encode("utf-8", "surrogatepass"))
            examples.append(Example(number, {"input_ids": source}, target, learnt, text, source, bytes=float(written)))
        return EncodedRows(examples, counts, sizes={"answer_tokens": [len(each.target) for each in examples]})

    def _target(self, ids: Sequence[int]) -> np.ndarray:
        """Labels (S,) of a target's tokens: they end with the end token, and do not begin with what a decoder is given
        first anyway."""
        own = list(ids[1:] if ids and ids[0] == self.start and ids[0] != self.end else ids)
        return np.asarray(own if own and own[-1] == self.end else [*own, self.end], np.int64)

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        from finetune.tasks.causal.both_halves import collated

        return collated(examples, self.tokenizer)

    def loss_path(self, model: torch.nn.Module, replicas: int = 1) -> str | None:
        from finetune.tasks.causal.loss_paths import HEADS

        return self.in_words(HEADS[self._head(model, replicas)])

    def _head(self, model: torch.nn.Module, replicas: int = 1) -> Head:
        from finetune.tasks.causal.both_halves import head_of_both

        return head_of_both(model, np.linspace(0, len(self.tokenizer), 18, dtype=int)[1:-1].tolist(), replicas)

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        from finetune.tasks.causal.both_halves import losses_of_both

        return losses_of_both(model, batch, self._head(model))

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        from finetune.tasks.causal.both_halves import outputs_of_both

        return outputs_of_both(model, batch, self._head(model))

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        from finetune.tasks.causal.both_halves import plain_of_both

        return plain_of_both(model, example.inputs["input_ids"], example.target)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        return [Prediction("", loss) for loss in self.losses(model, batch).cpu().tolist()]

    def generate(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[str]:
        from finetune.tasks.causal.generation import answers

        prompts = [example.prompt for example in examples if example.prompt is not None]
        ends, options, filler = [self.end or 0], self.options, int(self.tokenizer.pad_token_id or 0)
        found = answers(model, prompts, filler, ends, options.max_new_tokens, self.answering, **self.generating())
        return [words_in(ids, Frame(), self.tokenizer, ends) for ids in found]

    def generating(self) -> dict[str, Any]:
        """Give the settings of transformers' generation by which targets are written, where they are not the usual."""
        settings: dict[str, Any] = {} if self.options.num_beams == 1 else {"num_beams": self.options.num_beams}
        if self.options.target_language is not None:
            settings["forced_bos_token_id"] = self._language(self.options.target_language)
        return settings

    def baselines(self, shots: int = 0) -> list[Baseline]:
        from finetune.tasks.baselines.copied import CommonestTarget, CopySource, LeadSentence

        return [LeadSentence(self.options.source), CopySource(self.options.source), CommonestTarget()]


def _first(*tokens: Any) -> int | None:
    """The first of ``tokens`` that there is."""
    return next((int(token) for token in tokens if token is not None), None)
