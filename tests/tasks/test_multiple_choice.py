"""Multiple choice: columns, both ways to score, what is refused, and that batches change nothing."""

import json

import numpy as np
import pytest
import torch

from finetune.core.encoded import Encoded
from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.evaluate import metrics
from finetune.evaluate.predict import table_of
from finetune.models import ModelOptions, load_base, load_config, load_tokenizer
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.causal.branches import sequences_of
from finetune.tasks.causal.loss_paths import plain_outputs
from finetune.tasks.multiple_choice import MultipleChoice
from tests import tiny
from tests.examples import TaskExample


def questions(count, choices=4, seed=0):
    """Texts, each with its topic among words that are none."""
    rows = []
    for number, (text, topic) in enumerate(tiny.sentences(count, seed)):
        others = [tiny.FILLER[(number + other) % len(tiny.FILLER)] for other in range(choices - 1)]
        place = number % choices
        rows.append({"question": text, "choices": [*others[:place], topic, *others[place:]], "answer": place})
    return rows


def write(folder, count):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions(count)), encoding="utf-8")
    return path


EXAMPLES = {
    "multiple-choice": TaskExample(
        {"max_length": 48},
        write,
        models=("framed",),  # the head reads the first token, which is each choice's own there
        alone=True,  # what reads so little of a random model learns too little to be told from rounding
    ),
    "multiple-choice/likelihood": TaskExample(
        {"max_length": 64, "head": "likelihood", "metrics": ["accuracy", "accuracy_norm", "nll"]}, write, far=1e-3
    ),
}

ROWS = {
    "question": ["Where is the bank?", "Which match?", "What orbits?"],
    "choices": [["in the market", "on the moon"], ["a cup", "the league of the team", "tax"], ["star", "moon", "loan"]],
    "answer": [0, 1, 1],
}


def fitted(folder, rows=None, **options):
    """A task fitted to some rows, what it encodes of them, and its model."""
    config = lambda: load_config(ModelOptions(source=str(folder)))  # noqa: E731
    task = MultipleChoice(MultipleChoice.Options(type="multiple-choice", **options), config=config)
    task.check_config()
    train = tiny.dataset(**(rows or ROWS))
    task.check(train, "data.train")
    task.fit(tiny.splits(train), load_tokenizer(ModelOptions(source=str(folder))))
    encoded = task.encode(train, "data.train", training=True)
    base = load_base(ModelOptions(source=str(folder)), task.architecture, task.new_head, **task.model_config())
    return task, encoded, base.copy(Streams(0)).eval()


def refusal(rows, **options):
    """What is said of rows that cannot be used."""
    task = MultipleChoice(MultipleChoice.Options(type="multiple-choice", **options))
    data = tiny.dataset(**{**ROWS, **rows})
    with pytest.raises(InputError) as error:
        task.check(data, "data.train")
        task.columns.read({"data.train": data})
    return str(error.value)


def test_the_architecture_decides_what_scores(encoder_folder, decoder_folder):
    by_head, _, _ = fitted(encoder_folder)
    by_likelihood, _, _ = fitted(decoder_folder)
    assert by_head.architecture == "AutoModelForMultipleChoice" and by_head.new_head
    assert by_likelihood.architecture == "AutoModelForCausalLM" and not by_likelihood.new_head
    assert "margin_norm" in by_likelihood.fills - by_head.fills
    with pytest.raises(InputError, match="this model gets a new head"):
        fitted(encoder_folder, metrics=["accuracy_norm"])


@pytest.mark.parametrize("likelihood", ["sum", "mean"])
def test_likelihoods_are_those_of_each_choice_alone_in_any_batch(decoder_folder, likelihood):
    task, encoded, model = fitted(decoder_folder, likelihood=likelihood)
    with torch.no_grad():
        together = task.predict(model, encoded.examples, task.collate(encoded.examples))
        for example, found, choices in zip(encoded.examples, together, ROWS["choices"], strict=True):
            [alone] = task.predict(model, [example], task.collate([example]))
            pairs = sequences_of(example)
            sums = np.array([-float(plain_outputs(model, ids, labels).losses()) for ids, labels in pairs])
            tokens = np.array([(labels >= 0).sum() for _, labels in pairs])
            scores = sums / tokens if likelihood == "mean" else sums
            wanted = np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[example.target]
            assert found.loss == pytest.approx(wanted, abs=1e-4) and alone.loss == pytest.approx(wanted, abs=1e-4)
            assert found.text == "ABC"[int(scores.argmax())]
            normed = sums / [len(choice) for choice in choices]  # lm-evaluation-harness's acc_norm
            others = np.delete(normed, example.target).max()
            assert found.margin_norm == pytest.approx(normed[example.target] - others, abs=1e-5)
            assert found.probabilities is None, "two choices here, three there"
            plain = task.plain(model, example)
            np.testing.assert_allclose(plain.logits[0].numpy(), scores, rtol=1e-5, atol=1e-5)
    table = table_of(task, encoded.examples, together)
    scores = metrics.score(table, ["accuracy", "accuracy_norm"])
    assert scores["accuracy_norm"] == np.mean([found.margin_norm > 0 for found in together])


