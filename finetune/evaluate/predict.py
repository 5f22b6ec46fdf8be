"""Scores a group of runs on a held-out set: predictions for every example, then metrics over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from finetune.core.examples import Example, Prediction
from finetune.core.memory import out_of_memory
from finetune.core.runtime import Runtime
from finetune.evaluate import metrics
from finetune.evaluate.store import Predictions
from finetune.replicas.group import ReplicaGroup
from finetune.tasks.base import Task
from finetune.tasks.batching import cut


def predict(
    group: ReplicaGroup,
    task: Task,
    examples: Sequence[Example],
    batch_size: int,
    runtime: Runtime,
    answers: bool = True,
    title: str = "scoring",
) -> list[Predictions]:
    """Predict every example with each run of ``group``. Processes share the work, and all get the whole tables.

    Without ``answers`` nothing is generated, and only the losses mean anything. A batch of which memory runs out is
    halved. Raises Interrupted after the batch in which any process was asked to stop; ``title`` is what is shown.
    """
    accelerator = runtime.accelerator
    batches = batches_of(examples, task, batch_size)
    mine: list[tuple[int, list[Prediction]]] = []
    group.model.eval()
    if group.prefix:
        group.prefix.store.announce(examples)
    for start in runtime.track(range(0, len(batches), accelerator.num_processes), title):
        # Processes stop together, so all go round as often, the last time some of them with nothing to do.
        for batch in batches[start : start + accelerator.num_processes][accelerator.process_index :][:1]:
            found = _predict(group, task, [examples[index] for index in batch], runtime, answers)
            mine += zip(batch, found, strict=True)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        mine = gather_object(mine)
    by_index = dict(mine)
    return [
        _table(task, examples, [by_index[index][replica] for index in range(len(examples))])
        for replica in range(group.count)
    ]


def batches_of(examples: Sequence[Example], task: Task, size: int) -> list[list[int]]:
    """Find which examples to score at once: their places, at most ``size`` of them a batch."""
    # Alike in length, so that little is padded; the longest first, so that memory runs out at once if it does.
    lengths = np.array([example.length for example in examples])
    order = np.argsort(-lengths, kind="stable")
    return [batch.tolist() for batch in cut(order, lengths, size, task.batching)]


def _predict(
    group: ReplicaGroup, task: Task, examples: Sequence[Example], runtime: Runtime, answers: bool
) -> list[list[Prediction]]:
    """Give each run's prediction for each example, (N, R)."""
    every, counts = [*examples] * group.count, [len(examples)] * group.count  # replica by replica
    try:
        with torch.inference_mode(), runtime.autocast():
            task.loss_path(group.model, group.count)  # which may try the model out, and is not to be taken for a batch
            batch = task.batch_for(group.model, every, runtime.device, counts)
            with group.on(every, batch, counts):
                found = task.predict(group.model, every, batch)
            texts = task.generate(group.model, every, runtime.device) if answers else None
        if texts is not None:
            found = [replace(one, text=text) for one, text in zip(found, texts, strict=True)]
    except RuntimeError as error:
        if not out_of_memory(error) or len(examples) == 1:
            raise
        half = len(examples) // 2
    else:
        return [list(found[number :: len(examples)]) for number in range(len(examples))]
    parts = (examples[:half], examples[half:])
    return [row for part in parts for row in _predict(group, task, part, runtime, answers)]


def _table(task: Task, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Predictions:
    texts, references = [p.text for p in predictions], [example.reference for example in examples]
    probabilities = [p.probabilities for p in predictions if p.probabilities is not None]
    loss, weight = (np.asarray(values) for values in ([p.loss for p in predictions], [e.weight for e in examples]))
    margins = [p.margin for p in predictions if p.margin is not None]
    # Where nothing is answered, an example's own score is its loss.
    by_loss = task.example_score == "loss"
    return Predictions(
        example=np.asarray([example.number for example in examples], dtype=np.int64),
        prediction=texts,
        reference=references,
        score=loss / weight if by_loss else metrics.scores_of(task.example_score, texts, references),
        loss=loss,
        weight=weight,
        margin=np.asarray(margins) if "margin" in task.fills else None,
        probabilities=np.stack(probabilities) if "probabilities" in task.fills else None,
        labels=task.labels,
    )
