"""Makes pairs for strategy preference: right answers, and wrong ones that the untuned model gives to the same prompts.

python -m scripts._pairs recipes/gsm8k.yaml recipes/gsm8k-pairs.jsonl [OVERRIDE ...]

The recipe's training examples are answered as its task says, by `task.sampling` where it draws, and an answer is wrong
in which `task.answer` finds another one than in the right one, or none. The same recipe makes the same pairs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from finetune import load_recipe
from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.evaluate.predict import predictions_of
from finetune.models import processor
from finetune.replicas.group import ReplicaGroup
from finetune.runner.build import to_device
from finetune.runner.resources import Resources
from finetune.runner.session import Session


def pairs_of(recipe: Any) -> list[dict[str, str]]:
    """Answer the training examples of ``recipe``, whose task reads a prompt and its completion; keep what is wrong."""
    runtime = open_runtime(*processor(recipe.model), Progress(), StopRequest(), Path())
    session = Session.open(Resources(), recipe, recipe.data.split.seed, runtime)
    task, rows, examples = session.data.task, session.data.learnt["train"], session.data.train.examples
    model = to_device(session.base.copy(Streams(0)).requires_grad_(False), runtime)
    [found] = predictions_of(ReplicaGroup(model), task, examples, recipe.scoring.batch_size, runtime)
    said = [each.text for each in found]
    answers, wanted = task.extracted(said), task.extracted([example.reference for example in examples])
    if answers is None or wanted is None:
        answers, wanted = said, [example.reference for example in examples]
    texts = dict(
        zip(rows["example"], zip(rows[task.options.prompt], rows[task.options.completion], strict=True), strict=True)
    )
    return [
        dict(zip(("prompt", "completion", "rejected"), (*texts[example.number], text), strict=True))
        for example, text, answer, right in zip(examples, said, answers, wanted, strict=True)
        if text and answer != right
    ]


if __name__ == "__main__":
    source, output, *overrides = sys.argv[1:]
    made = pairs_of(load_recipe(source, overrides).variants[0].recipe)
    Path(output).write_text("".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in made), encoding="utf-8")
    print(f"{len(made)} pairs in {output}")
