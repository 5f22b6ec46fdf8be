"""Regression: the unit in which is learnt and said, what is refused, the losses, and models that come back."""

import json
import math

import numpy as np
import pytest
import torch

from finetune import recipe as recipes
from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.data.columns import numbers_of
from finetune.models import ModelOptions, load_base, load_tokenizer
from finetune.runner.baselines import UntunedModel
from finetune.runner.saved import load_model
from finetune.study.running import run_study
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.regression import DELTA, Regression
from tests import tiny
from tests.examples import TaskExample

LEVEL = {"money": 140.0, "space": 155.5, "sport": 171.0}
"""A number for each topic, far from 0 and from an SD of 1."""


def write(folder, count):
    rows = [(text, LEVEL[topic] + number % 5) for number, (text, topic) in enumerate(tiny.sentences(count))]
    return tiny.write_csv(folder / "data.csv", rows, header=("text", "target"))


EXAMPLES = {
    "regression": TaskExample(
        {"max_length": 32},
        write,
        models=("encoder", "decoder", "encoder-decoder"),
        cannot_stack={"encoder-decoder": "side by side the model fails"},
        far=1e-3,  # a decoder's gradients reach a length of 60 at the rate of `partial`, and rounding grows with them
        slow={"adapter/prompt": 1.01},  # numbers in SDs start at the loss of the best constant: no bias is to be learnt
    ),
    "regression/huber": TaskExample({"max_length": 32, "loss": "huber", "delta": 0.5}, write, ("encoder",), alone=True),
}


def task_of(**options):
    return Regression(Regression.Options(type="regression", **options))


def fitted(folder, train, held_out=None, **options):
    """A task fitted to ``train``, and what it encodes of it."""
    task = task_of(**options)
    task.check(train, "data.train")
    task.fit(tiny.splits(train, **(held_out or {})), load_tokenizer(ModelOptions(source=str(folder))))
    return task, task.encode(train, "data.train", training=True)


def model_for(folder, task):
    base = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    return base.copy(Streams(0)).eval()


def table(count=9):
    return tiny.dataset(
        text=[text for text, _ in tiny.sentences(count)],
        target=[LEVEL[topic] + 0.1 * number for number, (_, topic) in enumerate(tiny.sentences(count))],
    )


# The unit


def test_numbers_are_learnt_in_sds_from_the_training_mean(encoder_folder):
    train = tiny.dataset(text=list("abcd"), target=[10.0, 20.0, 30.0, 60.0])
    held_out = {"test": tiny.dataset(text=["e"], target=[100])}
    task, encoded = fitted(encoder_folder, train, held_out)
    assert (task.scale.mean, task.scale.sd) == (30.0, pytest.approx(np.std([10, 20, 30, 60])))
    learnt = encoded.examples.targets
    assert learnt.mean() == pytest.approx(0, abs=1e-12) and learnt.std() == pytest.approx(1)
    assert task.scale.said(learnt) == pytest.approx([10, 20, 30, 60])
    assert [example.reference for example in encoded.examples] == ["10.0", "20.0", "30.0", "60.0"]
    [beyond] = task.encode(held_out["test"], "data.test", False).examples
    assert beyond.target == pytest.approx(70 / task.scale.sd) and beyond.reference == "100.0"
    config = task.model_config()
    assert (config["num_labels"], config["problem_type"]) == (1, "regression")
    assert (config["target_mean"], config["target_sd"]) == (task.scale.mean, task.scale.sd)


def test_a_prediction_has_all_digits_of_the_number_and_is_in_the_datas_unit(encoder_folder):
    task, encoded = fitted(encoder_folder, table())
    model, examples = model_for(encoder_folder, task), list(encoded.examples)
    with torch.no_grad():
        logits = task.outputs(model, task.collate(examples)).logits[:, 0].double()
        found = task.predict(model, examples, task.collate(examples))
    wanted = (logits * task.scale.sd + task.scale.mean).tolist()
    assert [float(one.text) for one in found] == wanted, "to the last bit"


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e7])
def test_what_is_learnt_does_not_depend_on_the_unit(encoder_folder, factor):
    plain, scaled = table(), tiny.dataset(text=table()["text"][:], target=[factor * x for x in table()["target"][:]])
    one, other = (fitted(encoder_folder, each)[1].examples.targets for each in (plain, scaled))
    assert other == pytest.approx(one, rel=1e-9)


# Losses


def test_squared_errors_and_hubers(encoder_folder):
    train, errors = table(), torch.tensor([0.0, 0.5, -1.0, 3.0])
    for options, delta in (({}, None), ({"loss": "huber"}, DELTA), ({"loss": "huber", "delta": 0.5}, 0.5)):
        task, encoded = fitted(encoder_folder, train, **options)
        model = model_for(encoder_folder, task)
        some = encoded.examples[:4]
        outputs = task.outputs(model, task.collate(some))
        shifted = type(outputs)(
            outputs.targets[:, None] + errors[:, None], outputs.targets, outputs.owners, 4, delta=delta
        )
        assert outputs.delta == delta
        size = errors.abs()
        wanted = size**2 / 2 if delta is None else torch.where(size < delta, size**2 / 2, delta * (size - delta / 2))
        assert torch.allclose(shifted.losses(), wanted, atol=1e-5)


