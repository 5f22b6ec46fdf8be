"""Scores candidate answers of each example, by their likelihood or by a new head: for tasks that choose among some.

Shapes: N examples; S candidates of all of them; C of the example that has most; rows and T columns of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.errors import bad_input
from finetune.core.examples import Batch, Example, Outputs, pad
from finetune.models import is_masked

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from finetune.tasks.causal.loss_paths import LossPath
    from finetune.tasks.choice_columns import Question

FAR = -1e4
"""The logit of what is no choice: its share of a softmax is 0 in float32, and unlike an infinite one it has a finite
divergence from itself."""


class Scorer:
    """Gives each candidate of a batch a score, of which a softmax over an example's own makes probabilities."""

    architecture: str
    causal: bool

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Lay out examples, with `branch`; the targets are the right choices, (N,) from 0."""
        raise NotImplementedError

    def arranged(self, model: torch.nn.Module, batch: Batch) -> Batch:
        """Arrange a batch as ``model`` can take it."""
        return batch

    def scores(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the score of each candidate, example by example: (S,), float32."""
        raise NotImplementedError

    def plain(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        """Compute the scores of one example's candidates, each from a model that is called on it alone: (S,)."""
        raise NotImplementedError

    def positions(self, examples: Sequence[Example]) -> np.ndarray:
        """Count the tokens of the longest candidate with what is before it: (examples,)."""
        raise NotImplementedError

    def loss_path(self, model: torch.nn.Module, replicas: int) -> str | None:
        """Say in words how scores are computed."""
        return None


class Likelihoods(Scorer):
    """Log-likelihoods of candidates after a prompt, by a causal language model, summed over their tokens, in nats."""

    architecture = "AutoModelForCausalLM"
    causal = True

    def collate(self, examples: Sequence[Example]) -> Batch:
        from finetune.tasks.causal.branches import lay_out

        return lay_out(examples, self.tokenizer.pad_token_id)

    def arranged(self, model: torch.nn.Module, batch: Batch) -> Batch:
        from finetune.tasks.causal.branches import unrolled

        return batch if self._shares(model) else unrolled(batch, self.tokenizer.pad_token_id)

    def scores(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        from finetune.tasks.causal.branches import additive_of, apart
        from finetune.tasks.causal.loss_paths import losses_of

        laid_out = apart(self.arranged(model, batch), additive_of(model))
        return -losses_of(model, laid_out, self._loss_path(model).head)

    def plain(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        import torch

        from finetune.tasks.causal.branches import sequences_of
        from finetune.tasks.causal.loss_paths import plain_outputs

        found = [plain_outputs(model, ids, labels).losses() for ids, labels in sequences_of(example)]
        return -torch.cat(found)

    def positions(self, examples: Sequence[Example]) -> np.ndarray:
        from finetune.tasks.causal.branches import positions_of

        return np.array([positions_of(branch_of(example)).max() + 1 for example in examples], np.int64)

    def loss_path(self, model: torch.nn.Module, replicas: int) -> str:
        from finetune.tasks.causal.loss_paths import HEADS

        how = "candidates share their prompt" if self._shares(model, replicas) else "one candidate a row"
        return f"{how}, {HEADS[self._loss_path(model, replicas).head]}"

    def _shares(self, model: torch.nn.Module, replicas: int = 1) -> bool:
        from finetune.tasks.causal.branches import shares

        return shares(model, self._any_tokens(), replicas)

    def _loss_path(self, model: torch.nn.Module, replicas: int = 1) -> LossPath:
        from finetune.tasks.causal.loss_paths import loss_path_of

        return loss_path_of(model, self._any_tokens(), replicas)

    def _any_tokens(self) -> list[int]:
        return np.linspace(0, len(self.tokenizer), 18, dtype=int)[1:-1].tolist()


class HeadScores(Scorer):
    """Scores of a new head that reads each candidate with its question: transformers' class for multiple choice.

    It is called on each candidate as if it were the only one, which it gives the same score as among others. So
    examples may have different numbers of candidates, and the softmax over them is taken here.
    """

    architecture = "AutoModelForMultipleChoice"
    causal = False

    def collate(self, examples: Sequence[Example]) -> Batch:
        import torch

        branches = [which for example in examples for which in example.parts(branch_of(example))]
        owners = [number for number, each in enumerate(examples) for _ in each.parts(branch_of(each))]
        inputs, filler = {}, {"input_ids": self.tokenizer.pad_token_id}
        for name in examples[0].inputs:
            rows = [part for example in examples for part in example.parts(example.inputs[name])]
            inputs[name] = pad(rows, filler.get(name, 0))
        places = [part for example in examples for part in example.parts(np.arange(example.length))]
        real = pad([np.ones_like(part) for part in places], 0)
        example = torch.tensor(owners)[:, None].where(real > 0, -1)
        inputs["attention_mask"] = real
        targets = torch.tensor([each.target for each in examples])
        return Batch(inputs, targets, example, place=pad(places, 0), branch=pad(branches, 0))

    def scores(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return _alone(model, batch.inputs)

    def plain(self, model: torch.nn.Module, example: Example) -> torch.Tensor:
        import torch

        device, found = next(model.parameters()).device, []
        for number in range(len(example.parts(branch_of(example)))):
            own = {name: example.parts(values)[number] for name, values in example.inputs.items()}
            found.append(
                _alone(model, {name: torch.tensor(each).long()[None].to(device) for name, each in own.items()})
            )
        return torch.cat(found)

    def positions(self, examples: Sequence[Example]) -> np.ndarray:
        longest = [max(map(len, example.parts(branch_of(example)))) for example in examples]
        return np.array(longest, np.int64)


def _alone(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute the score of each row, (rows,), as of the one choice of its question."""
    logits: torch.Tensor = model(**{name: values[:, None] for name, values in inputs.items()}).logits
    return logits[:, 0].float()


def branch_of(example: Example) -> np.ndarray:
    """Give :attr:`Example.branch` of an example that has candidates, (tokens,)."""
    if example.branch is None:
        raise ValueError(f"example {example.number} has no candidates")
    return example.branch


def outputs_among(scores: torch.Tensor, batch: Batch) -> Outputs:
    """Put scores (S,) of a batch's candidates beside each other: logits (N, C), what is no choice far below."""
    import torch

    from finetune.tasks.causal.branches import owners_of

    owners, numbers = owners_of(batch)
    count = int(owners.max()) + 1
    absent = torch.ones(count, int(numbers.max()) + 1, dtype=torch.bool, device=scores.device)
    absent[owners, numbers] = False
    logits = scores.new_full(absent.shape, FAR).index_put((owners, numbers), scores)
    every = torch.arange(count, device=scores.device)
    return Outputs(logits, batch.targets, every, count, absent=absent if bool(absent.any()) else None)


def margin_norm(likelihoods: np.ndarray, sizes: np.ndarray, target: int) -> float:
    """Compute by how much the right candidate's log-likelihood per character exceeds that of the best other
    one, from ``likelihoods`` (candidates,), in nats, and ``sizes`` (candidates,), in characters."""
    normed = likelihoods / sizes
    return float(normed[target] - np.delete(normed, target).max())


def tree(prompt: Sequence[int], candidates: Sequence[Sequence[int]], first: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Make tokens and branches, (tokens,) each, of ``candidates`` behind a ``prompt``, numbered from ``first``."""
    *common, last = prompt
    parts = [common, *([last, *own] for own in candidates)]
    numbers = [0, *range(first, first + len(candidates))]
    ids = np.concatenate([np.asarray(part, np.int32) for part in parts])
    return ids, np.repeat(np.asarray(numbers, np.int32), [len(part) for part in parts])


def in_rows(encoded: Sequence[dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Join the model inputs of candidates that have nothing in common: inputs by name, and branches, (tokens,) each."""
    inputs = {name: np.concatenate([own[name] for own in encoded]) for name in encoded[0]}
    sizes = [len(own["input_ids"]) for own in encoded]
    return inputs, np.repeat(np.arange(1, len(encoded) + 1, dtype=np.int32), sizes)


def beside(
    tokenizer: PreTrainedTokenizerBase, options: Any, row: Question, where: str
) -> tuple[dict[str, np.ndarray], np.ndarray, bool]:
    """Encode each choice of ``row`` beside its question, as a pair of texts: with a context that is the first, and the
    question stands before the choice. Also gives whether something was cut."""
    first, before = row.question, ""
    if options.context:
        first, before = row.context, f"{row.question} "
    second = [f"{before}{choice}" for choice in row.choices]
    limit = min(options.max_length, tokenizer.model_max_length)
    longest = max(map(len, tokenizer(second)["input_ids"]))
    if longest + 1 > limit:
        found = f"{where}: its longest choice alone has {longest} tokens, more than {limit} allow"
        raise bad_input("task.max_length", found, f"raise task.max_length to {longest + 1} or more")
    settings = {"truncation": "only_first", "max_length": limit, "return_attention_mask": False}
    given = tokenizer([first] * len(second), second, **settings)
    cut = any(encoding.overflowing for encoding in given.encodings)
    encoded = [{name: np.asarray(given[name][place], np.int32) for name in given} for place in range(len(second))]
    return *in_rows(encoded), cut


def refuse_masked(model: Any) -> None:
    """Refuse a model whose likelihoods of a text are none."""
    if is_masked(model.config) or getattr(model.config, "is_encoder_decoder", False):
        raise bad_input(
            "model.source",
            f"is a {model.config.model_type} model, which does not continue a text, and has no likelihoods of answers",
            "use a decoder, a model that was trained to continue text; or a task with a new head",
        )
