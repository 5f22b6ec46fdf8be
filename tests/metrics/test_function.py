"""A metric of the user's: a function in a file, with intervals like any other, and not run again by a report."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from finetune import check, load_recipe, recipe
from finetune.core.errors import FinetuneError, InputError
from finetune.evaluate import metrics
from finetune.metrics import find
from finetune.metrics.function import FunctionMetric, key_of, load
from finetune.results.compute import results_of
from finetune.results.reading import read_study
from finetune.study.running import run_study

CODE = """
def first_letter(predictions, references):
    return [float(p[:1] == r[:1]) for p, r in zip(predictions, references)]

def share_of_sport(predictions):
    return sum(p == "sport" for p in predictions) / len(predictions)

def surprise(loss):
    return loss

surprise.higher_is_better = False

def broken(predictions):
    raise RuntimeError("no idea")

def words(predictions):
    return ["a"] * len(predictions)

def too_few(predictions):
    return [1.0]

def odd(predictions, colour):
    return 1.0

def forgetful(predictions):
    pass

def undefined(predictions):
    return float("nan")

def partly_undefined(predictions):
    return [float("inf"), *[1.0] * (len(predictions) - 1)]

def silent(predictions):
    assert len(predictions) > 100

def leaves(predictions):
    raise SystemExit(3)

def empties(predictions, references):
    predictions.clear(), references.clear()
    return 0.5

def settled(predictions, references, threshold=0.5, **more):
    return threshold

def by_place(predictions, /):
    return 1.0

def sure(margin):
    return margin

of_others = max
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def columns(pairs):
    return {"prediction": [pair[0] for pair in pairs], "reference": [pair[1] for pair in pairs], "labels": ()}


def score_by(recipe, function):
    """Let a recipe name one of the functions as its metric."""
    text = recipe.read_text().replace("max_length: 32}", f'max_length: 32, metrics: ["./mine.py:{function}"]}}')
    recipe.write_text(text)


PAIRS = [("sport", "sport"), ("money", "sport"), ("space", "sport"), ("money", "money")]


def test_numbers_by_example_have_a_mean_and_are_its_contributions(file):
    metric = load(f"{file}:first_letter", "task.metrics.0")
    assert metric.name == "mine.first_letter" == key_of(f"{file}:first_letter")
    assert metric.value(columns(PAIRS)) == 0.75
    assert metric.contributions(columns(PAIRS)).tolist() == [1, 0, 1, 1]


def test_one_number_for_all_is_taken_apart_by_leaving_examples_out(file):
    """Of a mean the jackknife's pseudo-values are the examples' own numbers."""
    metric = load(f"{file}:share_of_sport", "task.metrics.0")
    assert metric.contributions(columns(PAIRS)) == pytest.approx([1, 0, 0, 0])
    rng = np.random.default_rng(0)
    many = [(str(rng.choice(["sport", "money"], p=[0.3, 0.7])), "sport") for _ in range(1000)]
    found = metric.contributions(columns(many))
    assert found.mean() == pytest.approx(metric.value(columns(many)))
    # In groups of five: the same standard error as by single examples, up to chance.
    assert found.std(ddof=1) == pytest.approx(np.std([p == "sport" for p, _ in many], ddof=1), rel=0.15)


def test_it_says_which_way_is_up(file):
    assert load(f"{file}:first_letter", "").higher_is_better and not load(f"{file}:surprise", "").higher_is_better


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nowhere.py:f", "there is no file"),
        ("{file}:last_letter", "has no function 'last_letter'"),
        ("{file}:odd", "odd asks for colour"),
        ("{file}:of_others", "of_others asks for nothing"),
        ("{file}:by_place", "by_place asks for predictions"),
    ],
)
def test_what_is_no_such_function_is_bad_input(file, name, found):
    with pytest.raises(InputError, match=found) as caught:
        metrics.load(name.format(file=file), "task.metrics.1")
    assert caught.value.problems[0].path == "task.metrics.1"


def test_a_file_that_fails_is_bad_input(tmp_path):
    (tmp_path / "bad.py").write_text("import nothing_like_it\n")
    with pytest.raises(InputError, match=r"bad\.py fails"):
        load(f"{tmp_path}/bad.py:f", "task.metrics.0")


