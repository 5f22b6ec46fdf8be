"""A model that writes learns to stop."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from finetune.advice.base import Rule, Saw, Seen
from finetune.core.registry import ADVICE

ROWS = 1000
"""Examples that are looked at."""
SHARE = 0.5


@ADVICE.register
class PadIsEos(Rule):
    """Let answers end with a token that is learnt, and is not taken for padding.

    Here padding is told by its place and not by its token, so that an end that stands in an answer is learnt in any
    case. Advice is given where it does not stand there: then nothing but padding would have shown it.
    """

    name = "pad-is-eos"
    why = "a model that has not learnt its end token goes on writing until it is stopped"
    source = "transformers' DataCollatorForLanguageModeling, which leaves whatever is the pad token out of the loss"

    def look(self, seen: Seen) -> Iterator[Saw]:
        task = seen.data.task
        tokenizer = task.tokenizer
        end = tokenizer.eos_token_id
        if task.answer != "text" or end is None or tokenizer.pad_token_id != end:
            return
        examples = list(islice(seen.data.train.examples, ROWS))
        # A template may end turns with a token of its own, which is learnt, and at which answers stop, in its place.
        ends: set[int] = task.end_tokens(examples) if hasattr(task, "end_tokens") else {end}
        without = sum(ends.isdisjoint(map(int, example.target)) for example in examples)
        if without > SHARE * len(examples):
            found = f"pad and end token are both '{tokenizer.eos_token}', and {without:,} of {len(examples):,} answers "
            found += "do not end with it"
            yield Saw(
                found, "answers short enough not to be cut (task.max_length), or a template that ends turns with it"
            )
