"""Multi-label classification: how labels are read, what is refused, losses, predictions, and cheap rivals."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from finetune.core.randomness import Streams
from finetune.evaluate.metrics import score
from finetune.evaluate.predict import table_of
from finetune.models import ModelOptions, load_base, load_tokenizer
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.baselines.sets import CommonestSet, PrevalentLabels
from finetune.tasks.multi_label import MultiLabel
from tests import tiny
from tests.examples import TaskExample


def rows(count):
    """Texts with their topic and, where its word is there, two rarer labels; every seventh has none."""
    found = []
    for number, (text, topic) in enumerate(tiny.sentences(count)):
        more = [word for word in ("bank", "goal") if word in text.split()]
        if number % 7 == 6:
            found.append((" ".join(tiny.FILLER[: 3 + number % 5]) + f" {number}", []))
        else:
            found.append((text, [topic, *more]))
    return found


def write(folder, count):
    lines = [json.dumps({"text": text, "labels": labels}) for text, labels in rows(count)]
    path = folder / "data.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_separated(folder, count):
    return tiny.write_csv(folder / "data.csv", [(text, "; ".join(labels)) for text, labels in rows(count)])


def write_columns(folder, count):
    topics = sorted(tiny.WORDS)
    lines = [(text, *(int(topic in labels) for topic in topics)) for text, labels in rows(count)]
    return tiny.write_csv(folder / "data.csv", lines, header=("text", *topics))


EXAMPLES = {
    "multi-label-classification": TaskExample({"max_length": 32}, write, models=("encoder",)),
    "multi-label-classification/separated": TaskExample(
        {"max_length": 32, "labels": "label", "separator": ";", "pooling": "mean"},
        write_separated,
        models=("encoder",),
        alone=True,
    ),
    "multi-label-classification/columns": TaskExample(
        {"max_length": 32, "labels": ["money", "space", "sport"], "metrics": ["subset_accuracy", "loss"]},
        write_columns,
        models=("decoder",),
        alone=True,
    ),
}

TRAIN = {"text": ["a", "b", "c", "d"], "labels": [["y", "x"], ["x"], [], ["x"]]}


def task_of(**options):
    return MultiLabel(MultiLabel.Options(type="multi-label-classification", **options))


def fitted(folder, train, held_out=None, **options):
    """A task fitted to ``train``, and what it encodes of it."""
    task = task_of(**options)
    task.fit(tiny.splits(train, **(held_out or {})), load_tokenizer(ModelOptions(source=str(folder))))
    return task, task.encode(train, "data.train", training=True)


def model_for(folder, task):
    base = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    return base.copy(Streams(0)).eval()


# Reading


@pytest.mark.parametrize(
    "columns, options",
    [
        ({"labels": [["b", "a"], [], ["a", "a"]]}, {}),
        ({"labels": [[2, 10], [], [10]]}, {}),
        ({"labels": ["b ; a", " ", "a"]}, {"separator": ";"}),
        ({"labels": ['["b", "a"]', "[]", '["a"]']}, {}),
        ({"labels": ['["b", "a"]', "[]", '["a"]']}, {"separator": ","}),
        ({"a": [1, 0, 1], "b": [1, 0, 0]}, {"labels": ["a", "b"]}),
        ({"a": [True, False, True], "b": [1.0, 0.0, 0.0]}, {"labels": ["a", "b"]}),
    ],
    ids=[
        "lists",
        "lists of other kinds",
        "separated",
        "JSON",
        "JSON despite a separator",
        "columns",
        "columns of other kinds",
    ],
)
def test_sets_are_read_however_they_are_written(encoder_folder, columns, options):
    train = tiny.dataset(text=["1", "2", "3"], **{name: list(values) for name, values in columns.items()})
    task = task_of(**options)
    task.check(train, "data.train")
    task, encoded = fitted(encoder_folder, train, **options)
    assert task.labels in (("a", "b"), ("2", "10"))
    first, empty, last = encoded.examples
    assert first.target == (1, 1) and sum(empty.target) == 0 and sum(last.target) == 1
    assert empty.reference == "[]" and len(json.loads(first.reference)) == 2
    assert encoded.facts["labels_per_example"] == {"mean": 1.0, "max": 2} and encoded.facts["without_labels"] == 1
    assert sum(encoded.facts["labels"].values()) == 3


@pytest.mark.parametrize(
    "columns, options, found",
    [
        ({"labels": [["a"], None]}, {}, "has no label in row 2"),
        ({"labels": [["a"], ["a", ""]]}, {}, "empty label in row 2"),
        ({"labels": [["a"], ["nan"]]}, {}, "missing label in row 2"),
        ({"labels": [[1.5], [1.0]]}, {}, "has the label 1.5 in row 1"),
        ({"labels": ["a", "b"]}, {}, "holds 'a', no list of labels, in row 1"),
        ({"labels": [1.0, float("nan")]}, {}, "in row 1"),
        ({"labels": ["a;b", "a;;b"]}, {"separator": ";"}, "empty label in row 2"),
        ({"labels": ["['a', 'b']", "['a']"]}, {"separator": ","}, "a list as Python writes it, in row 1"),
        ({"a": [1, 0], "b": [0, 2]}, {"labels": ["a", "b"]}, "column 'b' holds '2', neither 0 nor 1, in row 2"),
        ({"a": [1, None], "b": [0, 1]}, {"labels": ["a", "b"]}, "column 'a' has no value in row 2"),
        ({"a": [1.0, float("nan")], "b": [0, 1]}, {"labels": ["a", "b"]}, "column 'a' has no value in row 2"),
        ({"a": ["yes", "no"]}, {"labels": ["a"]}, "column 'a' holds 'yes', neither 0 nor 1, in row 1"),
        ({"a": [1, 0]}, {"labels": ["a", "b"]}, "has no column 'b'"),
        ({}, {}, "has no column 'labels'"),
    ],
)
def test_what_is_no_set_is_refused_with_its_row(refusal, columns, options, found):
    problem = refusal(task_of(**options).check, tiny.dataset(text=["x", "y"], **columns), "data.train")
    assert problem.path == "task.labels" and found in problem.found and "data.train" in problem.found and problem.advice


@pytest.mark.parametrize(
    "options, found",
    [
        ({"labels": ["a", "b"], "separator": ";"}, "columns of 0 and 1"),
        ({"labels": []}, "one column or more"),
        ({"labels": ["a", "a"]}, "each once"),
        ({"separator": ""}, "separator"),
    ],
)
def test_options_that_contradict_each_other(options, found):
    with pytest.raises(ValueError, match=found):
        task_of(**options)


def test_without_any_label_there_is_nothing_to_learn(encoder_folder, refusal):
    problem = refusal(fitted, encoder_folder, tiny.dataset(text=["a"], labels=["  "]), separator=";")
    assert problem.path == "task.labels" and "no training example has any label" in problem.found


# Labels that training lacks


def test_a_label_that_only_held_out_data_have_is_refused(encoder_folder, refusal):
    held_out = {"test": tiny.dataset(text=["e"], labels=[["x", "z"]])}
    problem = refusal(fitted, encoder_folder, tiny.dataset(**TRAIN), held_out)
    assert problem.path == "task.labels" and "'test'" in problem.found and "z" in problem.found


def test_or_stays_in_what_is_wanted(encoder_folder):
    test = tiny.dataset(text=["e", "f"], labels=[["z", "x"], ["y"]])
    task, _ = fitted(encoder_folder, tiny.dataset(**TRAIN), {"test": test}, unseen="other")
    encoded = task.encode(test, "data.test", False)
    first, _ = encoded.examples
    assert first.target == (1, 0) and first.reference == '["x", "z"]' and first.weight == 1
    assert encoded.facts["unseen"] == {"examples": 1, "labels": {"z": 1}} and "z (1)" in encoded.notes[0]


# Losses and predictions


@pytest.mark.parametrize("pooling", ["model", "mean"])
def test_the_loss_is_the_sum_of_binary_cross_entropies(encoder_folder, pooling):
    from finetune.models import Pooling

    task, encoded = fitted(encoder_folder, tiny.dataset(**TRAIN), pooling=pooling)
    task = task.pooled(Pooling(mode="mean", normalise=False, reason="")) if pooling != "model" else task
    model = model_for(encoder_folder, task)
    assert model.config.problem_type == "multi_label_classification"
    batch = task.collate(encoded.examples)
    with torch.no_grad():
        logits = model(**batch.inputs).logits
        wanted = binary_cross_entropy_with_logits(logits, batch.targets.float(), reduction="none").sum(1)
        assert torch.allclose(task.losses(model, batch), wanted)
        found = task.predict(model, encoded.examples, batch)
    assert [one.loss for one in found] == pytest.approx(wanted.tolist(), rel=1e-5)
    for one, row in zip(found, logits, strict=True):
        assert json.loads(one.text) == [label for label, odds in zip(task.labels, row, strict=True) if odds > 0]
        assert one.probabilities is None


def test_transformers_itself_has_the_same_loss(encoder_folder):
    """Whose loss is a mean over labels."""
    task, encoded = fitted(encoder_folder, tiny.dataset(**TRAIN))
    model, batch = model_for(encoder_folder, task), task.collate(encoded.examples)
    with torch.no_grad():
        theirs = model(**batch.inputs, labels=batch.targets.float()).loss
        assert float(task.losses(model, batch).mean() / 2) == pytest.approx(float(theirs), rel=1e-5)


def test_the_majority_is_the_commonest_set(encoder_folder):
    task, encoded = fitted(encoder_folder, tiny.dataset(**TRAIN))
    assert task.commonest == '["x"]' and task.majority(encoded.examples) == 0.5


# Baselines


def test_constant_sets(encoder_folder):
    """x is in three of four and y in one: y would add four labels said for one hit."""
    task, encoded = fitted(encoder_folder, tiny.dataset(**TRAIN))
    for kind, wanted in ((CommonestSet, '["x"]'), (PrevalentLabels, '["x"]')):
        baseline = kind(task.labels)
        baseline.fit(ExampleSet("data.train", None, encoded), None)
        found = baseline.predict(ExampleSet("data.train", None, encoded))
        assert [one.text for one in found] == [wanted] * 4
        chances = np.array([4 / 6, 2 / 6])  # Laplace's
        assert found[0].loss == pytest.approx(-np.log(chances).sum())
        assert found[2].loss == pytest.approx(-np.log(1 - chances).sum())


def test_the_prevalent_labels_are_as_many_as_micro_f1_wants():
    random = np.random.default_rng(0)
    marks = (random.random((60, 6)) < [0.8, 0.1, 0.6, 0.3, 0.05, 0.45]).astype(int)
    chosen = PrevalentLabels(list("abcdef")).choose(marks)

    def f1(said):
        return 2 * marks[:, said].sum() / (60 * said.sum() + marks.sum())

    every = [np.array([number >> place & 1 for place in range(6)], bool) for number in range(1, 64)]
    assert f1(chosen) == pytest.approx(max(map(f1, every)))


@pytest.mark.parametrize("name", ["tfidf-one-vs-rest", "frozen-one-vs-rest"])
def test_what_learns_beats_what_does_not(encoder_folder, name):
    many = rows(90)
    train, test = (
        tiny.dataset(text=[text for text, _ in some], labels=[labels for _, labels in some])
        for some in (many[:60], many[60:])
    )
    task, encoded = fitted(encoder_folder, train, {"test": test})
    held_out = ExampleSet("data.test", test, task.encode(test, "data.test", False))

    class Untuned:
        def features(self, examples):
            words = [task.tokenizer.decode(example.inputs["input_ids"]).split() for example in examples]
            known = sorted({word for own in tiny.WORDS.values() for word in own})
            return np.array([[word in own for word in known] for own in words], np.float32)

    scores = {}
    for baseline in task.baselines():
        if baseline.name in (name, "commonest-set"):
            baseline.fit(ExampleSet("data.train", train, encoded), Untuned())
            table = table_of(task, held_out.examples, baseline.predict(held_out))
            scores[baseline.name] = score(table, ["micro_f1", "nll"])
    assert scores[name]["micro_f1"] > scores["commonest-set"]["micro_f1"] + 0.2
    assert scores[name]["nll"] < scores["commonest-set"]["nll"]
