"""Two numbers for each text, from hidden states in a learnt mixture: a task with a head of its own, as another package
would bring it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from finetune.core.answers import Answer
from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.core.options import Options
from finetune.models import width_of
from finetune.tasks.base import EncodedRows, Task
from finetune.tasks.texts import padded, tokenised

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


class MoodOptions(Options):
    """Columns and encoding."""

    type: Literal["mood"]
    text: str = "text"
    """Column with the text."""
    max_length: int = Field(256, ge=4)
    """Tokens an example may have; longer ones are cut at the end."""
    metrics: list[str] = Field(["loss"])
    """Metrics of the held-out tasks."""


class Numbers(Outputs):
    """Numbers (L, 2) instead of choices."""

    def losses(self) -> torch.Tensor:
        """Half the squared errors: with a constant the negative log-likelihood of normal errors."""
        return self.by_example((self.logits - self.targets).square().sum(1) / 2)


class Mood(Task):
    """Says of each text how merry and how lively it is."""

    name: ClassVar[str] = "mood"
    Options = MoodOptions
    new_head: ClassVar[bool] = True
    answer: ClassVar[Answer] = "number"
    example_score: ClassVar[str] = "loss"

    options: MoodOptions

    def head(self, config: Any) -> torch.nn.Module:
        import torch

        class Mixture(torch.nn.Module):
            def __init__(self, width: int):
                super().__init__()
                self.query = torch.nn.Parameter(torch.empty(width))
                self.out = torch.nn.Linear(width, 2)
                self.reset_parameters()

            def reset_parameters(self) -> None:
                torch.nn.init.normal_(self.query, std=0.1)

            def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                shares = (hidden @ self.query).masked_fill(mask == 0, -torch.inf).softmax(1)
                return self.out((shares[..., None] * hidden).sum(1))

        return Mixture(width_of(config))

    def inputs(self) -> list[str]:
        return [self.options.text]

    def check(self, data: Dataset, at: str) -> None:
        from finetune.data.columns import require_text

        require_text(data, self.options.text, at, "task.text")

    def model_config(self) -> dict[str, Any]:
        return {"pad_token_id": self.tokenizer.pad_token_id}

    def encode_rows(self, data: Dataset, at: str, training: bool) -> EncodedRows:
        inputs, cut = tokenised(data, self.inputs(), self.tokenizer, self.options.max_length)
        targets = list(zip(data["merry"], data["lively"], strict=True))
        rows = zip(data["example"], inputs, targets, strict=True)
        examples = [Example(number, own, two, 1.0, f"{two[0]} {two[1]}") for number, own, two in rows]
        return EncodedRows(examples, Counter(cut=cut))

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
        return padded(examples, self.tokenizer)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        import torch

        logits = model(**batch.inputs).logits.float()
        return Numbers(logits, batch.targets, torch.arange(len(logits), device=logits.device), len(logits))

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        found = self.outputs(model, batch)
        said = zip(found.logits.tolist(), found.losses().tolist(), strict=True)
        return [Prediction(" ".join(f"{value:.3f}" for value in values), loss) for values, loss in said]