def test_the_head_scores_each_choice_as_transformers_does(encoder_folder):
    rows = {**ROWS, "choices": [[*each, "a goal", "the fund"][:3] for each in ROWS["choices"]]}
    task, encoded, model = fitted(encoder_folder, rows)
    assert task.fixed and task.labels == ("A", "B", "C") and "probabilities" in task.fills
    with torch.no_grad():
        together = task.predict(model, encoded.examples, task.collate(encoded.examples))
        for number, (example, found) in enumerate(zip(encoded.examples, together, strict=True)):
            [alone] = task.predict(model, [example], task.collate([example]))
            pairs = task.tokenizer(
                [rows["question"][number]] * 3, rows["choices"][number], padding=True, return_tensors="pt"
            )
            logits = model(**{name: values[None] for name, values in pairs.items()}).logits
            assert logits.shape == (1, 3)
            np.testing.assert_allclose(found.probabilities, logits.softmax(1)[0].numpy(), rtol=1e-4)
            np.testing.assert_allclose(alone.probabilities, found.probabilities, rtol=1e-4)
            np.testing.assert_allclose(task.plain(model, example).logits, logits, rtol=1e-4, atol=1e-6)


def test_what_is_no_choice_counts_nothing(encoder_folder):
    task, encoded, model = fitted(encoder_folder)
    outputs = task.outputs(model, task.collate(encoded.examples))
    assert outputs.absent.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    torch.testing.assert_close(outputs.mean_logits()[0], outputs.logits[0, :2].mean())
    assert outputs.logits.detach().softmax(1)[0, 2].item() == 0
    assert any("different numbers of choices" in note for note in encoded.notes)


@pytest.mark.parametrize(
    ("answers", "form", "right"),
    [
        ([0, 1, 1], "index", [0, 1, 1]),
        ([1, 3, 2], "number", [0, 2, 1]),
        (["A", "C", "b"], "letter", [0, 2, 1]),
        (["on the moon", "tax", "star"], "text", [1, 2, 0]),
    ],
)
def test_an_answer_may_name_its_choice_in_several_ways(decoder_folder, answers, form, right):
    task, encoded, _ = fitted(decoder_folder, {**ROWS, "answer": answers})
    assert task.columns.form == form and [example.target for example in encoded.examples] == right
    assert [example.reference for example in encoded.examples] == ["ABC"[place] for place in right]


def test_choices_may_bring_labels_or_stand_in_columns(decoder_folder):
    brought = [{"text": each, "label": ["1", "2", "3"][: len(each)]} for each in ROWS["choices"]]
    task, encoded, _ = fitted(
        decoder_folder, {**ROWS, "choices": brought, "answer": ["2", "1", "3"]}, answer_is="label"
    )
    assert [example.target for example in encoded.examples] == [1, 0, 2]
    _, encoded, _ = fitted(decoder_folder, {**ROWS, "choices": list(map(json.dumps, ROWS["choices"]))})
    assert [example.target for example in encoded.examples] == ROWS["answer"], "as a csv file has lists"
    columns = {"question": ["a", "b"], "one": ["the bank", "tax"], "two": ["star", "moon"], "answer": ["B", "A"]}
    task, encoded, _ = fitted(decoder_folder, columns, choices=["one", "two"])
    assert [example.target for example in encoded.examples] == [1, 0] and task.fixed
    assert task.shown(tiny.dataset(**columns), encoded)[0] == "a\n\nA. the bank\nB. star"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"answer": [0, 1, 7]}, "row 3: the answer 7 is none of its 3 choices"),
        ({"answer": ["A", "B", "Z"]}, "row 3: the answer 'Z' is none of its 3 choices"),
        (
            {"answer": [1, 1, 2]},
            "both as the place of a choice, counted from 0 and as the place",
        ),
        ({"answer": [0, None, 1]}, "has no value in row 2"),
        ({"answer": [0.0, float("nan"), 1.0]}, "has no value but NaN in row 2"),
        ({"choices": [["a", "b"], ["a", " a"], ["a", "b"]]}, "row 2: the choice 'a' is there twice"),
        ({"choices": [["a", "b"], ["a", "b"], ["", "b"]]}, "row 3: choice A is empty"),
        ({"choices": [["a"], ["a", "b"], ["a", "b"]]}, "row 1: has 1 choice, and two or more"),
        (
            {"choices": [{"text": ["a", "b"], "label": ["1"][:number]} for number in (0, 0, 1)]},
            "row 3: has 2 choices and 1 label",
        ),
        ({"choices": ["a, b", "a", "b"]}, "row 1: 'a, b' where a list of choices is wanted"),
    ],
)
def test_what_is_no_question_is_refused_with_its_row(rows, said):
    assert said in refusal(rows)


