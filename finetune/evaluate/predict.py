"""Scores a model on a held-out set: predictions for every example, then metrics over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from finetune.errors import Interrupted
from finetune.evaluate import metrics
from finetune.evaluate.store import Predictions
from finetune.surroundings import Surroundings
from finetune.tasks.base import Example, Prediction, Task


def predict(
    model: torch.nn.Module,
    task: Task,
    examples: Sequence[Example],
    batch_size: int,
    around: Surroundings,
    answers: bool = True,
) -> Predictions:
    """What ``model`` says of every example. Processes share the work, and all of them get the whole table.

    Without ``answers`` nothing is generated, and only the losses mean anything.
    """
    accelerator = around.accelerator
    # Alike in length, so that little is padded; the longest first, so that memory runs out at once if it does.
    order = sorted(range(len(examples)), key=lambda index: -examples[index].length)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    mine: list[tuple[int, Prediction]] = []
    model.eval()
    for number, batch in enumerate(batches[accelerator.process_index :: accelerator.num_processes]):
        if around.stop.requested and accelerator.num_processes == 1:
            raise Interrupted("stopped while scoring")
        with torch.inference_mode(), around.arithmetic():
            found = task.predict(model, [examples[index] for index in batch], around.device, answers)
        mine += zip(batch, found, strict=True)
        around.progress.step(number + 1)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        mine = gather_object(mine)
    return _table(task, examples, dict(mine))


def _table(task: Task, examples: Sequence[Example], found: dict[int, Prediction]) -> Predictions:
    predictions = [found[index] for index in range(len(examples))]
    texts, references = [p.text for p in predictions], [example.reference for example in examples]
    probabilities = [p.probabilities for p in predictions if p.probabilities is not None]
    return Predictions(
        example=np.asarray([example.number for example in examples], dtype=np.int64),
        prediction=texts,
        reference=references,
        score=metrics.scores_of(task.example_score, texts, references),
        loss=np.asarray([p.loss for p in predictions]),
        weight=np.asarray([example.weight for example in examples]),
        probabilities=np.stack(probabilities) if probabilities else None,
        labels=task.labels,
    )


def score(predictions: Predictions, names: Sequence[str]) -> dict[str, float]:
    """The value of each metric."""
    return {name: metrics.load(name).compute(predictions) for name in names}
