"""What tasks have in common that put a new linear head over a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs
from finetune.models.pooling import POOLED
from finetune.tasks.base import Task
from finetune.tasks.texts import padded

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


class TextClassifier(Task):
    """A task whose options name a column `text` and maybe a second one, `pair`, read as one."""

    new_head: ClassVar[bool] = True

    @property
    def architecture(self) -> str:
        return POOLED if self.pooling else "AutoModelForSequenceClassification"

    def inputs(self) -> list[str]:
        return [self.options.text, *([self.options.pair] if self.options.pair else [])]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_text

        require_text(data, self.options.text, at, "task.text")
        if self.options.pair:
            require_text(data, self.options.pair, at, "task.pair")

    def check_model(self, model: Any) -> None:
        """Refuse an encoder-decoder that could not be pooled."""
        if self.pooling:
            return
        # transformers does so at the input's end token; T5Gemma's at the last token, as in other models.
        if not getattr(model.config, "is_encoder_decoder", False) or model.config.model_type.startswith("t5gemma"):
            return
        end = model.config.eos_token_id
        if self.tokenizer("a")["input_ids"][-1] != end:
            raise bad_input(
                "model.source",
                f"this encoder-decoder is read out at its end token (number {end}), and its tokenizer ends no text so",
                "name the tokenizer that belongs to it in model.tokenizer",
            )

    def head_config(self, outputs: Sequence[str], problem: str) -> dict[str, Any]:
        """Give the configuration of a head with these ``outputs``, whose losses are those that transformers calls
        ``problem``."""
        return {
            "num_labels": len(outputs),
            "id2label": dict(enumerate(outputs)),
            "label2id": {label: number for number, label in enumerate(outputs)},
            "pad_token_id": self.tokenizer.pad_token_id,
            "problem_type": problem,
        }

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        import torch

        batch, weights = padded(examples, self.tokenizer), [example.weight for example in examples]
        return replace(batch, weights=torch.tensor(weights)) if set(weights) != {1.0} else batch

    def outputs_of(self, logits: torch.Tensor, batch: Batch) -> Outputs:
        """Make outputs of the head's ``logits`` (N, ...) for the targets of ``batch``."""
        raise NotImplementedError

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        return self.outputs_of(model(**batch.inputs).logits.float(), batch)

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        import torch

        device = next(model.parameters()).device
        inputs = {name: torch.tensor(value).long()[None].to(device) for name, value in example.inputs.items()}
        return self.outputs_of(model(**inputs).logits.float(), self.collate([example]).to(device))