def test_wrong_choices_are_drawn_from_other_rows_alike():
    rows = {
        "question": [f"text {number}" for number in range(12)],
        "answer": [f"title {number}" for number in range(12)],
        "section": ["a", "b"] * 6,
    }
    task = MultipleChoice(
        MultipleChoice.Options(type="multiple-choice", draw=3, draw_within="section", head="likelihood")
    )
    data = tiny.dataset(**rows)
    task.check(data, "data.train")
    found = task.columns.rows(data, "data.train")
    assert found == task.columns.rows(data, "data.train"), "the same ones each time"
    for number, row in enumerate(found):
        assert len(set(row.choices)) == 4 and row.choices.count(f"title {number}") == 1
        assert {int(choice.split()[1]) % 2 for choice in row.choices} == {number % 2}
    assert len({row.choices.index(row.answer) for row in found}) > 2, "the right one's place is drawn too"
    assert task.inputs() == ["question"]
    with pytest.raises(InputError, match="row 1: there are 5 other answers to draw from"):
        MultipleChoice(MultipleChoice.Options(type="multiple-choice", draw=6, draw_within="section")).check(data, "x")


@pytest.mark.parametrize("rows", [1000, 1002, 2001])
def test_few_rows_beyond_a_thousand_draw_from_all(decoder_folder, rows):
    """Rows are encoded a thousand at a time, and draw from each other; the last ones alone may be too few."""
    data = tiny.dataset(question=["a"] * rows, answer=[f"title {number}" for number in range(rows)])
    task = MultipleChoice(MultipleChoice.Options(type="multiple-choice", draw=3, head="likelihood", template="none"))
    task.check(data, "data.train")
    found = task.columns.rows(data, "data.train")
    assert all(len(set(row.choices)) == 4 and row.answer in row.choices for row in found)
    first = task.columns.rows(data.select(range(1000)), "data.train")
    assert found[:1000] == first, "where there are enough, nothing changes"
    task.fit(tiny.splits(data), load_tokenizer(ModelOptions(source=str(decoder_folder))))
    [*_, last] = task.encode(data, "data.train", training=True).examples
    asked = [task.tokenizer.decode(ids).split("Answer: ")[1] for ids, _ in sequences_of(last)]
    assert tuple(asked) == found[-1].choices


def test_chance_and_the_commonest_place_are_what_learning_has_to_beat(decoder_folder):
    task, encoded, _ = fitted(decoder_folder, {**ROWS, "answer": [1, 0, 2]})
    assert task.majority(encoded.examples) == pytest.approx((1 / 2 + 1 / 3 + 1 / 3) / 3)
    task, encoded, _ = fitted(decoder_folder, {**ROWS, "answer": [0, 0, 1]})
    assert task.commonest == "A" and task.majority(encoded.examples) == pytest.approx(2 / 3)


def test_baselines_look_at_place_length_and_words(decoder_folder):
    rows = {
        "question": ["the moon and a star", "the bank", "the cup"],
        "choices": [["a loan of tax", "moon"], ["a bank", "the planet"], ["a cup", "the orbits"]],
        "answer": [1, 0, 0],
    }
    task, encoded, _ = fitted(decoder_folder, rows)
    given = ExampleSet("data.train", tiny.dataset(**rows), Encoded(encoded.examples))
    said = {}
    for baseline in task.baselines():
        baseline.fit(given, None)
        said[baseline.name] = [prediction.text for prediction in baseline.predict(given)]
    assert said == {"commonest-place": ["A"] * 3, "longest-choice": ["A", "B", "B"], "tfidf-overlap": ["B", "A", "A"]}


def test_long_contexts_are_cut_and_their_question_stays(decoder_folder, encoder_folder):
    rows = {
        "question": ["Which?", "What?"],
        "choices": [["tax", "moon"]] * 2,
        "answer": [0, 1],
        "article": ["the bank " * 60, "a match"],
    }
    task, encoded, _ = fitted(decoder_folder, rows, context="article", max_length=60)
    assert encoded.facts["cut"] == 1 and task.positions(encoded.examples).max() <= 60
    for ids, _ in sequences_of(encoded.examples[0]):
        assert "\n\nQuestion: Which?\nAnswer:" in task.tokenizer.decode(ids)
    task, encoded, _ = fitted(encoder_folder, rows, context="article", max_length=30)
    assert encoded.facts["cut"] == 1 and task.positions(encoded.examples).max() == 30
    with pytest.raises(InputError, match="row 1: its longest choice alone has"):
        fitted(encoder_folder, {**rows, "choices": [["the moon " * 30, "tax"]] * 2}, context="article", max_length=12)


def test_options_that_contradict_each_other_are_refused():
    for options, said in (
        ({"prompt": "Which?"}, "prompt needs {question}"),
        ({"prompt": "{context} {question}"}, "name its column in context"),
        ({"draw_within": "section"}, "say how many in draw"),
        ({"draw": 2, "choices": "options"}, "leave choices and answer_is out"),
        ({"head": "model", "metrics": ["accuracy_norm"]}, "head: model has none"),
        ({"choices": ["one"]}, "two columns and more"),
    ):
        with pytest.raises(ValueError, match=said):
            MultipleChoice.Options(type="multiple-choice", **options)