def test_delta_without_hubers_loss_is_refused():
    with pytest.raises(ValueError, match="delta is for Huber's loss"):
        Regression.Options(type="regression", delta=1.0)


def test_one_output_alone_is_what_plain_transformers_gives(any_folder):
    task, encoded = fitted(any_folder, table(), pair=None)
    model = model_for(any_folder, task)
    with torch.no_grad():
        together = task.outputs(model, task.collate(list(encoded.examples))).logits
        alone = torch.cat([task.plain(model, example).logits for example in encoded.examples])
        losses = torch.cat([task.plain(model, example).losses() for example in encoded.examples])
    assert together.shape == (9, 1) and torch.allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert torch.allclose(task.losses(model, task.collate(list(encoded.examples))), losses, rtol=1e-4, atol=1e-6)


@pytest.fixture(params=["encoder", "decoder", "encoder-decoder"])
def any_folder(request, tmp_path):
    if request.param == "encoder-decoder":
        return tiny.save_encoder_decoder(tmp_path)
    return request.getfixturevalue(f"{request.param}_folder")


# What is refused


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, math.nan, 2.0], "no number but NaN in row 2"),
        ([1.0, None, 2.0, None], "no number in rows 2, 4"),
        ([1.0, math.inf, -math.inf], "an infinite number in rows 2, 3"),
        (["1.0", "2.5", "3"], "numbers as text, such as '1.0' in row 1"),
        (["1.0", "n/a", "3", ""], "text that is no number, such as 'n/a', in rows 2, 4"),
        (["53", "1", "inf"], "text that is no number, such as 'inf', in row 3"),
        (["1,5", "2,5", "1.200,5"], "in rows 1, 2, 3; write numbers with a decimal point"),
        (["5 %", "$3"], "in rows 1, 2; write the number alone"),
        ([True, False, True], "true and false, which are labels"),
        ([[1.0], [2.0], [3.0]], "name a column of numbers"),
    ],
)
def test_what_is_no_number_is_refused_by_row(values, said, refusal):
    data = tiny.dataset(text=list("abcd")[: len(values)], target=values)
    problem = refusal(task_of().check, data, "data.train")
    assert problem.path == "task.target" and said in f"{problem.found}; {problem.advice}"


def test_one_value_only_is_refused(encoder_folder, refusal):
    problem = refusal(fitted, encoder_folder, tiny.dataset(text=list("abc"), target=[3, 3, 3]))
    assert problem.path == "task.target" and "one value only in the training examples: 3.0" in problem.found


def test_numbers_too_large_to_be_squared_are_refused(encoder_folder, refusal):
    problem = refusal(fitted, encoder_folder, tiny.dataset(text=list("abc"), target=[1e200, -1e200, 3.0]))
    assert "cannot be squared" in problem.found


def test_whole_numbers_and_decimals_are_numbers():
    from decimal import Decimal

    for values in ([1, 2, -3], [Decimal("1.25"), Decimal("2.50"), Decimal("-3.00")]):
        data = tiny.dataset(text=list("abc"), target=values)
        task_of().check(data, "data.train")
        assert numbers_of(data, "target").tolist() == [float(value) for value in values]


def test_what_was_stored_in_32_bits_is_the_decimal_number_that_was_meant():
    data = tiny.dataset(text=list("abc"), target=np.array([3.8, 0.1, 2.5], np.float32))
    assert numbers_of(data, "target").tolist() == [3.8, 0.1, 2.5]


