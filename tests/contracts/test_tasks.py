"""What every task holds, whoever wrote it."""

import re
from typing import get_args

import numpy as np
import pytest
import torch

from finetune.core.answers import EXCLUSIVE, Answer, Column
from finetune.core.registry import TASKS
from finetune.evaluate import metrics
from tests.contracts.battery import combinations, missing, well_documented

CPU = torch.device("cpu")
every_combination = pytest.mark.parametrize(
    "combination", combinations(TASKS), ids=lambda parts: "-".join(filter(None, parts))
)


def test_every_task_has_an_example():
    assert not missing(TASKS), missing(TASKS)


@pytest.mark.parametrize("name", TASKS.all())
def test_it_is_documented(name):
    well_documented(TASKS, name)


@every_combination
def test_it_says_what_it_answers(batteries, combination):
    task = batteries(combination).data.task
    assert task.answer is None or task.answer in get_args(Answer)
    assert (task.example_score == "loss") or "prediction" in task.fills
    assert re.fullmatch("[a-z]+(-[a-z]+)*", task.pipeline_tag)
    assert {"loss"} <= task.fills <= set(get_args(Column))
    assert "probabilities" not in task.fills or task.answer in EXCLUSIVE


@every_combination
def test_examples_are_numbered_and_have_what_metrics_need(batteries, combination):
    data = batteries(combination).data
    assert [example.number for example in data.train.examples] == list(range(32))
    for example in [*data.train.examples, *data.held_out["test"].examples]:
        assert example.length > 0 and example.weight > 0
        assert bool(example.reference) == (data.task.answer is not None), "what is answered has a right answer"
    assert data.train.facts["tokens"]["max"] == max(example.length for example in data.train.examples)
    assert data.train.facts["cut"] == 0
    for name in (data.task.example_score, *data.task.options.metrics):
        metrics.load(name)


@every_combination
def test_losses_do_not_depend_on_the_batch(batteries, outcomes, combination):
    battery, model = batteries(combination), outcomes(combination, 1).model
    task, examples = battery.data.task, battery.seen
    with torch.no_grad():
        together = task.losses(model.eval(), task.collate(examples))
        alone = torch.cat([task.losses(model, task.collate([example])) for example in examples])
    assert together.shape == (len(examples),) and together.dtype == torch.float32
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert (together > 0).all()


@every_combination
def test_a_batch_says_where_each_replicas_examples_stand(batteries, combination):
    data = batteries(combination).data
    examples = [data.train.examples[number] for number in (3, 1, 4, 1, 5, 9)]
    batch = data.task.collate(examples, [2, 4])
    for number, example in enumerate(examples):
        assert batch.inputs["input_ids"][batch.example == number].tolist() == example.inputs["input_ids"].tolist()
    owners = [{number >= 2 for number in row.tolist() if number >= 0} for row in batch.example]
    assert all(len(own) == 1 for own in owners) and owners == sorted(owners, key=min)


@every_combination
def test_predictions_have_the_loss_that_training_sees(batteries, outcomes, combination):
    battery, model = batteries(combination), outcomes(combination, 1).model
    task, examples = battery.data.task, battery.data.held_out["test"].examples
    with torch.no_grad():
        losses = task.losses(model.eval(), task.collate(examples))
        found = task.predict(model, examples, task.collate(examples))
        texts = task.generate(model, examples, CPU)
    assert [prediction.loss for prediction in found] == pytest.approx(losses.tolist(), rel=1e-4)
    assert (texts is None) == (task.answer != "text")
    texts = [prediction.text for prediction in found] if texts is None else texts
    assert len(texts) == len(examples) and all(isinstance(text, str) for text in texts)
    if task.answer == "label":
        assert set(texts) <= set(task.labels)
    for column in ("probabilities", "margin"):
        assert {getattr(prediction, column) is not None for prediction in found} == {column in task.fills}


@every_combination
def test_what_was_trained_is_better_on_held_out_examples(batteries, outcomes, combination):
    battery, outcome = batteries(combination), outcomes(combination, 1)
    task, examples = battery.data.task, battery.data.held_out["test"].examples
    untrained = battery.fresh(1).model
    with torch.no_grad():
        before, after = (
            np.mean([found.loss for found in task.predict(model.eval(), examples, task.collate(examples))])
            for model in (untrained, outcome.model)
        )
    assert after < before
