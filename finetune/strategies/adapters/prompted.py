"""Models with virtual tokens before every text: prompt tuning, p-tuning and prefix tuning with peft's encoders.

peft's own wrappers expect a padded sequence at most, hand on no positions, and lose the place of the last token under a
head that looks for it. Here a text gets ordinary tokens put before it, in whose place the virtual ones stand: so
everything that counts tokens, in the model and in generation, is right by itself.

Shapes: N rows of T tokens; V virtual tokens; D features of an embedding.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peft
import torch
from peft import PeftConfig
from torch.nn.functional import pad

from finetune.core.errors import bad_input

EMBEDDED = ("PROMPT_TUNING", "P_TUNING")
"""Methods whose virtual tokens are embeddings."""
CACHED = ("PREFIX_TUNING", "CARTRIDGE")
"""Methods whose virtual tokens are keys and values, in every block."""
TASKS = {"SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS", "QuestionAnswering": "QUESTION_ANS"}
TASKS |= {"Embedding": "FEATURE_EXTRACTION"}
"""peft's word for what a model is for, by what its class is called."""
BY_TOKEN = ("TOKEN_CLS", "QUESTION_ANS")
"""Those whose heads say something of each token."""


def completed(model: Any, config: Any) -> Any:
    """Complete peft's ``config`` with what it does not find out itself; :class:`InputError` when ``model`` cannot have
    it."""
    kind, architecture = config.peft_type, type(model).__name__
    if kind not in EMBEDDED + CACHED:
        raise bad_input("strategy.method", f"virtual tokens of peft's kind {kind} are unknown here", "use prefix")
    if model.config.is_encoder_decoder:
        found = f"{architecture} is an encoder-decoder model, of which it is not said where virtual tokens stand"
        raise bad_input("strategy.method", found, "use a method that changes layers, such as lora")
    if kind in CACHED and "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
        found = f"{architecture} takes no keys and values from outside"
        raise bad_input("strategy.method", found, "use prompt, p-tuning, or a method that changes layers")
    width = model.get_input_embeddings().embedding_dim
    if kind in EMBEDDED and config.token_dim is None:
        config.token_dim = width
    if getattr(config, "encoder_hidden_size", 0) is None:
        config.encoder_hidden_size = width
    config.task_type = next((task for name, task in TASKS.items() if name in architecture), "CAUSAL_LM")
    return config


class Prompted(peft.PeftModel):
    """A frozen model, the encoder of its virtual tokens, and its head."""

    def __init__(self, model: Any, config: PeftConfig):
        super().__init__(model, completed(model, config))
        self.virtual: int = config.num_virtual_tokens  # type: ignore[attr-defined]
        self.cached = config.peft_type in CACHED
        self.filler = int(model.config.pad_token_id == 0)  # any token but padding, which some models look for

    @property
    def _encoder(self) -> Any:
        return self.prompt_encoder[self.active_adapter]

    def prompts(self, rows: int) -> torch.Tensor:
        """Compute the embeddings of the virtual tokens for each of ``rows``: (N, V, D)."""
        encoder = self._encoder
        if self.active_peft_config.inference_mode:
            return encoder.embedding.weight.expand(rows, -1, -1)
        numbers = self.prompt_tokens[self.active_adapter].to(encoder.embedding.weight.device)
        return encoder(numbers.expand(rows, -1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **inputs: Any) -> Any:
        """Run the model on ``input_ids`` (N, T) after the virtual tokens, of which no outputs are given."""
        virtual = self.virtual
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs["attention_mask"] = self._before(mask, 1)
        if inputs.get("position_ids") is not None:
            inputs["position_ids"] = inputs["position_ids"] + virtual
        if self.cached:
            return self.base_model(input_ids=input_ids, past_key_values=self.get_prompt(len(input_ids)), **inputs)
        if inputs.get("position_ids") is not None:
            first = torch.arange(virtual, device=input_ids.device).expand(len(input_ids), -1)
            inputs["position_ids"] = torch.cat([first, inputs["position_ids"]], 1)
        if inputs.get("token_type_ids") is not None:
            inputs["token_type_ids"] = self._before(inputs["token_type_ids"], 0)
        with self._standing(cut=True):
            return self._of_text(self.base_model(input_ids=self._before(input_ids, self.filler), **inputs))

    def _of_text(self, found: Any) -> Any:
        """Leave out what a head says of each virtual token, where it says something of each token."""
        if self.active_peft_config.task_type in BY_TOKEN:
            for name in [name for name in found if name.endswith("logits")]:
                found[name] = found[name][:, self.virtual :]
        return found

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> torch.Tensor:
        """Generate what follows ``input_ids`` (N, T), padded at the left; gives both."""
        ids, mask = (
            pad(input_ids, (self.virtual, 0), value=self.filler),
            pad(attention_mask, (self.virtual, 0), value=1),
        )
        if self.cached:  # which counts as what the first tokens left behind
            options["past_key_values"] = self.get_prompt(len(ids))
        with self._standing():
            found = self.get_base_model().generate(input_ids=ids, attention_mask=mask, **options)  # type: ignore[operator]
        return found[:, self.virtual :]

    def read(self, embeddings: torch.Tensor) -> None:
        """Let ``embeddings`` of virtual tokens, (V, ...), learn from now on, instead of the encoder that made them."""
        self.active_peft_config.inference_mode = True
        encoder = self._encoder
        for name in [name for name, _ in encoder.named_children() if name != "embedding"]:
            delattr(encoder, name)
        values = embeddings.to(encoder.embedding.weight)
        encoder.embedding = torch.nn.Embedding.from_pretrained(values, freeze=False)

    def _before(self, tokens: torch.Tensor, value: int) -> torch.Tensor:
        """Put ``value`` before (N, T) for each virtual token: (N, V + T)."""
        return pad(tokens, (self.virtual, 0), value=value)

    @contextmanager
    def _standing(self, cut: bool = False) -> Iterator[None]:
        """Within the context, treat the first tokens of a text as virtual; ``cut``: nobody asks what follows them.

        Whatever else changes embeddings, and is there before, sees those of the text only.
        """
        plain: Any = self.get_base_model()
        bottom, top = plain.get_input_embeddings(), plain.get_output_embeddings()
        hooks = []
        if not self.cached:
            hooks = [bottom.register_forward_pre_hook(self._take_away), bottom.register_forward_hook(self._put_before)]
        if cut and top is not None:
            hooks.append(top.register_forward_pre_hook(self._leave_out))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _take_away(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """Where generation goes on from what it remembers there are fewer tokens, and no virtual ones."""
        self._begins = args[0].shape[1] > self.virtual
        return (args[0][:, self.virtual :],) if self._begins else None

    def _put_before(self, module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        return torch.cat([self.prompts(len(output)).to(output.dtype), output], 1) if self._begins else None

    def _leave_out(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, self.virtual :], *args[1:])
