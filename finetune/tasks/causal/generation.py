"""Answers to prompts, greedy or drawn, as many at once as a model can take. They can be stopped between two tokens:
whoever asks for answers has to look whether that was asked for, and throw them away.

Shapes: N prompts, n of them in a batch; S new tokens; V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from finetune.core.examples import pad
from finetune.core.progress import phase
from finetune.core.sharding import is_sharded
from finetune.core.signals import stop_here, stop_requested
from finetune.tasks.batching import Batching, cut
from finetune.tasks.causal.loss_paths import bare, without_adapter

Tokens = list[int]


@dataclass(frozen=True)
class Sampling:
    """Draws tokens instead of taking the likeliest. Each is decided by one number of its own prompt's, by which the
    probabilities are gone through in the vocabulary's order: what else is in a batch has no part in it."""

    draws: np.ndarray
    """(N, S) from 0 up to 1."""
    temperature: float
    top_k: int | None
    top_p: float

    def choose(self, scores: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Choose a token, (n,), of those with logits ``scores`` (n, V), by ``draws`` (n,)."""
        logits = scores.double() / self.temperature
        if self.top_k is not None:
            least = logits.topk(min(self.top_k, logits.shape[-1])).values[:, -1:]
            logits = logits.where(logits >= least, -torch.inf)
        if self.top_p < 1:
            falling, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
            before = falling.cumsum(-1) - falling  # the likeliest is always among them
            logits = logits.masked_fill((before >= self.top_p).gather(-1, order.argsort(-1)), -torch.inf)
        summed = logits.softmax(-1).cumsum(-1)
        wanted = draws[:, None].to(summed) * summed[:, -1:]
        last = (summed < summed[:, -1:]).sum(-1)  # of those that can be drawn
        return torch.minimum((summed <= wanted).sum(-1), last)


Done = Callable[[int, Tokens], bool]
"""Tells of a prompt, by its place, and of what has been generated whether that is enough."""


def answers(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    filler: int,
    ends: Sequence[int],
    most: int,
    batching: Batching,
    sampling: Sampling | None = None,
    done: Done | None = None,
    **settings: Any,
) -> list[Tokens]:
    """Answer each of ``prompts`` with at most ``most`` tokens, up to one of ``ends`` or where it is ``done``;
    ``filler`` may stand after it. Without ``sampling`` each token is the likeliest. ``settings`` are others of
    transformers' for generation."""
    found: dict[int, Tokens] = {}
    for batch in _batches(prompts, batching):
        draws = None if sampling is None else replace(sampling, draws=sampling.draws[batch])
        own = [prompts[index] for index in batch]
        enough = done and _Enough(done, batch.tolist())
        generated = _generate(model, own, filler, most, draws, enough, eos_token_id=list(ends), **settings)
        found.update(zip(batch.tolist(), generated.tolist(), strict=True))
    return [found[index] for index in range(len(prompts))]


def continued(
    model: torch.nn.Module, prompts: Sequence[np.ndarray], filler: int, steps: int, batching: Batching
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generate the ``steps`` tokens that follow each of ``prompts``, ends among them, (N, S), and their logits
    (N, S, V)."""
    tokens: dict[int, torch.Tensor] = {}
    logits: dict[int, torch.Tensor] = {}
    asked: dict[str, Any] = {"eos_token_id": None, "output_logits": True, "return_dict_in_generate": True}
    for batch in _batches(prompts, batching):
        own = [prompts[index] for index in batch]
        generated = _generate(model, own, filler, steps, **asked)
        tokens.update(zip(batch.tolist(), generated.sequences, strict=True))
        logits.update(zip(batch.tolist(), torch.stack(generated.logits, 1).float(), strict=True))
        stop_here("trying the model out")
    order = range(len(prompts))
    return torch.stack([tokens[index] for index in order]), torch.stack([logits[index] for index in order])


def _batches(prompts: Sequence[np.ndarray], batching: Batching) -> Iterator[np.ndarray]:
    """Find which prompts to answer at once, by their places: all, where one may be filled up to the length of
    another."""
    lengths = np.array([len(prompt) for prompt in prompts])
    # Replica by replica, as they come: those of a stack's replicas are of the same lengths.
    order = np.argsort(lengths, kind="stable") if batching >= Batching.SAME_LENGTH else np.arange(len(prompts))
    return cut(order, lengths, len(prompts), batching)


class _Enough:
    """Watches which answers of a batch are done; what is done once stays so."""

    def __init__(self, done: Done, places: Sequence[int]):
        """``places`` are those of the batch's prompts."""
        self._done, self._places, self._found = done, places, [False] * len(places)

    def __call__(self, new: torch.Tensor) -> torch.Tensor:
        """Tell of the ``new`` tokens of each prompt, (n, S), whether they are enough: (n,)."""
        for row, tokens in enumerate(new.tolist()):
            self._found[row] = self._found[row] or self._done(self._places[row], tokens)
        return torch.tensor(self._found, device=new.device)


def _generate(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    filler: int,
    most: int,
    sampling: Sampling | None = None,
    enough: Callable[[torch.Tensor], torch.Tensor] | None = None,
    **settings: Any,
) -> Any:
    """Generate what follows ``prompts``: the sequences without them, or without an encoder-decoder's first token."""
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    device, config = next(model.parameters()).device, without_adapter(model).config
    both = bool(getattr(config, "is_encoder_decoder", False))
    # Padding stands at the left, so that answers go on where prompts end; an encoder's stands where it did in training.
    ids = pad(prompts, filler, left=not both).to(device)
    mask = pad([np.ones_like(prompt) for prompt in prompts], 0, left=not both).to(device)
    begins = 1 if both else ids.shape[1]
    if both:
        settings = {"decoder_start_token_id": config.decoder_start_token_id, **settings}
    # Where its configuration asks for it, transformers computes a router loss, of the last token against a mask of all.
    asked = getattr(config.get_text_config(), "output_router_logits", False)
    quiet = {"output_router_logits": False} if asked else {}
    greedy = GenerationConfig(do_sample=False, max_new_tokens=most, pad_token_id=filler, **settings)
    with ExitStack() as stack:
        plain = stack.enter_context(_without_own_generation(model))
        stack.enter_context(_rows_together(plain))
        under_way = stack.enter_context(phase("generating answers", most))

        def watch(so_far: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            new = so_far[:, begins:]
            under_way.step(new.shape[1])
            # The processes that have a part of the model each would not stop at the same token.
            stop = stop_requested() and not is_sharded(model)
            if enough is None or stop:
                return torch.full((len(so_far),), stop, device=so_far.device)
            return enough(new)

        def draw(so_far: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            assert sampling is not None
            draws = torch.from_numpy(sampling.draws[:, so_far.shape[1] - begins]).to(scores.device)
            chosen = sampling.choose(scores, draws)[:, None]
            return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

        generated = plain.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=greedy,
            stopping_criteria=StoppingCriteriaList([watch]),
            logits_processor=LogitsProcessorList([draw] if sampling else []),
            **quiet,
        )
    if isinstance(generated, torch.Tensor):
        return generated[:, begins:]
    generated.sequences = generated.sequences[:, begins:]
    return generated


@contextmanager
def _rows_together(model: Any) -> Iterator[None]:
    """Within the context, the output layer is given hidden states that lie together in memory. A prompt's last ones,
    which transformers cuts out for it, do not, and torch would multiply each with a copy of all its weights."""
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, given: tuple(each.contiguous() for each in given))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _without_own_generation(model: torch.nn.Module) -> Iterator[Any]:
    """Within the context, give the model without the generation settings it came with (such as a repetition penalty),
    which would be added to those that are asked for."""
    from transformers import GenerationConfig

    owner = without_adapter(model)
    own, owner.generation_config = owner.generation_config, GenerationConfig()
    try:
        yield bare(model)
    finally:
        owner.generation_config = own
