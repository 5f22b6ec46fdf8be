"""Chat and causal fine-tuning: learn the answers of a conversation, or completions of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from finetune.errors import bad_input
from finetune.options import OPERATIONAL, Options
from finetune.registry import TASKS
from finetune.tasks.base import Encoded, Example, Outputs, Prediction, Task, pad, token_facts
from finetune.tasks.conversation import (
    IGNORED,
    Conversation,
    joined,
    mistake_in,
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
    system: str | None = None
    """System message put before every conversation that has none."""
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
    architecture: ClassVar[str] = "AutoModelForCausalLM"
    new_head: ClassVar[bool] = False
    example_score: ClassVar[str] = "rouge_l"

    options: ChatOptions
    special: tuple[str, ...]
    """The tokenizer's special tokens."""

    def inputs(self) -> list[str]:
        return [self.options.messages or self.options.prompt or ""]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_column, require_text

        if self.options.messages:
            require_column(data, self.options.messages, at, "task.messages")
            for row, messages in enumerate(data[self.options.messages], start=1):
                if mistake := mistake_in(messages):
                    raise bad_input("task.messages", f"{at}, row {row}: {mistake}", "give [{role: …, content: …}, …]")
        else:
            require_text(data, str(self.options.prompt), at, "task.prompt")
            require_text(data, str(self.options.completion), at, "task.completion")

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
        return max(example.length, asked)

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
        conversations = [self._conversation(row) for row in data]
        # A chat template writes its own special tokens; plain text needs the tokenizer's (such as a first token).
        tokenised = tokenise(conversations, self.tokenizer, add_special=self.options.template == "none")
        for row, (number, conversation, tokens) in enumerate(
            zip(data["example"], conversations, tokenised, strict=True), start=1
        ):
            ids, labels = tokens.ids, tokens.labels
            if training and len(ids) > self.options.max_length:
                if self.options.too_long == "drop":
                    dropped += 1
                    continue
                ids, labels = self._cut(ids, labels, at, row)
                cut += 1
            examples.append(
                Example(
                    number=number,
                    inputs={"input_ids": ids},
                    target=labels,
                    weight=float((labels != IGNORED).sum()),
                    reference=conversation.last_answer(self.special),
                    prompt=tokens.prompt,
                )
            )
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
            "answer_tokens": token_facts([int(example.weight) for example in examples]),
        }
        return Encoded(examples, facts)

    def _conversation(self, row: dict[str, Any]) -> Conversation:
        options = self.options
        if options.messages:
            messages = [{"role": turn["role"], "content": turn["content"]} for turn in row[options.messages]]
        else:
            prompt, answer = row[str(options.prompt)], row[str(options.completion)]
            if options.template == "none":
                return joined(prompt, answer, self.tokenizer)
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        if options.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": options.system})
        return templated(messages, self.tokenizer, self.special)

    def _cut(self, ids: np.ndarray, labels: np.ndarray, at: str, row: int) -> tuple[np.ndarray, np.ndarray]:
        limit = self.options.max_length
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
        return ids[:limit], labels[:limit]

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> dict[str, torch.Tensor]:
        from finetune.tasks.causal.packing import lay_out, packed_rows, with_mask

        ids, targets = [example.inputs["input_ids"] for example in examples], [example.target for example in examples]
        filler = self.tokenizer.pad_token_id
        if self.options.packing:
            return lay_out(packed_rows([len(own) for own in ids], counts or [len(ids)]), ids, targets, filler)
        return with_mask(lay_out([[index] for index in range(len(ids))], ids, targets, filler))

    def way(self, model: torch.nn.Module, replicas: int = 1) -> str:
        found = self._way(model, replicas)
        return str(replace(found, packed=found.packed and self.options.packing))

    def _way(self, model: torch.nn.Module, replicas: int = 1) -> Way:
        from finetune.tasks.causal.ways import way_of

        tokens = np.linspace(0, len(self.tokenizer), 18, dtype=int)[1:-1]
        return way_of(model, tokens.tolist(), replicas)

    def arranged(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        from finetune.tasks.causal.packing import unpacked

        return batch if self._way(model).packed else unpacked(batch)

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        from finetune.tasks.causal.ways import losses_of

        return losses_of(model, self.arranged(model, batch), self._way(model).head)

    def outputs(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Outputs:
        from finetune.tasks.causal.ways import outputs_of

        return outputs_of(model, self.arranged(model, batch), self._way(model).head)

    def predict(
        self, model: torch.nn.Module, examples: Sequence[Example], batch: dict[str, torch.Tensor]
    ) -> list[Prediction]:
        return [Prediction("", loss) for loss in self.losses(model, batch).cpu().tolist()]

    def generate(self, model: torch.nn.Module, examples: Sequence[Example], device: torch.device) -> list[str]:
        from transformers import GenerationConfig

        prompts = [example.prompt for example in examples if example.prompt is not None]
        # Padding stands at the left, so that answers go on where prompts end.
        ids = pad(prompts, self.tokenizer.pad_token_id, left=True).to(device)
        mask = pad([np.ones_like(prompt) for prompt in prompts], 0, left=True).to(device)
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.options.max_new_tokens,
            eos_token_id=sorted(self._end_tokens(examples)),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        with _without_own_generation(model) as plain:
            generated = plain.generate(input_ids=ids, attention_mask=mask, generation_config=greedy)
        texts = self.tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _end_tokens(self, examples: Sequence[Example]) -> set[int]:
        """The tokenizer's end token, and the token that closes the template's turns, where that is another."""
        last = {self.tokenizer.eos_token_id, *(int(example.target[-1]) for example in examples)}
        return last & {self.tokenizer.convert_tokens_to_ids(token) for token in self.special}


@contextmanager
def _without_own_generation(model: torch.nn.Module) -> Iterator[Any]:
    """The model without the generation settings it came with (such as a repetition penalty), which would be added
    to those that are asked for."""
    from transformers import GenerationConfig

    from finetune.tasks.causal.ways import bare, without_adapter

    owner = without_adapter(model)
    own, owner.generation_config = owner.generation_config, GenerationConfig()
    try:
        yield bare(model)
    finally:
        owner.generation_config = own
