"""Vectors of texts: what is drawn with an example, what is saved, how held-out sets are ranked, and bad input."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from finetune.core.errors import InputError
from finetune.core.examples import Prediction
from finetune.core.progress import Progress
from finetune.core.runtime import open_runtime
from finetune.core.signals import StopRequest
from finetune.evaluate import metrics
from finetune.evaluate.predict import predict
from finetune.models import ModelOptions, Pooling, declared, load_base, load_config, load_tokenizer, processor
from finetune.replicas.group import ReplicaGroup
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.embedding import Embedding
from tests import tiny
from tests.examples import TaskExample


def _pairs(count):
    """(text, pair, score): two texts of one topic, whose score is high, or of two."""
    firsts, seconds = tiny.sentences(count), tiny.sentences(count + 1, seed=7)
    rows = []
    for number, (text, topic) in enumerate(firsts):
        other, found = seconds[number + number % 2]
        rows.append((text, other, 0.9 if found == topic else 0.1 + 0.01 * (number % 5)))
    return rows


def _write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_scored(folder, count):
    return _write(folder / "data.csv", ("text", "pair", "score"), _pairs(count))


def write_pairs(folder, count):
    """Texts, and the same with their first word at the end."""
    rows = [(text, " ".join(text.split()[1:] + text.split()[:1])) for text, _ in tiny.sentences(count)]
    return _write(folder / "data.csv", ("text", "pair"), rows)


def write_labels(folder, count):
    return tiny.write_csv(folder / "data.csv", tiny.sentences(count))


EXAMPLES = {
    "embedding": TaskExample(
        {"pair": "pair", "score": "score", "max_length": 48}, write_scored, models=("encoder", "decoder")
    ),
    # Drawn anew each time, as masked words are.
    "embedding/ranking": TaskExample(
        {"pair": "pair", "drawn": 3, "max_length": 48}, write_pairs, models=("encoder",), alone=True
    ),
    "embedding/labels": TaskExample(
        {"label": "label", "drawn": 5, "max_length": 48}, write_labels, models=("encoder",), alone=True
    ),
}

LABELS = {"label": "label"}
PAIRS = {"pair": "pair"}
SCORED = {"pair": "pair", "score": "score"}


def data_of(given, count=24, seed=0):
    if given is LABELS:
        texts, labels = zip(*tiny.sentences(count, seed), strict=True)
        return tiny.dataset(text=list(texts), label=list(labels))
    texts, others, scores = zip(*_pairs(count), strict=True)
    return tiny.dataset(text=list(texts), pair=list(others), score=list(scores))


def fitted(folder, given, pooling=None, train=None, **options):
    """A task of a model in ``folder``, with its training examples encoded."""
    train = data_of(given) if train is None else train
    source = ModelOptions(source=str(folder))
    options = Embedding.Options(type="embedding", max_length=48, **given, **options)
    task = Embedding(options, config=lambda: load_config(source))
    task.fit(tiny.splits(train), load_tokenizer(source))
    task = task.pooled(pooling or Pooling(mode="auto"))
    return task, task.encode(train, "data.train", True).examples


def model_of(folder, task):
    model = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config()).model.eval()
    model.pooling = task.pooling
    return model


# What is drawn


def test_others_are_drawn_anew_and_the_row_stays(encoder_folder):
    task, examples = fitted(encoder_folder, PAIRS, drawn=3)
    once, again, other = (task.resample(examples[4], seed) for seed in (1, 1, 2))
    assert task.dynamic and once.target[0] == other.target[0] == examples[4].target[0] and len(once.target) == 4
    for found in (once, again, other):
        parts = found.parts(found.inputs["input_ids"])
        own = examples[4].parts(examples[4].inputs["input_ids"])
        assert len(parts) == 8 and all((parts[role] == own[role]).all() for role in range(2))
    assert once.target == again.target != other.target and list(once.target).count(once.target[0]) == 1


def test_scored_pairs_draw_nothing_unless_their_order_is_learnt(encoder_folder):
    task, examples = fitted(encoder_folder, SCORED)
    assert not task.dynamic and {len(example.target) for example in examples} == {1}
    task, examples = fitted(encoder_folder, SCORED, loss="cosent", drawn=4)
    held_out = task.encode(data_of(SCORED), "data.test", False).examples
    assert task.dynamic and {len(example.target) for example in examples} == {5}
    assert {len(example.target) for example in held_out} == {1}, "compared with their scores"


def test_scores_are_brought_between_0_and_1_and_shown_as_they_are(encoder_folder):
    train = tiny.dataset(text=list("abc"), pair=list("def"), score=[0, 2.5, 5.0])
    _, examples = fitted(encoder_folder, SCORED, train=train, score_range=[0, 5])
    assert [example.target for example in examples] == [(0.0,), (0.5,), (1.0,)]
    assert [example.reference for example in examples] == ["0", "2.5", "5"]


def test_scores_that_differ_are_no_tie(encoder_folder):
    scores = [1234567, 1234568, 0.1234567, 0.1234568]
    train = tiny.dataset(text=list("abcd"), pair=list("efgh"), score=list(map(float, scores)))
    _, examples = fitted(encoder_folder, SCORED, train=train, score_range=[0, 2e6])
    assert [float(example.reference) for example in examples] == scores


def test_room_is_needed_for_the_longest_text_and_not_for_all(encoder_folder):
    task, examples = fitted(encoder_folder, LABELS, drawn=3)
    longest = [max(map(len, example.parts(example.inputs["input_ids"]))) for example in examples]
    assert task.positions(examples).tolist() == longest and (examples.lengths > longest).all()


# Held-out sets


@pytest.mark.parametrize("given", [SCORED, PAIRS, LABELS], ids=["scored", "pairs", "labels"])
def test_predictions_do_not_depend_on_the_batch(encoder_folder, tmp_path, given):
    task, _ = fitted(encoder_folder, given)
    held_out = task.encode(data_of(given, 20, seed=5), "data.test", False).examples
    runtime = open_runtime(*processor(ModelOptions(source="x", device="cpu")), Progress(), StopRequest(), tmp_path)
    group = ReplicaGroup(model_of(encoder_folder, task))
    tables = [predict(group, task, held_out, size, runtime)[0] for size in (1, 7, 20)]
    assert len({tuple(table.prediction) for table in tables}) == 1 or given is SCORED
    numbers = [np.array(table.prediction, float) for table in tables]
    assert np.allclose(numbers[0], numbers[1], atol=2e-6) and np.allclose(numbers[0], numbers[2], atol=2e-6)
    assert all(np.isfinite(value) for value in metrics.score(tables[0], task.options.metrics).values())


def test_recall_is_of_the_second_text_among_those_of_the_set(encoder_folder):
    task, examples = fitted(encoder_folder, PAIRS, train=tiny.dataset(text=list("abcdef"), pair=list("uvwxyz")))
    vectors = np.random.default_rng(0).normal(size=(6, 2, 9)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = task.completed(examples, [Prediction("", 0.5, vectors=own) for own in vectors])
    cosines = vectors[:, 0] @ vectors[:, 1].T
    assert [int(each.text) for each in found] == (cosines >= cosines.diagonal()[:, None]).sum(1).tolist()
    assert {each.reference for example, each in zip(found, examples, strict=True)} == {"1"}
    assert all(each.vectors is None and each.loss == 0.5 for each in found)


@pytest.mark.parametrize("given", [SCORED, PAIRS, LABELS], ids=["scored", "pairs", "labels"])
def test_its_baseline_answers_the_same_and_knows_equal_words(encoder_folder, given):
    train = data_of(given)
    if given is not LABELS:  # each text with itself
        train = tiny.dataset(text=train["text"], pair=train["text"], score=[*[1.0] * 23, 0.9])
    task, _ = fitted(encoder_folder, given, train=train)
    [baseline] = task.baselines()
    encoded = task.encode(train, "data.train", True)
    baseline.fit(ExampleSet("data.train", train, encoded), None)
    found = baseline.predict(ExampleSet("data.train", train, encoded))
    if given is SCORED:
        assert all(each.text == "1.000000" for each in found) and all(each.loss < 1e-9 for each in found[:-1])
    else:
        share = np.mean([each.text == "1" for each in found])
        assert share == 1 if given is PAIRS else share > 0.8


# Saved models


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("encoder", Pooling(mode="mean", normalise=True)), ("encoder", Pooling(mode="cls")), ("decoder", None)],
)
def test_a_saved_model_is_a_sentence_transformers_folder(encoder_folder, decoder_folder, tmp_path, kind, pooling):
    source = encoder_folder if kind == "encoder" else decoder_folder
    task, _ = fitted(source, LABELS, pooling)
    model = model_of(source, task)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.01)  # as if trained
    model.save_pretrained(tmp_path)
    task.tokenizer.save_pretrained(tmp_path)
    task.save_beside(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"][
        : 2 + bool(task.pooling.normalise)
    ]
    assert all((tmp_path / module["path"]).is_dir() for module in modules)
    about = json.loads((tmp_path / "1_Pooling" / "config.json").read_text())
    assert about["word_embedding_dimension"] == 32 and sum(value is True for value in about.values()) == 2
    read = declared(ModelOptions(source=str(tmp_path)))
    assert (read.mode, read.normalise) == (task.pooling.mode, bool(task.pooling.normalise))
    again = model_of(tmp_path, task)  # as a run that starts from it reads it
    inputs = task.tokenizer(["a goal in the match", "bank"], return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        wanted = model(**inputs).logits
        assert torch.allclose(again(**inputs).logits, wanted, atol=1e-6)
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            return
        encoded = SentenceTransformer(str(tmp_path), device="cpu").encode(["a goal in the match", "bank"])
    assert np.allclose(encoded, wanted.numpy(), atol=1e-5)


def test_where_nobody_says_how_it_pools_as_the_model_reads(encoder_folder, decoder_folder):
    assert fitted(encoder_folder, LABELS)[0].pooling.mode == "mean"
    assert fitted(decoder_folder, LABELS)[0].pooling.mode == "last"


# Bad input


@pytest.mark.parametrize(
    ("given", "column", "values", "message"),
    [
        (SCORED, "score", [0.5, float("nan"), 1.0], "has no number but NaN in row 2"),
        (SCORED, "score", [0.5, 0.1, 3.0], "has a number outside 0 to 1 in row 3"),
        (SCORED, "score", ["a", "b", "c"], "holds text that is no number"),
        (SCORED, "pair", ["a", " ", "c"], "has an empty text in row 2"),
        (PAIRS, "text", ["", "b", "c"], "has an empty text in row 1"),
        (LABELS, "label", ["x", "", "y"], "has an empty label in row 2"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_with_its_row(given, column, values, message):
    columns = {"text": list("abc"), "pair": list("def"), "score": [0.1, 0.2, 0.3], "label": list("xyx")}
    task = Embedding(Embedding.Options(type="embedding", **given))
    with pytest.raises(InputError, match=message):
        task.check(tiny.dataset(**{**columns, column: values}), "data.train")


@pytest.mark.parametrize("given", [LABELS, PAIRS], ids=["labels", "pairs"])
def test_one_value_alone_tells_nothing_apart(encoder_folder, given):
    column = next(iter(given))
    with pytest.raises(InputError, match="has one value only"):
        fitted(encoder_folder, given, train=tiny.dataset(text=list("abc"), **{column: ["x"] * 3}))


@pytest.mark.parametrize("at", ["train", "test"])
def test_one_score_alone_tells_nothing_apart(encoder_folder, at):
    task = Embedding(Embedding.Options(type="embedding", **SCORED))
    score = {"train": [0.1, 0.2, 0.3], "test": [0.1, 0.2, 0.3]} | {at: [0.5] * 3}
    train, test = (tiny.dataset(text=list("abc"), pair=list("def"), score=score[each]) for each in ("train", "test"))
    tokenizer = load_tokenizer(ModelOptions(source=str(encoder_folder)))
    with pytest.raises(InputError, match="'score' has one value only in") as caught:
        task.fit(tiny.splits(train, test=test), tokenizer)
    assert caught.value.problems[0].path == "task.score"


@pytest.mark.parametrize("wrong", ["e", " e"])
def test_a_wrong_text_that_is_the_right_one_is_refused(wrong):
    task = Embedding(Embedding.Options(type="embedding", **PAIRS, negative="wrong"))
    with pytest.raises(InputError, match=r"data\.train, row 2: the text that is wrong is the right one"):
        task.check(tiny.dataset(text=list("abc"), pair=list("def"), wrong=["x", wrong, "y"]), "data.train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither pair nor label"),
        ({**PAIRS, **LABELS}, "both pair and label"),
        ({"label": "label", "score": "score"}, "about pairs"),
        ({**SCORED, "negative": "other"}, "both score and negative"),
        ({**SCORED, "score_range": [5, 0]}, "from 5 to 0"),
        ({**SCORED, "loss": "ranking"}, "pairs with a score are learnt with cosine or cosent"),
        ({**LABELS, "loss": "cosent"}, "labels are learnt with cosine"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Embedding.Options(type="embedding", **options)


def test_metrics_are_those_of_what_is_given():
    assert Embedding.Options(type="embedding", **SCORED).metrics[0] == "cosine_spearman"
    assert Embedding.Options(type="embedding", **PAIRS).metrics[0] == "recall_at_1"
