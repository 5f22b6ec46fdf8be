"""Our model as lm-evaluation-harness asks it: log-likelihoods of continuations and of whole texts, and answers.

What is asked, where texts are cut and where answers end follows `lm_eval.models.huggingface.HFLM`, so that numbers
compare; how it is computed is ours. Shapes: S sequences of one pass; V tokens in the vocabulary.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows
from transformers import PreTrainedTokenizerBase

from finetune.core.examples import Batch
from finetune.core.randomness import Streams
from finetune.tasks.answering import DRAW, tokens_near
from finetune.tasks.batching import Batching, cut
from finetune.tasks.causal.generation import Sampling, answers
from finetune.tasks.causal.loss_paths import LossPath, losses_of, outputs_of
from finetune.tasks.causal.packing import lay_out, with_mask
from finetune.tasks.conversation import IGNORED

MOST_NEW_TOKENS = 256
"""Of an answer, where neither task nor recipe says it: the harness's default."""

Tokens = list[int]
Number = tuple[int, int, int]
"""Of a request: its document, its place among those about it, and how often the same one has come before."""


class Answering(TemplateLM):
    """A causal language model, as the harness asks one."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        room: int,
        most: int,
        batching: Batching,
        loss_path: LossPath,
        most_new_tokens: int | None = None,
    ):
        """``room``: tokens that the model takes at once; ``most``: sequences of one pass, which share what ``batching``
        allows; ``loss_path``: how losses are computed. ``most_new_tokens`` of an answer, whatever a task says."""
        super().__init__()
        self.model, self.tokenizer, self.most = model, tokenizer, most
        self.max_length, self.most_new_tokens = room, most_new_tokens
        self.batching, self.loss_path = max(batching, Batching.PADDED), loss_path
        self._device = next(model.parameters()).device

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without any context."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> Tokens:
        """Tokenise a text; its first token is added unless the text begins with it."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._words([self.prefix_token_id], keep=True))
        ids: Tokens = self.tokenizer.encode(string, add_special_tokens=add_special_tokens, verbose=False)
        return ids

    def _words(self, ids: Sequence[int], keep: bool = False) -> str:
        """Give the text of some tokens; ``keep``: with special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not keep))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Give the log-likelihood of each continuation after its context, in nats, and whether it is what greedy
        decoding would say."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        found: dict[int, tuple[float, bool]] = {}
        for places, batch in self._batches([(context, own) for _, context, own in requests]):
            outputs = outputs_of(self.model, batch, self.loss_path.head, ahead=False)
            sums = (-outputs.losses()).tolist()
            missed = outputs.by_example((outputs.logits.argmax(-1) != outputs.targets).float()).tolist()
            found |= {place: (own, not wrong) for place, own, wrong in zip(places, sums, missed, strict=True)}
        return [found[place] for place in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Give the log-likelihood of each text, in nats: of a long one in windows, each token in one of them."""
        windows: list[tuple[Tokens, Tokens]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for given, own in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1):
                windows.append((given[: len(given) - len(own) + 1], own))
                owners.append(number)
        sums = [0.0] * len(requests)
        for places, batch in self._batches(windows):
            losses = losses_of(self.model, batch, self.loss_path.head, ahead=False).tolist()
            for place, loss in zip(places, losses, strict=True):
                sums[owners[place]] -= loss
        return sums

    def _batches(self, asked: Sequence[tuple[Tokens, Tokens]]) -> Iterator[tuple[list[int], Batch]]:
        """Yield sequences of a context and what follows it, whose tokens are the labels, the longest first: their
        places, and a batch in which each position has to predict its own label. Long contexts lose their beginning."""
        ids, labels = [], []
        for context, own in asked:
            if len(own) > self.max_length:
                raise ValueError(f"a continuation has {len(own)} tokens, and the model takes {self.max_length}")
            whole = np.array([*context, *own], np.int64)[-(self.max_length + 1) :]
            ids.append(whole[:-1])
            labels.append(np.where(np.arange(1, len(whole)) < len(whole) - len(own), IGNORED, whole[1:]))
        lengths = np.array([len(own) for own in ids], np.int64)
        filler = self._filler
        for places in cut(np.argsort(-lengths, kind="stable"), lengths, self.most, self.batching):
            rows = [[place] for place in range(len(places))]
            batch = lay_out(rows, [ids[place] for place in places], [labels[place] for place in places], filler)
            yield places.tolist(), with_mask(batch).to(self._device)

    @property
    def _filler(self) -> int:
        return int(self.eot_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Answer each prompt up to one of the texts that its settings name, or the end token. What a task draws is
        decided by the document's number, and the same in every run."""
        alike: dict[str, list[int]] = {}
        numbers = _numbered(requests)
        for place, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(place)
        found: dict[int, str] = {}
        for places in alike.values():
            prompts = [self.tok_encode(requests[place].args[0]) for place in places]
            order = sorted(range(len(places)), key=lambda place: -len(prompts[place]))
            for start in range(0, len(order), self.most):
                some = order[start : start + self.most]
                own = [places[each] for each in some]
                settings = requests[own[0]].args[1]
                told = self._answers([prompts[each] for each in some], settings, [numbers[place] for place in own])
                found |= dict(zip(own, told, strict=True))
        return [found[place] for place in range(len(requests))]

    def _answers(self, prompts: Sequence[Tokens], said: dict[str, Any], numbers: Sequence[Number]) -> list[str]:
        """Answer prompts under the same settings, as the task has ``said`` them."""
        settings = dict(normalize_gen_kwargs(said, MOST_NEW_TOKENS))
        most = self.most_new_tokens or int(settings["max_gen_toks"])
        room = self.max_length - most
        if room < 1:
            raise ValueError(f"answers of {most} tokens leave no room for a prompt in {self.max_length}")
        end = self._words([self.eot_token_id], keep=True)
        stops = [stop for stop in handle_stop_sequences(settings.get("until"), end) if stop]
        others = {name: value for name, value in settings.items() if name not in SAID}
        given = [np.array(prompt[-room:], np.int64) for prompt in prompts]
        done = self._done(stops)
        drawn = _sampling(settings, numbers, most) if settings.get("do_sample") else None
        ends = [self.eot_token_id]
        ids = answers(self.model, given, self._filler, ends, most, self.batching, drawn, done, **others)
        return [_before(self._words(own), stops) for own in ids]

    def _done(self, stops: Sequence[str]) -> Callable[[int, Tokens], bool]:
        """Tell of what has been generated whether it ends with one of ``stops``, looking at its last tokens alone."""
        near = tokens_near(stops)

        def found(_: int, ids: Tokens) -> bool:
            said = self._words(ids[-near:], keep=True)
            return any(stop in said for stop in stops)

        return found


SAID = ("do_sample", "until", "max_gen_toks", "temperature", "top_k", "top_p")
"""Settings of answers that are ours to follow; others are transformers'."""


def longest_answer(request: Instance) -> int:
    """Count the tokens that an answer to ``request`` may have."""
    return int(normalize_gen_kwargs(request.args[1], MOST_NEW_TOKENS)["max_gen_toks"])


def _numbered(requests: Sequence[Instance]) -> list[Number]:
    """Number requests by document, place among those about it, and how often the same one has come before."""
    seen: Counter[tuple[int, int]] = Counter()
    found = []
    for request in requests:
        own = (int(request.doc_id or 0), int(request.idx))
        found.append((*own, seen[own]))
        seen[own] += 1
    return found


def _sampling(settings: dict[str, Any], numbers: Sequence[Number], most: int) -> Sampling:
    """Draw as ``settings`` say, for each request by its number."""
    bits = [np.random.PCG64(Streams(0).seed_of("noise", *number)).random_raw(most) for number in numbers]
    draws = (np.stack(bits) >> np.uint64(64 - DRAW)) / 2.0**DRAW
    temperature, top_k, top_p = (settings.get(name) for name in ("temperature", "top_k", "top_p"))
    return Sampling(draws, temperature or 1.0, top_k or None, top_p or 1.0)


def _before(text: str, stops: Sequence[str]) -> str:
    """Cut ``text`` before the first of ``stops`` in it."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
