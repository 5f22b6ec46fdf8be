"""Scores a group of runs on a held-out set: predictions for every example, then metrics over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch

from finetune.core.examples import Example, Prediction, lengths_of, weights_of
from finetune.core.memory import out_of_memory
from finetune.core.runtime import Runtime
from finetune.core.sharding import reshard
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
    decisions: Sequence[Mapping[str, float]] | None = None,
) -> list[Predictions]:
    """Predict every example with each run of ``group``, as tables for the store: see :func:`predictions_of`.

    ``decisions`` of the task, one for each run, turn what is predicted into answers; None: as without validation
    examples.
    """
    found = predictions_of(group, task, examples, batch_size, runtime, answers, title)
    return [table_of(task, examples, *each) for each in zip(found, decisions or [{}] * len(found), strict=True)]


def predictions_of(
    group: ReplicaGroup,
    task: Task,
    examples: Sequence[Example],
    batch_size: int,
    runtime: Runtime,
    answers: bool = True,
    title: str = "scoring",
) -> list[list[Prediction]]:
    """Give the predictions of each run of ``group``, in the order of ``examples``. Processes share the work, and all
    get all of it.

    Without ``answers`` nothing is generated, and only the losses mean anything. A batch of which memory runs out is
    halved. Raises Interrupted after the batch in which any process was asked to stop; ``title`` is what is shown.
    """
    if task.asks and (group.count > 1 or group.prefix):
        found: list[list[Prediction]] = []
        for number in range(group.count):
            with group.alone(number) as model:
                found += predictions_of(ReplicaGroup(model), task, examples, batch_size, runtime, answers, title)
        return found
    task, accelerator = task.over(examples) if answers and not task.asks else task, runtime.accelerator
    batches = batches_of(examples, task, batch_size)
    mine: list[tuple[int, list[Prediction]]] = []
    group.model.eval()
    if group.prefix:
        group.prefix.store.announce(examples)
    # Of a sharded model every process takes part in every pass, and how many an answer takes shows on the way.
    together = runtime.shards and (task.asks or (answers and task.answer == "text"))
    processes, rank = (1, 0) if together else (accelerator.num_processes, accelerator.process_index)
    for start in runtime.track(range(0, len(batches), processes), title):
        # Processes stop together, so all go round as often, the last time some of them with nothing to do: of a
        # sharded model, what the first one does.
        these = batches[start : start + processes]
        for batch in these[rank:][:1] or (these[:1] if runtime.shards else []):
            found = _predict(group, task, [examples[index] for index in batch], runtime, answers)
            mine += zip(batch, found, strict=True)
    reshard(group.model)
    if processes > 1:
        from accelerate.utils import gather_object

        mine = gather_object(mine)
    by_index = dict(mine)
    return [[by_index[index][replica] for index in range(len(examples))] for replica in range(group.count)]


def batches_of(examples: Sequence[Example], task: Task, size: int) -> list[list[int]]:
    """Find which examples to score at once: their places, at most ``size`` of them a batch."""
    # Alike in length, so that little is padded; the longest first, so that memory runs out at once if it does.
    lengths = lengths_of(examples)
    order = np.argsort(-lengths, kind="stable")
    return [batch.tolist() for batch in cut(order, lengths, size, task.batching)]


def _predict(
    group: ReplicaGroup, task: Task, examples: Sequence[Example], runtime: Runtime, answers: bool
) -> list[list[Prediction]]:
    """Give each run's prediction for each example, (N, R)."""
    every, counts = [*examples] * group.count, [len(examples)] * group.count  # replica by replica
    try:
        if task.asks:
            with _without_gradients(runtime), runtime.autocast():
                return [[one] for one in task.ask(group.model, examples, runtime.device)]
        with _without_gradients(runtime), runtime.autocast():
            task.loss_path(group.model, group.count)  # which may try the model out, and is not to be taken for a batch
            batch = task.batch_for(group.model, every, runtime.device, counts)
            with group.on(every, batch, counts):
                found = task.predict(group.model, every, batch)
            texts = task.generate(group.model, every, runtime.device) if answers else None
        if texts is not None:
            found = [replace(one, text=text) for one, text in zip(found, texts, strict=True)]
    except RuntimeError as error:
        if not out_of_memory(error) or len(examples) == 1 or runtime.shards:
            raise
        half = len(examples) // 2
    else:
        return [list(found[number :: len(examples)]) for number in range(len(examples))]
    parts = (examples[:half], examples[half:])
    return [row for part in parts for row in _predict(group, task, part, runtime, answers)]


def _without_gradients(runtime: Runtime) -> AbstractContextManager[None]:
    """Give a context in which nothing is remembered for a backward pass. What a sharded model gathers in it is used in
    training, too, which tensors made in inference mode could not be."""
    return torch.no_grad() if runtime.shards else torch.inference_mode()


def table_of(
    task: Task,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    decision: Mapping[str, float] | None = None,
) -> Predictions:
    """Make the prediction store's table of ``predictions``, one for each of ``examples``, as the task's ``decision``
    turns them into answers; None: as without validation examples.

    Columns that no prediction has are left out; ValueError where only some have it, and where an example's own score is
    its loss and there is none.
    """
    predictions = task.decided(task.completed(examples, predictions), decision or {})
    texts, references = [p.text for p in predictions], [example.reference for example in examples]
    probabilities = [p.probabilities for p in predictions if p.probabilities is not None]
    loss = _column([p.loss for p in predictions if p.loss is not None])
    weight = weights_of(examples)
    own = {name: np.array([p.own[name] for p in predictions]) for name in predictions[0].own} if predictions else {}
    if task.example_score in own:
        score = own[task.example_score]
    elif task.example_score != "loss":
        score = metrics.scores_of(task.example_score, texts, references)
    elif loss is not None:  # where nothing is answered, an example's own score is its loss
        score = loss / weight
    else:
        raise ValueError(f"examples of task '{task.name}' are scored by their losses, and there are none")
    return Predictions(
        example=np.asarray([example.number for example in examples], dtype=np.int64),
        prediction=texts,
        reference=references,
        score=score,
        loss=loss,
        weight=weight,
        bytes=_column([example.bytes for example in examples if example.bytes is not None]),
        margin=_column([p.margin for p in predictions if p.margin is not None]),
        margin_norm=_column([p.margin_norm for p in predictions if p.margin_norm is not None]),
        probabilities=np.stack(probabilities) if probabilities else None,
        labels=task.labels,
        extracted=task.extracted(texts),
        extracted_reference=task.extracted(references),
        own=own,
    )


def _column(values: Sequence[float]) -> np.ndarray | None:
    """Make a column of the values that there are; None: there are none."""
    return np.asarray(values) if values else None
