"""Chat and causal fine-tuning: learn the answers of a conversation, or completions of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.errors import bad_input
from finetune.options import OPERATIONAL, Options
from finetune.progress import track
from finetune.registry import TASKS
from finetune.tasks.base import Encoded, Example, Outputs, Prediction, Task, token_facts
from finetune.tasks.batching import Batching
from finetune.tasks.conversation import (
    IGNORED,
    Conversation,
    Tokens,
    joined,
    mistake_in,
    mistake_in_pair,
    special_tokens,
    templated,
    tokenise,
)

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Splits
    from finetune.tasks.causal.ways import Way


class ChatOptions(Options):
    """Columns, encoding and generation."""

    type: Literal["chat"]
    messages: str | None = None
    """Column with a list of {role, content}; the assistant's turns are learnt, the last one is scored."""
    prompt: str | None = None
    """Column with the prompt, shown as the user's turn."""
    completion: str | None = None
    """Column with the answer to learn."""
    rejected: str | None = None
    """Column with a worse answer to the same, in the form of `completion`, or of `messages` up to its own last turn:
    for strategy preference, and for the metrics that compare the two."""
    system: str | None = None
    """System message put before every conversation that has none."""
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
    """Longest generated answer, in tokens; decoding is greedy."""
    metrics: list[str] = Field(["rouge_l", "chrf", "exact_match", "loss"], min_length=1)
    """Metrics of the held-out tasks, the headline first; `hub:NAME` loads one with `evaluate.load`."""

    @model_validator(mode="after")
    def _one_form(self) -> ChatOptions:
        if (self.messages is None) == (self.prompt is None) or (self.prompt is None) != (self.completion is None):
            raise ValueError("give either messages, or both prompt and completion")
        if self.messages and self.template == "none":
            raise ValueError("messages need the model's template; give prompt and completion for template: none")
        if self.system and self.template == "none":
            raise ValueError("a system message needs the model's template; put its text into the prompt")
        return self


