"""Labels of a classification: what each counts, and those that no training example has."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from finetune.core.encoded import Examples
from finetune.core.errors import InputError
from finetune.core.label_sets import difference, read, written
from finetune.evaluate.metrics import score
from finetune.evaluate.predict import table_of
from finetune.evaluate.store import read as read_store
from finetune.models import ModelOptions, load_tokenizer
from finetune.tasks.baselines.labels import CommonestLabel
from finetune.tasks.classification import Classification
from finetune.tasks.labels import weights_of_classes
from tests import tiny
from tests.tasks.test_classification import fitted, model_for, task_of

TRAIN = {"text": ["a match", "a bank", "the bank", "a goal"], "label": ["sport", "money", "money", "sport"]}


# Weights of classes


def test_balanced_weights_are_scikit_learns():
    labels = ["a"] * 5 + ["b"] * 2 + ["c"]
    counts = {"a": 5, "b": 2, "c": 1}
    wanted = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels)
    assert [*weights_of_classes("balanced", counts).values()] == pytest.approx(wanted)


@pytest.mark.parametrize("asked", ["balanced", {"money": 2.5}])
def test_the_loss_of_a_batch_is_torchs_weighted_mean(encoder_folder, asked):
    train = tiny.dataset(text=["a match", "a bank", "the bank", "a loan"], label=["sport", "money", "money", "money"])
    task, encoded = fitted(encoder_folder, train, class_weights=asked)
    model, examples = model_for(encoder_folder, task), encoded.examples
    own = torch.tensor([task.weights[label] for label in task.labels])
    batch = task.collate(examples)
    with torch.no_grad():
        logits = model(**batch.inputs).logits
        wanted = cross_entropy(logits, batch.targets, weight=own)
        each = cross_entropy(logits, batch.targets, reduction="none") * own[batch.targets]
        found = task.losses(model, batch)
        alone = torch.cat([task.losses(model, task.collate([example])) for example in examples])
    assert float(found.sum() / examples.weights.sum()) == pytest.approx(float(wanted), rel=1e-5)
    assert torch.allclose(found, each) and torch.allclose(found, alone, atol=1e-5)
    assert Examples.of(list(examples)).weights.tolist() == examples.weights.tolist(), "they are kept"


def test_held_out_examples_count_alike(encoder_folder):
    train = tiny.dataset(**TRAIN)
    task, learnt = fitted(encoder_folder, train, class_weights={"money": 3})
    held_out = task.encode(train, "data.test", False).examples
    assert learnt.examples.weights.tolist() == [1, 3, 3, 1] and held_out.weights.tolist() == [1] * 4
    model = model_for(encoder_folder, task)
    with torch.no_grad():
        losses = [found.loss for found in task.predict(model, held_out, task.collate(held_out))]
        weighted = task.losses(model, task.collate(learnt.examples))
    assert [float(one) for one in weighted] == pytest.approx([losses[0], 3 * losses[1], 3 * losses[2], losses[3]])


def test_a_weight_for_no_label_is_refused(encoder_folder, refusal):
    problem = refusal(fitted, encoder_folder, tiny.dataset(**TRAIN), class_weights={"mony": 2})
    assert problem.path == "task.class_weights" and "'mony'" in problem.found and "money" in problem.advice


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2"])
def test_a_weight_is_a_positive_number(weight):
    with pytest.raises(ValueError, match="class_weights"):
        Classification.Options(type="classification", class_weights={"a": weight})


def test_numbers_and_truths_of_a_recipe_are_labels(encoder_folder):
    task, _ = fitted(encoder_folder, tiny.dataset(text=["a", "b"], label=[0, 1]), class_weights={0: 1, 1: 4})
    assert task.weights == {"0": 1.0, "1": 4.0}
    task, _ = fitted(encoder_folder, tiny.dataset(text=["a", "b"], label=[True, False]), class_weights={True: 4})
    assert task.weights == {"True": 4.0, "False": 1.0}


# Labels that training lacks


@pytest.fixture
def unseen(encoder_folder):
    """A task that takes them, its held-out examples, and what an untrained model says of these."""
    held_out = tiny.dataset(text=["a goal", "an orbit", "a moon"], label=["sport", "space", "space"])
    task, _ = fitted(encoder_folder, tiny.dataset(**TRAIN), {"test": held_out}, unseen="other")
    encoded = task.encode(held_out, "data.test", False)
    model = model_for(encoder_folder, task)
    with torch.no_grad():
        found = task.predict(model, encoded.examples, task.collate(encoded.examples))
    return task, encoded, found


def test_they_are_told_and_counted(unseen):
    _, encoded, _ = unseen
    assert encoded.facts["unseen"] == {"examples": 2, "labels": {"space": 2}}
    assert encoded.facts["labels"] == {"space": 2, "sport": 1}
    [note] = encoded.notes
    assert note.startswith("data.test: 2 examples have labels that no training example has: space (2).")


def test_no_answer_to_them_is_right_and_their_loss_is_none(unseen, tmp_path):
    task, encoded, found = unseen
    table = table_of(task, encoded.examples, found)
    assert table.reference == ["sport", "space", "space"] and table.weight.tolist() == [1, 0, 0]
    assert table.loss[0] > 0 and table.loss[1:].tolist() == [0, 0] and table.score[1:].tolist() == [0, 0]
    table.write(tmp_path / "test.parquet")
    for each in (table, read_store(tmp_path / "test.parquet")):
        scores = score(each, ["accuracy", "macro_f1", "mcc", "nll", "brier", "ece", "loss"])
        assert scores["nll"] == scores["loss"] == pytest.approx(table.loss[0]) and np.isfinite([*scores.values()]).all()
        assert scores["accuracy"] <= 1 / 3 and scores["macro_f1"] <= 1 / 2
        [first, *others] = np.asarray(each.probabilities, float)
        own = [((first - [label == "sport" for label in task.labels]) ** 2).sum()]
        assert scores["brier"] == pytest.approx(np.mean(own + [(other**2).sum() + 1 for other in others]))


def test_a_baseline_has_no_loss_of_them_either(unseen):
    task, encoded, _ = unseen
    baseline = CommonestLabel(task.labels)
    baseline.log_frequencies = np.log([0.5, 0.5])
    found = baseline.likely(np.broadcast_to(baseline.log_frequencies, (3, 2)), encoded.examples)
    assert [prediction.loss for prediction in found] == [pytest.approx(np.log(2)), 0, 0]


def test_a_set_of_nothing_else_has_no_likelihood(encoder_folder):
    held_out = tiny.dataset(text=["an orbit"], label=["space"])
    task, _ = fitted(encoder_folder, tiny.dataset(**TRAIN), {"test": held_out}, unseen="other")
    examples = task.encode(held_out, "data.test", False).examples
    model = model_for(encoder_folder, task)
    with torch.no_grad():
        table = table_of(task, examples, task.predict(model, examples, task.collate(examples)))
    assert np.isnan(score(table, ["nll"])["nll"]) and score(table, ["accuracy"])["accuracy"] == 0


def test_they_have_no_rank():
    with pytest.raises(ValueError, match="no rank"):
        Classification.Options(type="classification", unseen="other", ordinal=True)


# Ordered labels


@pytest.mark.parametrize(
    "columns, ordinal, found",
    [
        ({"text": list("abc"), "label": ["low", "odd", "high"]}, ["low", "high"], "'odd' is none of low, high"),
        ({"text": list("abc"), "label": ["1", "x", "3"]}, True, "'x' is no whole number"),
    ],
)
def test_a_label_outside_the_choices_is_refused_with_its_row(refusal, columns, ordinal, found):
    problem = refusal(task_of(ordinal=ordinal).check, tiny.dataset(**columns), "data.train")
    assert problem.path == "task.ordinal" and found in problem.found and "row 2" in problem.found


def test_a_rank_that_nobody_has_cannot_be_learnt(encoder_folder, refusal):
    train = tiny.dataset(text=["a", "b"], label=["low", "high"])
    problem = refusal(fitted, encoder_folder, train, ordinal=["low", "medium", "high"])
    assert problem.path == "task.ordinal" and "medium" in problem.found


def test_whole_numbers_are_their_own_order(encoder_folder):
    train = tiny.dataset(text=list("abcd"), label=["10", "9", "-2", "9"])
    task, _ = fitted(encoder_folder, train, ordinal=True)
    assert task.labels == ("-2", "9", "10")
    assert task.model_config()["id2label"] == {0: "> -2", 1: "> 9"}


@pytest.mark.parametrize("ordinal", [["a"], ["a", "a"], []])
def test_an_order_is_of_two_labels_each_once(ordinal):
    with pytest.raises(ValueError, match="two labels or more"):
        task_of(ordinal=ordinal)


def test_a_held_out_rank_that_is_not_known_is_refused(encoder_folder):
    train, test = tiny.dataset(text=["a", "b"], label=[1, 2]), tiny.dataset(text=["c"], label=[3])
    task = Classification(Classification.Options(type="classification", ordinal=True))
    with pytest.raises(InputError, match="labels that no training example has"):
        task.fit(tiny.splits(train, test=test), load_tokenizer(ModelOptions(source=str(encoder_folder))))


# Label sets as texts


def test_equal_sets_are_equal_texts():
    order = {"b": 0, "a": 1, "[]": 2}
    assert written(["a", "b", "a"], order) == written(["b", "a"], order) == '["b", "a"]'
    assert written(["z", "y", "[]"], order) == '["[]", "y", "z"]'
    assert written([], order) == "[]" and read("[]") == ()
    for labels in (("a, b", 'say "c"'), ("é",), ("[x]",), ()):
        assert {*read(written(labels, {}))} == {*labels}


@pytest.mark.parametrize("text", ["card", "[sic]", "[1, 2]", ""])
def test_a_text_that_is_no_set_is_one_label(text):
    assert read(text) == (text,)


def test_what_is_missing_and_what_is_superfluous():
    assert difference(["a", "b"], ["b", "c"]) == (["c"], ["a"])


@pytest.mark.parametrize("micro", [1, 3])
def test_weights_are_exact_under_accumulation(encoder_folder, tmp_path, micro):
    """In parts as in one piece: the batch's weights are added up before any part has run."""
    import dataclasses

    from tests.train import workbench

    plain = workbench.classification(encoder_folder)
    task = Classification(plain.task.options.model_copy(update={"class_weights": {"money": 4.0, "space": 0.25}}))
    rows = tiny.sentences(48)
    data = tiny.dataset(text=[text for text, _ in rows], label=[label for _, label in rows])
    task.fit(tiny.splits(data), plain.task.tokenizer)
    bench = dataclasses.replace(plain, task=task, examples=task.encode(data, "data.train", True).examples)
    whole = workbench.fit(bench, tmp_path / "whole")
    parts = workbench.fit(bench, tmp_path / "parts", micro_batch_size=micro)
    assert workbench.furthest(whole.weights, parts.weights) < 1e-5
    assert [row["loss"] for row in parts.rows] == pytest.approx([row["loss"] for row in whole.rows], rel=1e-4)
    unweighted = workbench.fit(plain, tmp_path / "plain")
    assert workbench.furthest(whole.weights, unweighted.weights) > 1e-4
