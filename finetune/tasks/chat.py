"""Chat and causal fine-tuning: learn the answers of a conversation, or completions of prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.core.answers import Answer, Column
from finetune.core.encoded import Encoded
from finetune.core.errors import bad_input
from finetune.core.examples import Example
from finetune.core.options import OPERATIONAL, Options
from finetune.core.registry import TASKS
from finetune.models import is_masked
from finetune.tasks.answering import AnswerOptions, SamplingOptions, cut_at, refuse_unmatched, tokens_near
from finetune.tasks.base import EncodedRows
from finetune.tasks.baselines.answers import CopyFirstSentence, FewShot
from finetune.tasks.causal_task import CausalTask
from finetune.tasks.chat_columns import ChatColumns, Given, as_tools, in_row
from finetune.tasks.control import MARKS, Marker, special_tokens
from finetune.tasks.conversation import (
    IGNORED,
    Conversation,
    Tokens,
    joined,
    mistake_in_pair,
    refuse_unfit,
    shortened,
    tokenise,
    words_in,
)
from finetune.tasks.messages import readable
from finetune.tasks.templates import Template, told
from finetune.tasks.used import with_options

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.core.encoded import Examples
    from finetune.data import Splits
    from finetune.tasks.baselines.base import Baseline


class ChatOptions(Options):
    """Columns, encoding and generation."""

    type: Literal["chat"]
    messages: str | None = None
    """Column with a list of {role, content} and what else the model's template reads, such as `tool_calls`, or of
    ShareGPT's {from, value}. The assistant's turns are learnt, but for those with `weight: 0` or `train: false`; the
    last one is scored. Roles are those that the model's template knows. Without this and `prompt`, columns `messages`,
    `conversations`, or `instruction`, `input` and `output` are looked for."""
    prompt: str | None = None
    """Column with the prompt, shown as the user's turn."""
    completion: str | None = None
    """Column with the answer to learn."""
    rejected: str | None = None
    """Column with a worse answer to the same, in the form of `completion`, or of `messages` up to its own last turn:
    for strategy preference, and for the metrics that compare the two."""
    learn: Literal["all", "last"] = "all"
    """Which of the assistant's turns are learnt: all of them (but for those that the data leave out), or the last one
    alone, with all others to be read only, as comparing answers wants it."""
    system: str | None = None
    """System message put before every conversation that has none."""
    tools: str | None = None
    """Column with the tools that may be called: a list of JSON schemas, or that list as JSON text."""
    drop_keys: list[str] = Field([])
    """Keys of messages, such as `name`, that are left out although they say something, and counted; `tools` for the
    tools. Without it, a key that the model's template does not read is refused."""
    group: str | None = Field(None, json_schema_extra=OPERATIONAL)
    """Column whose equal values belong together (a document, a patient), so that errors are computed by group and not
    by example. A group must not be on both sides of a split: see `data.split.group` and `data.leaks`."""
    template: Literal["model", "none"] = "model"
    """`model`: the model's own chat template. `none`: prompt and completion follow each other as they are."""
    max_length: int = Field(1024, ge=8)
    """Tokens a training example may have."""
    too_long: Literal["cut", "drop", "refuse"] = "cut"
    """What happens to longer training examples: cut at the end (those left without an answer token are refused),
    dropped, or refused. Counted in the data facts."""
    packing: bool = Field(True, json_schema_extra=OPERATIONAL)
    """Put several examples into one row, as long as the longest, without their seeing each other, so that little is
    padding. A model that cannot keep them apart (one with a recurrent state, say) is noticed, and gets one a row."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest generated answer, in tokens."""
    sampling: SamplingOptions | None = None
    """Draw answers that are scored. Default: each token is the likeliest, the same every time."""
    stop: list[Annotated[str, Field(min_length=1)]] = Field([])
    """Texts at the first of which a generated answer ends; it and what follows are cut off. White space at the ends of
    an answer does not count, so that a line break before its first word ends nothing."""
    answer: AnswerOptions | None = None
    """Which part of a text is the answer: metrics that ask whether it is right (`exact_match`, `accuracy`, `macro_f1`,
    `mcc`) compare it alone, in what is generated and in the right answer, each of which has to have one; where a
    generated text has none, it is wrong (`answered` is the share that has one). `rouge_l`, `chrf` and those of the hub
    compare whole texts, which stay in `predictions/` beside it. Default: the whole text."""
    metrics: list[str] = Field(["rouge_l", "chrf", "exact_match", "loss"], min_length=1)
    """Metrics of the held-out tasks, the headline first; `hub:NAME` loads one with `evaluate.load`."""

    @model_validator(mode="after")
    def _one_form(self) -> ChatOptions:
        both = self.messages is not None and self.prompt is not None
        if both or (self.prompt is None) != (self.completion is None):
            raise ValueError("give either messages, or both prompt and completion")
        if self.prompt is None and self.messages is None and self.rejected is not None:
            raise ValueError("rejected needs messages, or both prompt and completion")
        if self.prompt is None and self.template == "none":
            raise ValueError("messages need the model's template; give prompt and completion for template: none")
        if self.system and self.template == "none":
            raise ValueError("a system message needs the model's template; put its text into the prompt")
        if self.tools and self.template == "none":
            raise ValueError("tools need the model's template; describe them in the prompt")
        if self.prompt is not None and self.learn == "last":
            raise ValueError(
                "learn: last is about conversations, and prompt and completion have one answer; leave it out"
            )
        if kept := {"role", "content"} & set(self.drop_keys):
            raise ValueError(f"drop_keys cannot hold {kept.pop()}, which every message needs")
        return self


