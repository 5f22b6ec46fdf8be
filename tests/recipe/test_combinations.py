from __future__ import annotations

import pytest

from finetune.core.errors import InputError
from finetune.recipe import load

GOOD = {
    "model": "{source: org/name}",
    "data": "{train: {path: a.csv}, split: {test: 0.3, validation: 0.1}}",
    "task": "{type: classification}",
    "strategy": "{type: full}",
}
CHAT = "{type: chat, prompt: p, completion: c}"
TANGENT = "{type: linear, mode: linearised}"
STAGE = "[{name: a, data: {train: {path: a.csv}}, task: {type: classification}, strategy: %s}]"
NO_TEST = "{train: {path: a.csv}, split: {validation: 0.1}}"
NO_VALIDATION = "{train: {path: a.csv}, split: {test: 0.1}}"
TEST_FILE = "{train: {path: a.csv}, test: {path: b.csv}}"


def text(**sections: str) -> str:
    return "".join(f"{key}: {value}\n" for key, value in {**GOOD, **sections}.items())


@pytest.mark.parametrize(
    ("sections", "path", "said"),
    [
        ({"task": CHAT, "strategy": "{type: linear}"}, "strategy.type", "adapter or partial"),
        ({"data": NO_TEST}, "data", "nothing is held out"),
        ({"data": "{train: {path: a}, test: {path: b}, split: {test: 0.3}}"}, "data", "test"),
        ({"data": "{train: {path: a}, validation: {path: b}, split: {test: 1, validation: 1}}"}, "data", "validation"),
        ({"evaluate": "[{name: a, data: {path: b}}, {name: a, data: {path: c}}]"}, "evaluate.1.name", "twice"),
        ({"evaluate": "[{name: test, data: {path: b}}]"}, "evaluate.0.name", "the recipe's own test"),
        ({"evaluate": "[{name: train, data: {path: b}}]"}, "evaluate.0.name", "the recipe's own train"),
        ({"data": TEST_FILE, "evaluate": "[{name: test, data: {path: b}}]"}, "evaluate.0.name", "own test"),
        ({"task": "{type: classification, group: g}", "vary": "[split]"}, "task.group", "take split out of `vary`"),
        ({"train": "{select: rouge_l}"}, "train.select", "loss, accuracy"),
        ({"data": NO_VALIDATION, "train": "{early_stopping: {}}"}, "train.early_stopping", "no validation"),
        ({"train": "{early_stopping: {}, evaluations: 0}"}, "train.early_stopping", "never stops"),
        ({"train": "{micro_batch_size: 17}"}, "train.micro_batch_size", "larger than the batch of 16"),
        ({"strategy": "{type: preference}"}, "strategy.type", "write task type chat"),
        ({"task": "{type: language, metrics: [loss, chrf]}"}, "task.metrics.1", "answers nothing"),
        ({"task": "{type: language, metrics: ['hub:wer']}"}, "task.metrics.0", "answers nothing"),
        ({"task": "{type: classification, metrics: [mae]}"}, "task.metrics.0", "answers with none"),
        ({"task": "{type: regression, metrics: [mae, mcc]}"}, "task.metrics.1", "pearson, rmse, spearman"),
        ({"stages": STAGE % TANGENT}, "stages.0.strategy", "nothing can start from it"),
    ],
)
def test_impossible(write, sections, path, said):
    with pytest.raises(InputError) as caught:
        load(write(text(**sections)))
    [problem] = caught.value.problems
    assert problem.path == path
    assert said in str(problem)
    assert problem.where.startswith("recipe.yaml:")


@pytest.mark.parametrize(
    "sections",
    [
        {"task": CHAT, "strategy": "{type: adapter}"},
        {"strategy": "{type: linear}", "stages": STAGE % "{type: linear}"},
        {"task": CHAT, "strategy": TANGENT},
        {"data": NO_TEST, "evaluate": "[{name: test, data: {path: b}}]"},
        {"data": TEST_FILE},
        {"train": "{select: accuracy, early_stopping: {}}"},
        {"train": "{micro_batch_size: 16}"},
        {"task": "{type: regression, metrics: [loss, mae, 'hub:mse']}", "strategy": "{type: linear}"},
    ],
)
def test_possible(write, sections):
    assert load(write(text(**sections)))


def test_impossible_is_told_together_with_other_mistakes(write):
    with pytest.raises(InputError) as caught:
        load(write(text(train="{micro_batch_size: 17}", model="{source: 3}", data=NO_TEST)))
    assert [p.path for p in caught.value.problems] == ["model.source", "data", "train.micro_batch_size"]


def test_impossible_in_one_variant_only(write):
    with pytest.raises(InputError) as caught:
        load(write(text(task=CHAT) + "variants: {a: {strategy: {type: linear}}, b: {}}\n"))
    [problem] = caught.value.problems
    assert (problem.path, problem.where) == ("variants.a.strategy.type", "recipe.yaml:5")
