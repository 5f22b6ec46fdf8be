"""What every task holds, whoever wrote it."""

import json
import re
from typing import get_args

import numpy as np
import pytest
import torch

from finetune.core.answers import EXCLUSIVE, Answer, Column
from finetune.core.registry import TASKS, summary
from finetune.evaluate import metrics
from finetune.evaluate.predict import table_of
from finetune.runner.baselines import UntunedModel
from finetune.tasks.baselines.base import ExampleSet, Uses
from tests.contracts.battery import combinations, every, missing, well_documented

CPU = torch.device("cpu")
every_combination = every(combinations(TASKS))


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
    assert re.fullmatch("[a-z0-9]+(-[a-z]+)*", task.pipeline_tag)
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
    for column in ("probabilities", "margin", "margin_norm"):
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


SHOTS = 1


@every_combination
def test_baselines_are_named_and_documented(batteries, combination):
    """Each by itself is a folder, and needs no more than it says."""
    task = batteries(combination).data.task
    baselines = task.baselines(SHOTS)
    names = [baseline.name for baseline in baselines]
    assert len(set(names)) == len(names)
    for baseline in baselines:
        assert re.fullmatch("[a-z]+(-[a-z]+)*", baseline.name) and baseline.uses in get_args(Uses)
        assert summary(type(baseline)).endswith("."), "the first line of its docstring says what it does"
        assert json.loads(json.dumps(baseline.settings)) == baseline.settings
    unasked = [baseline.name for baseline in task.baselines()]
    assert set(unasked) <= set(names) and not any(baseline.uses == "model" for baseline in task.baselines())


@every_combination
def test_baselines_predict_what_the_store_takes_and_the_same_again(batteries, combination):
    session = batteries(combination).session()
    data, task = session.data, session.data.task
    for number in range(len(task.baselines(SHOTS))):
        tables = []
        for _ in range(2):
            baseline = task.baselines(SHOTS)[number]
            baseline.fit(ExampleSet("data.train", data.learnt["train"], data.train), UntunedModel(session))
            held_out = data.held_out["test"]
            found = baseline.predict(ExampleSet("data.test", data.tables["test"], held_out))
            tables.append(table_of(task, held_out.examples, found))
        first, again = tables
        assert first.example.tolist() == [example.number for example in data.held_out["test"].examples]
        assert first.prediction == again.prediction and (first.score == again.score).all()
        assert task.example_score in metrics.computable(first, [task.example_score])
        if task.answer == "label":
            assert set(first.prediction) <= set(task.labels)
        assert (first.probabilities is None) or "probabilities" in task.fills
        for column in ("loss", "probabilities", "margin"):
            values, others = getattr(first, column), getattr(again, column)
            assert (values is None) == (others is None)
            assert values is None or (np.isfinite(values).all() and (values == others).all())
        if first.probabilities is not None:
            np.testing.assert_allclose(first.probabilities.sum(1), 1, rtol=1e-6)
