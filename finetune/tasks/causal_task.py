"""Tasks whose answers a decoder predicts token by token: how examples share rows, and what their losses are."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from finetune.core.examples import Batch, Example, Outputs, Prediction
from finetune.tasks.base import Task
from finetune.tasks.batching import Batching
from finetune.tasks.control import special_tokens

if TYPE_CHECKING:
    import torch

    from finetune.tasks.causal.loss_paths import LossPath


class CausalTask(Task):
    """A task for decoders, whose examples are texts of which some tokens are learnt, or pairs of such texts.

    Its options have `packing`.
    """

    architecture = "AutoModelForCausalLM"
    causal = True
    new_head: ClassVar[bool] = False

    ends: frozenset[int] = frozenset()
    """The tokens with which answers to a set of examples end, however few are answered at once; none: those of the ones
    that are."""

    def over(self, examples: Sequence[Example]) -> CausalTask:
        found = copy(self)
        found.ends = frozenset(self.end_tokens(examples))
        return found

    def end_tokens(self, examples: Sequence[Example]) -> set[int]:
        """Find the tokenizer's end token, and the tokens that close the template's turns, where those are others."""
        last = {self.tokenizer.eos_token_id, *(int(example.target[-1]) for example in examples)}
        return last & {self.tokenizer.convert_tokens_to_ids(token) for token in special_tokens(self.tokenizer)}

    def collate(self, examples: Sequence[Example], counts: Sequence[int] | None = None) -> Batch:
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
    def packing(self) -> bool:
        return self.options.packing and self.batching == Batching.PACKED

    def packs(self, model: torch.nn.Module) -> bool:
        return self.packing and self._loss_path(model).packed

    def loss_path(self, model: torch.nn.Module, replicas: int = 1) -> str | None:
        found = self._loss_path(model, replicas)
        return self.in_words(replace(found, packed=found.packed and self.packing))

    def _loss_path(self, model: torch.nn.Module, replicas: int = 1) -> LossPath:
        from finetune.tasks.causal.loss_paths import loss_path_of

        tokens = np.linspace(0, len(self.tokenizer), 18, dtype=int)[1:-1]
        return loss_path_of(model, tokens.tolist(), replicas)

    def arranged(self, model: torch.nn.Module, batch: Batch) -> Batch:
        from finetune.tasks.causal.packing import unpacked
        from finetune.tasks.causal.pairs import apart, together

        if self._loss_path(model).packed:
            return batch
        alone = unpacked(apart(batch), self.tokenizer.pad_token_id)
        return alone if batch.place is None else together(alone)

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self._losses(model, batch)[:, 0]

    def plain(self, model: torch.nn.Module, example: Example) -> Outputs:
        from finetune.tasks.causal.loss_paths import plain_outputs

        return plain_outputs(model, example.parts(example.inputs["input_ids"])[0], example.parts(example.target)[0])

    def margins(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        chosen, rejected = self._losses(model, batch).unbind(1)
        return rejected - chosen

    def pair_losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self._losses(model, batch)

    def pair_tokens(self, batch: Batch) -> torch.Tensor:
        from finetune.tasks.causal.pairs import label_counts

        return label_counts(batch)

    def _losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the loss of each example's answer, (N, 1), or of each pair's chosen and rejected one, (N, 2)."""
        from finetune.tasks.causal.loss_paths import losses_of
        from finetune.tasks.causal.pairs import apart

        found = losses_of(model, apart(self.arranged(model, batch)), self._loss_path(model).head)
        return found.view(-1, 1 if batch.place is None else 2)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        from finetune.tasks.causal.loss_paths import outputs_of
        from finetune.tasks.causal.pairs import chosen

        return outputs_of(model, chosen(self.arranged(model, batch)), self._loss_path(model).head)

    def predict(self, model: torch.nn.Module, examples: Sequence[Example], batch: Batch) -> list[Prediction]:
        found = self._losses(model, batch).cpu().tolist()
        return [Prediction("", loss, margin=rejected[0] - loss if rejected else None) for loss, *rejected in found]