@TASKS.register
class Chat(Task):
    """Learns to answer, from messages or prompt and completion; the loss counts the answers only."""

    name: ClassVar[str] = "chat"
    Options = ChatOptions
    architecture = "AutoModelForCausalLM"
    new_head: ClassVar[bool] = False
    example_score: ClassVar[str] = "rouge_l"

    options: ChatOptions
    special: tuple[str, ...]
    """The tokenizer's special tokens."""

    def inputs(self) -> list[str]:
        return [self.options.messages or self.options.prompt or ""]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_column, require_text

        for option in ("messages", "prompt", "completion", "rejected"):
            column, path = getattr(self.options, option), f"task.{option}"
            if column and not self.options.messages:
                require_text(data, column, at, path)
            elif column:
                require_column(data, column, at, path)
                for row, messages in enumerate(data[column], start=1):
                    if mistake := mistake_in(messages):
                        raise bad_input(path, f"{at}, row {row}: {mistake}", "give [{role: …, content: …}, …]")

    def fit(self, splits: Splits, tokenizer: PreTrainedTokenizerBase) -> None:
        super().fit(splits, tokenizer)
        self.special = special_tokens(tokenizer)
        if tokenizer.eos_token is None:
            raise bad_input(
                "model.source", "its tokenizer has no end token", "an answer could never end; set eos_token"
            )
        if self.options.template == "model" and not tokenizer.chat_template:
            raise bad_input(
                "task.template",
                "this model's tokenizer has no chat template",
                "use a chat model, or write task.template: none to join prompt and completion as they are",
            )
        if self.options.template == "none" and tokenizer("a").input_ids[-1] == tokenizer.eos_token_id:
            raise bad_input(
                "task.template",
                "this tokenizer ends every text with the end token, so prompts would end before their answers",
                "use the model's chat template, or a tokenizer without that habit",
            )

    def positions(self, example: Example) -> int:
        asked = 0 if example.prompt is None else len(example.prompt) + self.options.max_new_tokens
        return max(asked, *(len(ids) for ids in example.parts(example.inputs["input_ids"])))

    def check_config(self) -> None:
        config = self.config()
        if getattr(config, "is_encoder_decoder", False):  # whose decoder, run alone, would get embeddings of its own
            found = f"is a {config.model_type} model, an encoder-decoder, and chat continues one text"
            advice = "use a decoder, a model that was trained to continue text; or task type classification"
            raise bad_input("model.source", found, advice)

    def check_model(self, model: Any) -> None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        # transformers gives such models an output layer on request, but their attention runs both ways.
        if model.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not model.config.is_decoder:
            raise bad_input(
                "model.source",
                f"is a {model.config.model_type} model, which sees the words after the one that it is to predict",
                "use a model that was trained to continue text, or task type classification",
            )

    def model_config(self) -> dict[str, Any]:
        return {"pad_token_id": self.tokenizer.pad_token_id}

    def encode(self, data: Dataset, at: str, training: bool) -> Encoded:
        examples, cut, dropped = [], 0, 0
        # Where it is not learnt from, a worse answer is of use in scoring only.
        paired = bool(self.options.rejected) and (self.pairs or not training)
        answers = [self._tokenised(data, rejected) for rejected in ([False, True] if paired else [False])]
        for row, (number, *given) in enumerate(zip(data["example"], *answers, strict=True), start=1):
            tokens = [own for _, own in given]
            if training and max(len(own.ids) for own in tokens) > self.options.max_length:
                if self.options.too_long == "drop":
                    dropped += 1
                    continue
                tokens = [self._cut(own, at, row) for own in tokens]
                cut += 1
            if paired and (mistake := mistake_in_pair(*tokens)):
                advice = "take this row out of the file; where both answers are cut, raise task.max_length"
                raise bad_input("task.rejected", f"{at}, row {row}: {mistake}", advice)
            examples.append(self._example(number, given[0][0], tokens, training))
        if not examples:
            raise bad_input(
                "task.max_length",
                f"{at}: all {dropped} examples are longer than {self.options.max_length} tokens",
                "raise task.max_length, or write task.too_long: cut",
            )
        facts = {
            "tokens": token_facts([example.length for example in examples]),
            "cut": cut,
            "dropped": dropped,
            "answer_tokens": token_facts([int((e.target[: e.rejected] != IGNORED).sum()) for e in examples]),
        }
        return Encoded(examples, facts)

    def _tokenised(self, data: Dataset, rejected: bool) -> list[tuple[Conversation, Tokens]]:
        """The conversations of ``data``, with their chosen answers or their rejected ones."""
        conversations = [self._conversation(row, rejected) for row in track(data, "writing out conversations")]
        # A chat template writes its own special tokens; plain text needs the tokenizer's (such as a first token).
        tokens = tokenise(conversations, self.tokenizer, add_special=self.options.template == "none")
        return list(zip(conversations, tokens, strict=True))

    def _example(self, number: int, conversation: Conversation, tokens: Sequence[Tokens], training: bool) -> Example:
        """One with an answer, or with a chosen and a rejected one."""
        learnt = float((tokens[0].labels != IGNORED).sum())
        return Example(
            number=number,
            inputs={"input_ids": np.concatenate([own.ids for own in tokens])},
            target=np.concatenate([own.labels for own in tokens]),
            weight=1.0 if training and self.pairs else learnt,
            reference=conversation.last_answer(self.special),
            prompt=tokens[0].prompt,
            rejected=len(tokens[0].ids) if len(tokens) > 1 else None,
        )

    def _conversation(self, row: dict[str, Any], rejected: bool) -> Conversation:
        options = self.options
        if options.messages:
            turns = row[str(options.rejected if rejected else options.messages)]
            messages = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        else:
            prompt, answer = row[str(options.prompt)], row[str(options.rejected if rejected else options.completion)]
            if options.template == "none":
                return joined(prompt, answer, self.tokenizer)
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        if options.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": options.system})
        return templated(messages, self.tokenizer, self.special)

    def _cut(self, tokens: Tokens, at: str, row: int) -> Tokens:
        ids, labels, limit = tokens.ids, tokens.labels, self.options.max_length
        if len(ids) <= limit:  # one of a pair
            return tokens
        if self.options.too_long == "refuse":
            raise bad_input(
                "task.max_length",
                f"{at}, row {row} has {len(ids)} tokens, more than {limit}",
                f"raise task.max_length to {len(ids)}, or write task.too_long: cut",
            )
        if (labels[:limit] == IGNORED).all():
            raise bad_input(
                "task.max_length",
                f"{at}, row {row} has {len(ids)} tokens, and its answer begins after the first {limit}: cut there, "
                "nothing of it would be learnt",
                "raise task.max_length, shorten the prompt ({body:.800} in data.columns), or write task.too_long: drop",
            )
        return replace(tokens, ids=ids[:limit], labels=labels[:limit])

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
        from finetune.tasks.causal.packing import lay_out, packed_rows, with_mask
        from finetune.tasks.causal.pairs import together

        ids = [part for example in examples for part in example.parts(example.inputs["input_ids"])]
        targets = [part for example in examples for part in example.parts(example.target)]
        filler, each = self.tokenizer.pad_token_id, len(ids) // len(examples)
        if self.packing:
            sizes = [each * count for count in counts or [len(examples)]]
            batch = lay_out(packed_rows([len(own) for own in ids], sizes), ids, targets, filler)
        else:
            batch = with_mask(lay_out([[index] for index in range(len(ids))], ids, targets, filler))
        return together(batch) if each == 2 else batch

    @property
    def causal(self) -> bool:
        return True

    @property
    def packing(self) -> bool:
        return self.options.packing and self.batching == Batching.PACKED

    def packs(self, model: torch.nn.Module) -> bool:
        return self.packing and self._way(model).packed

    def way(self, model: torch.nn.Module, replicas: int = 1) -> str | None:
        found = self._way(model, replicas)
        return self.in_words(replace(found, packed=found.packed and self.packing))

    def _way(self, model: torch.nn.Module, replicas: int = 1) -> Way:
        from finetune.tasks.causal.ways import way_of

        tokens = np.linspace(0, len(self.tokenizer), 18, dtype=int)[1:-1]
        return way_of(model, tokens.tolist(), replicas)

    def arranged(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        from finetune.tasks.causal.packing import unpacked
        from finetune.tasks.causal.pairs import apart, together

        if self._way(model).packed:
            return batch
        alone = unpacked(apart(batch), self.tokenizer.pad_token_id)
        return together(alone) if "place" in batch else alone

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._losses(model, batch)[:, 0]

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        from finetune.tasks.causal.ways import plain_outputs

        [ids, *_], [targets, *_] = example.parts(example.inputs["input_ids"]), example.parts(example.target)
        return plain_outputs(model, ids, targets)

    def margins(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        chosen, rejected = self._losses(model, batch).unbind(1)
        return rejected - chosen

    def _losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Of each example's answer, (N, 1), or of each pair's chosen and rejected one, (N, 2)."""
        from finetune.tasks.causal.pairs import apart
        from finetune.tasks.causal.ways import losses_of

        found = losses_of(model, apart(self.arranged(model, batch)), self._way(model).head)
        return found.view(-1, 2 if "place" in batch else 1)

    def outputs(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Outputs:
        from finetune.tasks.causal.pairs import chosen
        from finetune.tasks.causal.ways import outputs_of

        return outputs_of(model, chosen(self.arranged(model, batch)), self._way(model).head)

    def predict(
        self, model: torch.nn.Module, examples: Sequence[Example], batch: dict[str, torch.Tensor]
    ) -> list[Prediction]:
        found = self._losses(model, batch).cpu().tolist()
        return [Prediction("", loss, margin=rejected[0] - loss if rejected else None) for loss, *rejected in found]

    def generate(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[str]:
        from finetune.tasks.causal.generation import answers

        prompts = [example.prompt for example in examples if example.prompt is not None]
        ends, filler = sorted(self._end_tokens(examples)), self.tokenizer.pad_token_id
        found = answers(model, prompts, filler, ends, self.options.max_new_tokens, self.answering)
        return [text.strip() for text in self.tokenizer.batch_decode(found, skip_special_tokens=True)]

    def _end_tokens(self, examples: Sequence[Example]) -> set[int]:
        """The tokenizer's end token, and the token that closes the template's turns, where that is another."""
        last = {self.tokenizer.eos_token_id, *(int(example.target[-1]) for example in examples)}
        return last & {self.tokenizer.convert_tokens_to_ids(token) for token in self.special}