@pytest.mark.parametrize(
    ("task", "strategy", "path", "said"),
    [
        ({"type": "regression", "metrics": ["accuracy"]}, "full", "task.metrics.0", "letter by letter"),
        ({"type": "classification", "metrics": ["rmse"]}, "full", "task.metrics.0", "compares numbers"),
        ({"type": "regression", "loss": "huber"}, "linear", "strategy.solver", "another loss"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, task, strategy, path, said):
    content = {
        "model": {"source": "org/name"},
        "data": {"train": {"path": "a.csv"}, "split": {"test": 0.3}},
        "task": task,
        "strategy": {"type": strategy},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        recipes.load(tmp_path / "recipe.yaml")
    [problem] = caught.value.problems
    assert problem.path == path and said in problem.found


# A study


@pytest.fixture(scope="module")
def finished(tmp_path_factory, encoder_folder):
    """A study of three strategies: its folder, and the task as it was fitted."""
    folder = tmp_path_factory.mktemp("regression")
    write(folder, 120)
    (folder / "recipe.yaml").write_text(
        f"""name: levels
seeds: 2
model: {{source: {encoder_folder}, dtype: float32, device: cpu}}
data: {{train: {{path: data.csv}}, split: {{test: 40, validation: 12}}}}
task: {{type: regression, max_length: 32}}
train: {{max_steps: 40, min_steps: 40, batch_size: 8, learning_rate: 1.0e-2, evaluations: 2, save_model: true}}
variants:
  linear: {{strategy: {{type: linear}}}}
  lora: {{strategy: {{type: adapter, method: lora, rank: 4}}}}
  full: {{strategy: {{type: full}}}}
"""
    )
    outcome = run_study(recipes.load(folder / "recipe.yaml"), folder / "runs")
    assert outcome.failed == []
    return outcome.folder


def test_a_study_of_it_is_scored_beside_cheap_rivals(finished):
    results = json.loads((finished / "report" / "results.json").read_text())
    means = {each["name"]: each["estimates"]["test/rmse"]["mean"] for each in results["variants"]}
    cheap = {each["name"]: each["estimates"]["test/rmse"]["mean"] for each in results["baselines"]}
    assert set(cheap) == {"training-mean", "tfidf-ridge", "frozen-ridge"}
    assert max(means.values()) < cheap["training-mean"], "in the data's unit, where an SD is about 13"
    assert 8 < cheap["training-mean"] < 20
    pearson = {each["name"]: each["estimates"]["test/pearson"]["mean"] for each in results["baselines"]}
    assert pearson["training-mean"] == 0 and pearson["tfidf-ridge"] > 0.5


def test_its_report_speaks_of_numbers_and_not_of_classes(finished):
    page = (finished / "report" / "report.md").read_text()
    assert "Hardest examples of test" in page and "| said |" in page
    assert "taken for" not in page and "onfusion" not in page
    assert not [line for line in page.splitlines() if line.startswith("#") and "alibrat" in line]
    assert "| numbers" in page or "numbers |" in page, "means, SDs and ranges by split"
    card = (finished / "report" / "model-card.md").read_text()
    assert "pipeline_tag: text-classification" in card and "type: pearsonr" in card
    assert "SDs from the training mean" in card and "target_sd" in card


@pytest.mark.parametrize("variant", ["linear", "lora", "full"])
def test_a_saved_model_gives_numbers_in_the_datas_unit(finished, variant):
    from finetune.evaluate import store

    model, tokenizer = load_model(finished / variant / "seed-0")
    texts = store.pq.read_table(finished / "examples" / "test.parquet")["input"].to_pylist()
    with torch.no_grad():
        found = [model(**tokenizer(text, return_tensors="pt")).logits.item() for text in texts]
    stored = store.read(finished / variant / "seed-0" / "predictions" / "test.parquet").prediction
    assert found == pytest.approx([float(text) for text in stored], rel=1e-4)


def test_plain_transformers_finds_the_unit_in_the_configuration(finished):
    from transformers import AutoModelForSequenceClassification

    ours, tokenizer = load_model(finished / "full" / "seed-0")
    plain = AutoModelForSequenceClassification.from_pretrained(finished / "full" / "seed-0" / "model").eval()
    given = tokenizer("the bank", return_tensors="pt")
    with torch.no_grad():
        number = plain(**given).logits * plain.config.target_sd + plain.config.target_mean
        assert number.item() == pytest.approx(ours(**given).logits.item(), rel=1e-5)


def test_facts_summarise_the_numbers(finished):
    facts = json.loads((finished / "data.json").read_text())["splits"]
    found = facts["train"]["facts"]["numbers"]
    assert set(found) == {"mean", "sd", "min", "max"} and found["min"] == 140.0
    config = json.loads((finished / "full/seed-0/model/config.json").read_text())
    assert (config["target_mean"], config["target_sd"]) == (found["mean"], found["sd"])


# What needs no learning


def test_the_training_mean_is_the_answer_to_beat(encoder_folder):
    task, encoded = fitted(encoder_folder, tiny.dataset(text=list("abc"), target=[1.0, 2.0, 6.0]))
    trivial = task.trivial(encoded.examples)
    assert trivial.scores == pytest.approx([4.0, 1.0, 9.0]) and not trivial.higher_is_better
    assert "training mean" in trivial.said and task.majority(encoded.examples) is None
    columns = {"prediction": ["1.0", "4.0", "nan"], "reference": ["1.0", "2.0", "6.0"], "score": np.zeros(3)}
    assert task.measured(columns)[:2].tolist() == [0.0, 4.0] and np.isnan(task.measured(columns)[2])


def test_the_mean_as_a_baseline_costs_what_it_says(encoder_folder):
    task, encoded = fitted(encoder_folder, table())
    baseline = task.baselines()[0]
    given = ExampleSet("data.train", table(), encoded)
    baseline.fit(given, UntunedModel(None))
    found = baseline.predict(given)
    assert {round(float(one.text), 9) for one in found} == {round(task.scale.mean, 9)}
    assert np.mean([one.loss for one in found]) == pytest.approx(0.5), "half the variance, in SDs"