def test_a_file_that_leaves_is_bad_input(tmp_path):
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(InputError, match=r"script\.py fails: SystemExit: 3"):
        load(f"{tmp_path}/script.py:f", "task.metrics.0")


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("broken", "RuntimeError: no idea"),
        ("words", "no number"),
        ("too_few", "shape"),
        ("forgetful", "no number, but: None"),
        ("undefined", "returned nan, given 4 predictions"),
        ("partly_undefined", "returned inf for 1 of them, given 4 predictions"),
        ("silent", "failed on 4 predictions: AssertionError$"),
        ("leaves", "SystemExit: 3"),
    ],
)
def test_a_function_that_fails_says_what_it_did(file, function, found):
    with pytest.raises(FinetuneError, match=found):
        load(f"{file}:{function}", "").value(columns(PAIRS))


def test_what_it_does_to_its_columns_stays_with_it(file):
    given = columns(PAIRS)
    assert load(f"{file}:empties", "").value(given) == 0.5 and len(given["prediction"]) == len(given["reference"]) == 4


def test_what_has_a_default_is_left_to_it(file):
    metric = load(f"{file}:settled", "")
    assert metric.wanted == ("predictions", "references") and metric.value(columns(PAIRS)) == 0.5


def test_a_column_that_the_task_does_not_fill_is_refused_before_anything_starts(topics, file):
    score_by(topics, "sure")
    with pytest.raises(InputError, match=r"mine\.sure asks for margin, and this task has none") as caught:
        check(load_recipe(topics))
    assert caught.value.problems[0].path == "task.metrics.0"


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("broken", r"tried on 'test' with every second answer right, mine\.broken failed on \d+ predictions: Runtime"),
        ("too_few", r"mine\.too_few returned numbers of shape \(1,\)"),
        ("words", "returned no number"),
    ],
)
def test_one_that_fails_is_refused_before_anything_starts(topics, file, function, found):
    score_by(topics, function)
    with pytest.raises(InputError, match=found) as caught:
        check(load_recipe(topics))
    assert caught.value.problems[0].path == "task.metrics.0"


def test_what_is_undefined_for_made_up_answers_is_let_pass(topics, file):
    score_by(topics, "undefined")
    check(load_recipe(topics))


def test_what_a_file_imports_may_lie_beside_it_but_hides_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "beside_the_metric.py").write_text("HALF = 0.5\n")
    (tmp_path / "json.py").write_text("raise RuntimeError\n")
    code = "import json\nfrom beside_the_metric import HALF\n\ndef half(predictions):\n"
    (tmp_path / "own.py").write_text(f"{code}    import beside_the_metric as late\n    return HALF and late.HALF\n")
    assert load(f"{tmp_path}/own.py:half", "").value(columns(PAIRS)) == 0.5


def test_it_is_no_metric_of_ours():
    assert find("mine.first_letter") is None and FunctionMetric not in map(type, map(find, ["accuracy"]))


@pytest.fixture
def study(topics, file, tmp_path):
    """A study that is scored by such functions, of which the file is gone afterwards."""
    text = topics.read_text().replace(
        "max_length: 32}", 'max_length: 32, metrics: [accuracy, "./mine.py:first_letter", "./mine.py:share_of_sport"]}'
    )
    topics.write_text(text)
    assert run_study(load_recipe(topics), tmp_path / "out").failed == []
    file.unlink()
    return tmp_path / "out" / "topics"


def test_a_study_gives_it_intervals_over_seeds_and_examples_without_running_it_again(study):
    results = results_of(read_study(study))
    assert [each.name for each in results.tasks[0].metrics] == ["accuracy", "mine.first_letter", "mine.share_of_sport"]
    estimate = results.variant("full").estimates["test/mine.first_letter"]
    assert estimate.ci is not None and estimate.sd_floor is not None, "by the examples' own numbers"
    [pair] = [each for each in results.comparisons if each.metric == "mine.share_of_sport" and each.right != "base"]
    assert pair.difference is not None and pair.family == "other"
    stored = pq.read_table(study / "full" / "seed-0" / "predictions" / "test.parquet")
    table = stored.to_pydict()
    wanted = [float(p[:1] == r[:1]) for p, r in zip(table["prediction"], table["reference"], strict=True)]
    assert table["own:mine.first_letter"] == wanted
    scores = json.loads((study / "full" / "seed-0" / "result.json").read_text())["scores"]
    assert scores["test/mine.first_letter"] == pytest.approx(np.mean(wanted))


def test_its_path_starts_from_the_recipe_and_is_no_part_of_the_digest(topics, file, tmp_path):
    score_by(topics, "surprise")
    [first, _] = recipe.load(topics).variants
    assert first.recipe.task.metrics == [f"{file}:surprise"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "topics.yaml").write_text(topics.read_text())
    assert recipe.load(elsewhere / "topics.yaml").variants[0].digest == first.digest