@TASKS.register
class Chat(CausalTask):
    """Learns to answer, from messages or prompt and completion; the loss counts the answers only."""

    name: ClassVar[str] = "chat"
    Options = ChatOptions
    new_head: ClassVar[bool] = False
    answer: ClassVar[Answer] = "text"
    example_score: ClassVar[str] = "rouge_l"

    options: ChatOptions
    special: tuple[str, ...]
    """The tokenizer's special tokens."""
    shown_by: Template | None = None
    """The model's chat template; None: prompt and completion are joined as they are."""
    marker: Marker
    """Tells control tokens inside data from those that make turns."""

    def __init__(self, options: ChatOptions, **known: Any):
        super().__init__(options, **known)
        self.columns = ChatColumns(options)

    def inputs(self) -> list[str]:
        return self.columns.inputs()

    def converted(self, data: Dataset, at: str) -> Dataset:
        return self.columns.converted(data, at)

    def check(self, data: Dataset, at: str) -> None:
        self.columns.check(data, at)

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        self.recall({})

    def recall(self, known: Mapping[str, Any]) -> None:
        tokenizer = self.tokenizer
        self.special = special_tokens(tokenizer)
        refuse_unfit(tokenizer, self.options.template == "model")
        self.shown_by = Template(tokenizer, self.today or date.today()) if self.options.template == "model" else None
        self.marker = self.shown_by.of_others if self.shown_by else Marker(tokenizer, self.special)

    def for_use(self, columns: Collection[str]) -> Chat:
        found: Chat = with_options(self, rejected=None, answer=None)
        found.columns = ChatColumns(found.options)
        return found

    def asked(self, data: Dataset, at: str) -> Dataset:
        return self.columns.asked(data, at)

    def answered(self, data: Dataset, texts: Sequence[str]) -> Dataset:
        return self.columns.answered(data, texts)

    def positions(self, examples: Examples) -> np.ndarray:
        prompts, chosen = examples.prompts, examples.rejected
        asked = np.where(prompts < 0, 0, prompts + self.options.max_new_tokens)
        return np.maximum(asked, np.where(chosen < 0, examples.lengths, np.maximum(chosen, examples.lengths - chosen)))

    def check_config(self) -> None:
        config = self.config()
        if getattr(config, "is_encoder_decoder", False):  # whose decoder, run alone, would get embeddings of its own
            found = f"is a {config.model_type} model, an encoder-decoder, and chat continues one text"
            advice = "use a decoder, a model that was trained to continue text; or task type classification"
            raise bad_input("model.source", found, advice)

    def check_model(self, model: Any) -> None:
        # transformers gives such models an output layer on request, but their attention runs both ways.
        if is_masked(model.config):
            raise bad_input(
                "model.source",
                f"is a {model.config.model_type} model, which sees the words after the one that it is to predict",
                "use a model that was trained to continue text, or task type classification",
            )

    def model_config(self) -> dict[str, Any]:
        return {"pad_token_id": self.tokenizer.pad_token_id}

    @property
    def fills(self) -> frozenset[Column]:
        found: frozenset[Column] = frozenset(("extracted",) if self.options.answer else ())
        return super().fills | found

    def extracted(self, texts: Sequence[str]) -> list[str] | None:
        return None if self.options.answer is None else list(map(self.options.answer.find, texts))

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        from finetune.data.rows import places_of

        examples, refuse = [], self.options.too_long == "refuse"
        # Where it is not learnt from, a worse answer is of use in scoring only.
        paired = bool(self.options.rejected) and (self.pairs or not training)
        counts = Counter[str](cut=0, dropped=0)
        answers = [self._tokenised(data, False, at, counts)]
        answers += [self._tokenised(data, True, at, Counter())] if paired else []
        for number, where, *given in zip(data["example"][:], places_of(data, at), *answers, strict=True):
            tokens = [own for _, own in given]
            if training and max(len(own.ids) for own in tokens) > self.options.max_length:
                if self.options.too_long == "drop":
                    counts["dropped"] += 1
                    continue
                tokens = [shortened(own, self.options.max_length, refuse, where) for own in tokens]
                counts["cut"] += 1
            if paired and (mistake := mistake_in_pair(*tokens)):
                advice = "take this row out of the file; where both answers are cut, raise task.max_length"
                raise bad_input("task.rejected", f"{where}: {mistake}", advice)
            examples.append(self._example(number, given[0][0], tokens, training))
            if not training:
                self._held_out(examples[-1].reference, where, counts)
        answered = [int((each.target[: each.rejected] != IGNORED).sum()) for each in examples]
        return EncodedRows(examples, counts, sizes={"answer_tokens": answered})

    def _held_out(self, reference: str, where: str, counts: Counter[str]) -> None:
        """Refuse a right answer in which there is none to compare, and count one that cannot be generated."""
        options, said = self.options, cut_at(reference, self.options.stop)
        if options.answer:
            refuse_unmatched(reference, options.answer, where)
            reference, said = options.answer.find(reference), options.answer.find(said)
        counts.update(["answers_stopped"] if reference != said else [])

    def described(self, encoded: Encoded, counts: Counter[str], data: Dataset, at: str) -> Encoded:
        if not encoded.examples:
            raise bad_input(
                "task.max_length",
                f"{at}: all {counts['dropped']} examples are longer than {self.options.max_length} tokens",
                "raise task.max_length, or write task.too_long: cut",
            )
        notes = [*self.columns.told(data, at), *told(counts, at)]
        return replace(encoded, facts=encoded.facts | counts | ({"notes": notes} if notes else {}), notes=notes)

    def _tokenised(
        self, data: Dataset, rejected: bool, at: str, counts: Counter[str]
    ) -> list[tuple[Conversation, Tokens]]:
        """Tokenise the conversations of ``data``, with their chosen answers or their rejected ones."""
        from finetune.data.rows import places_of

        dropped: Counter[str] = Counter()
        conversations = []
        for where, given in zip(places_of(data, at), self.columns.rows(data, rejected, dropped), strict=True):
            with in_row(where, "task.messages" if self.columns.messages else "task.prompt"):
                conversations.append(self._conversation(given, counts))
        counts.update({f"dropped_{key}": number for key, number in dropped.items()})
        # A chat template writes its own special tokens; plain text needs the tokenizer's (such as a first token).
        tokens = tokenise(conversations, self.tokenizer, add_special=self.shown_by is None, marker=self.marker)
        return list(zip(conversations, tokens, strict=True))

    def _conversation(self, given: Given, counts: Counter[str]) -> Conversation:
        if self.shown_by:
            return self.shown_by.conversation(given.messages, as_tools(given.tools), counts)
        found = joined(self.marker.mark(given.prompt), self.marker.mark(given.answer), self.tokenizer)
        counts.update(["control_tokens"] if MARKS[0] in found.text else [])
        return found

    def _example(self, number: int, conversation: Conversation, tokens: Sequence[Tokens], training: bool) -> Example:
        """Make an example with an answer, or with a chosen and a rejected one."""
        learnt = float((tokens[0].labels != IGNORED).sum())
        return Example(
            number=number,
            inputs={"input_ids": np.concatenate([own.ids for own in tokens])},
            target=np.concatenate([own.labels for own in tokens]),
            weight=1.0 if training and self.pairs else learnt,
            reference=conversation.last_answer(self.special),
            prompt=tokens[0].prompt,
            frame=conversation.frame,
            rejected=len(tokens[0].ids) if len(tokens) > 1 else None,
        )

    def shown(self, data: Dataset, encoded: Encoded) -> list[str]:
        from finetune.data.nested import values_of

        return list(map(readable, values_of(data, self.inputs()[0])))

    def generate(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[str]:
        from finetune.tasks.causal.generation import Sampling, answers

        options, prompts = self.options, [example.prompt for example in examples if example.prompt is not None]
        ends, most = sorted(self.ends or self.end_tokens(examples)), options.max_new_tokens
        drawn = None
        if (asked := options.sampling) is not None:
            draws = asked.draws([example.number for example in examples], most)
            drawn = Sampling(draws, asked.temperature, asked.top_k, asked.top_p)

        def words(place: int, ids: Sequence[int]) -> str:
            return words_in(ids, examples[place].frame, self.tokenizer, ends)

        def stopped(place: int, ids: Sequence[int]) -> bool:
            near = self.tokenizer.decode(list(ids[-tokens_near(options.stop) :]), skip_special_tokens=True)
            # Looking at all of it, at each token, would take the square of the time.
            return (
                any(stop in near for stop in options.stop) and cut_at(said := words(place, ids), options.stop) != said
            )

        done = stopped if options.stop else None
        found = answers(model, prompts, self.tokenizer.pad_token_id, ends, most, self.answering, drawn, done)
        return [cut_at(words(place, ids), options.stop) for place, ids in enumerate(found)]

    def baselines(self, shots: int = 0) -> list[Baseline]:
        return [CopyFirstSentence(self.columns), *([FewShot(self, shots)] if shots else [])]
