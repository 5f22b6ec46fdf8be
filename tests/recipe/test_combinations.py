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
SETS = "type: multi-label-classification"
ORDINAL = "{type: classification, ordinal: true}"
TANGENT = "{type: linear, mode: linearised}"
STAGE = "[{name: a, data: {train: {path: a.csv}}, task: {type: classification}, strategy: %s}]"
NO_TEST = "{train: {path: a.csv}, split: {validation: 0.1}}"
NO_VALIDATION = "{train: {path: a.csv}, split: {test: 0.1}}"
TEST_FILE = "{train: {path: a.csv}, test: {path: b.csv}}"


def SET(said: str, **sections: str) -> dict[str, str]:
    """A recipe with an evaluation set that says this."""
    return {**sections, "evaluate": f"[{{name: a, data: {{path: b}}, {said}}}]"}


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
        ({"lm_eval": "[a, {task: a, limit: 3}]"}, "lm_eval.1.name", "'a' is given twice"),
        ({"lm_eval": "[a, {task: b, name: test}]"}, "lm_eval.1.name", "the recipe's own test"),
        ({"evaluate": "[{name: a, data: {path: b}}]", "lm_eval": "[a]"}, "lm_eval.0.name", "is given twice"),
        ({"data": NO_TEST, "lm_eval": "[a]"}, "data", "nothing is held out"),
        ({"lm_eval": "[a]", "scoring": "{base: false}"}, "lm_eval.0.role", "that one is not scored"),
        ({"lm_eval": "[{task: a, role: shifted, margin: 1.0}]"}, "lm_eval.0.margin", "the set's role is shifted"),
        ({"task": "{type: classification, group: g}", "vary": "[split]"}, "task.group", "take split out of `vary`"),
        ({"train": "{select: rouge_l}"}, "train.select", "loss, accuracy"),
        ({"data": NO_VALIDATION, "train": "{early_stopping: {}}"}, "train.early_stopping", "no validation"),
        ({"train": "{early_stopping: {}, evaluations: 0}"}, "train.early_stopping", "never stops"),
        ({"train": "{micro_batch_size: 17}"}, "train.micro_batch_size", "larger than the batch of 16"),
        ({"strategy": "{type: preference}"}, "strategy.type", "write task type chat"),
        ({"task": "{type: language, metrics: [loss, chrf]}"}, "task.metrics.1", "answers nothing"),
        ({"task": "{type: language, metrics: ['hub:wer']}"}, "task.metrics.0", "answers nothing"),
        ({"task": f"{{{SETS}, metrics: [micro_f1, macro_f1]}}"}, "task.metrics.1", "choose from: "),
        ({"task": "{type: classification, metrics: [micro_f1]}"}, "task.metrics.0", "another kind of answers"),
        ({"task": f"{{{SETS}, metrics: [micro_f1, brier]}}"}, "task.metrics.1", "probabilities of answers"),
        ({"task": "{type: chat, prompt: p, completion: c, metrics: [ece]}"}, "task.metrics.0", "gives none"),
        ({"task": f"{{{SETS}}}", "strategy": "{type: linear}"}, "strategy.solver", "has another loss"),
        ({"task": ORDINAL, "strategy": "{type: linear}"}, "strategy.solver", "the labels here are ordinal"),
        ({"task": f"{{{SETS}}}", "mitigations": "[{type: label-smoothing}]"}, "mitigations.0.type", "softmax"),
        ({"task": "{type: classification, metrics: [mae]}"}, "task.metrics.0", "answers with none"),
        ({"task": "{type: regression, metrics: [mae, mcc]}"}, "task.metrics.1", "pearson, "),
        ({"stages": STAGE % TANGENT}, "stages.0.strategy", "nothing can start from it"),
        (SET("task: {type: language}, role: shifted", data=NO_TEST), "evaluate.0.task", "first set"),
        (SET("labels: {a: b}", task=CHAT), "evaluate.0.labels", "has none"),
        (SET("role: forgetting"), "evaluate.0.role", "that one is not scored"),
        (SET("role: forgetting", task=CHAT, scoring="{base: false}"), "evaluate.0.role", "scoring.base: true"),
        (SET("task: {type: language}", task=CHAT), "evaluate.0.margin", "'loss' has no points"),
        (SET("margin: 1"), "evaluate.0.margin", "write role: forgetting"),
        (SET("task: {type: classification}", task=CHAT), "evaluate.0.task.type", "wants a new head"),
        (SET("task: {type: language, metrics: [chrf]}, margin: 1", task=CHAT), "evaluate.0.task.metrics.0", "nothing"),
        (SET("task: {metrics: [preference_accuracy]}", task=CHAT), "evaluate.0.task.metrics.0", "no rejected ones"),
        (SET("task: {metrics: [answered]}", task=CHAT), "evaluate.0.task.metrics.0", "looks for none"),
        (SET("task: {rejected: r, metrics: [reward_margin]}", task=CHAT), "evaluate.0.task.metrics.0", "has none"),
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
        SET("task: {type: language}, margin: 0.1", task=CHAT),
        SET("role: forgetting", task=CHAT),
        SET("task: {text: tweet}, labels: {type: x}"),
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
