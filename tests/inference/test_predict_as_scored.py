"""A run that is asked again about what was held out says what it has said, whatever its task."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from finetune.cli import main
from finetune.core.label_sets import read as read_set
from finetune.core.registry import TASKS
from finetune.export import engine
from finetune.export.exporting import export
from finetune.tasks.contrastive.ranks import ranks
from tests.examples import examples_of
from tests.export.here import here
from tests.export.studies import let_it_count
from tests.inference import studies

EXAMPLES = [
    ("classification", "encoder"),
    ("classification", "decoder"),
    ("classification/ordinal", "encoder"),
    ("multi-label-classification", "encoder"),
    ("multi-label-classification/separated", "encoder"),
    ("multi-label-classification/columns", "decoder"),
    ("regression", "encoder"),
    ("token-classification", "encoder"),
    ("token-classification/spans", "encoder"),
    ("question-answering", "encoder"),
    ("multiple-choice", "framed"),
    ("multiple-choice/likelihood", "decoder"),
    ("label-words", "decoder"),
    ("label-words/calibrated", "decoder"),
    ("chat", "decoder"),
    ("seq2seq", "encoder-decoder"),
    ("seq2seq", "masked"),
    ("embedding", "encoder"),
    ("embedding/ranking", "encoder"),
    ("embedding/labels", "encoder"),
    ("language", "decoder"),
    ("language", "masked"),
]


def test_every_task_is_here():
    ours = {example.partition("/")[0] for example, _ in EXAMPLES}
    assert ours == {name.partition("/")[0] for name in examples_of(TASKS)}


@pytest.mark.parametrize("example, model", EXAMPLES, ids=["-".join(each) for each in EXAMPLES])
def test_it_says_what_was_stored(tmp_path, example, model):
    run = studies.run_of(studies.make(tmp_path, example, model))
    given, out = studies.test_file(tmp_path), tmp_path / "out.parquet"
    assert main(["predict", str(run), str(given), "-o", str(out), "--probabilities"]) == 0
    same(pq.ParquetFile(run / "predictions" / "test.parquet").read(), out, example)


EXPORTED = [
    *((example, model, None, {}) for example, model in EXAMPLES if not example.startswith("label-words/calibrated")),
    ("classification", "encoder", "sentence-transformers", {"pooling": "mean"}),
    ("regression", "encoder", "sentence-transformers", {"pooling": "mean"}),
    ("classification", "encoder", "adapter", {}),
    ("chat", "decoder", "adapter", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize("example, model, form, options", EXPORTED)
def test_an_export_says_what_was_stored(tmp_path, monkeypatch, example, model, form, options):
    """It is opened by its certificate: columns, labels and thresholds are those of the run."""
    monkeypatch.setattr(engine, "_run", here)
    strategy = {"type": "adapter", "rank": 2} if form == "adapter" else {"type": "full"}
    study = let_it_count(studies.make(tmp_path, example, model, strategy=strategy, **options))
    run, given, out, place = (
        studies.run_of(study),
        studies.test_file(tmp_path),
        tmp_path / "out.parquet",
        tmp_path / "x",
    )
    export(study, place, form=form)
    assert main(["predict", str(place), str(given), "-o", str(out), "--probabilities"]) == 0
    same(pq.ParquetFile(run / "predictions" / "test.parquet").read(), out, example)


def same(stored, out, example):
    """What was stored of a run, and what was predicted into ``out``."""
    stored = stored.sort_by("example")
    found = pq.ParquetFile(out).read()
    assert found.num_rows == studies.TEST
    if example.startswith("language"):
        return same_losses(stored, found)
    if example.startswith("embedding"):
        return same_vectors(stored, found, example)
    said, wanted = found["prediction"].to_pylist(), stored["prediction"].to_pylist()
    if example.startswith("regression"):
        np.testing.assert_allclose(said, np.array(wanted, dtype=float), rtol=1e-5)
    elif example.startswith("multi-label"):
        assert said == [list(read_set(each)) for each in wanted]
    elif example.startswith("token"):
        assert [" ".join(each) for each in said] == wanted
    else:
        assert said == wanted
    sure = (
        [each for each in found["confidence"].to_pylist() if each is not None]
        if "confidence" in found.column_names
        else []
    )
    assert all(0 <= each <= 1 + 1e-9 for each in sure) and (sure or example.startswith("regression"))
    if "probabilities" in found.column_names and stored["probabilities"].null_count == 0:
        labels = json.loads(stored.schema.metadata[b"labels"])
        rows = [[row[label] for label in labels] for row in found["probabilities"].to_pylist()]
        np.testing.assert_allclose(rows, np.stack(stored["probabilities"].to_pylist()), atol=1e-5)


def same_losses(stored, found):
    losses, tokens = np.array(found["loss"].to_pylist()), np.array(found["tokens"].to_pylist())
    assert tokens.sum() == sum(stored["weight"].to_pylist())
    assert (losses * tokens).sum() == pytest.approx(sum(stored["loss"].to_pylist()), rel=1e-5)


def same_vectors(stored, found, example):
    vectors = np.array(found["vector"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    if example == "embedding":
        wanted = np.array(stored["prediction"].to_pylist(), dtype=float)
        np.testing.assert_allclose(found["similarity"].to_pylist(), wanted, atol=1e-5)
    elif example == "embedding/labels":
        codes = np.unique(found["label"].to_pylist(), return_inverse=True)[1]
        own = ranks(lambda some: vectors[some] @ vectors.T, codes, itself=False)
        assert own.tolist() == [int(each) for each in stored["prediction"].to_pylist()]


def test_a_soup_says_what_it_was_scored_by(tmp_path):
    study = studies.make(tmp_path, "classification", "encoder", seeds=2, steps=30, mitigations=[{"type": "soup"}])
    [soup] = study.glob("*/soup-uniform")
    out = tmp_path / "out.parquet"
    assert main(["predict", str(soup), str(studies.test_file(tmp_path)), "-o", str(out), "--probabilities"]) == 0
    stored = pq.ParquetFile(soup / "predictions" / "test.parquet").read().sort_by("example")
    found = pq.ParquetFile(out).read()
    assert found["prediction"].to_pylist() == stored["prediction"].to_pylist()
    rows = [list(row.values()) for row in found["probabilities"].to_pylist()]
    np.testing.assert_allclose(rows, np.stack(stored["probabilities"].to_pylist()), atol=1e-5)


def test_a_conversation_may_end_with_the_question_or_with_its_answer(tmp_path):
    """Also in ShareGPT's words: what is asked is the same."""
    run = studies.run_of(studies.make(tmp_path, "chat", "decoder"))
    rows = [json.loads(line) for line in studies.test_file(tmp_path).read_text().splitlines()]
    asked = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    answered = [
        [*turns, {"role": "assistant", "content": row["completion"]}] for turns, row in zip(asked, rows, strict=True)
    ]
    shared = [[{"from": "human", "value": row["prompt"]}] for row in rows]
    found = []
    for number, (name, turns) in enumerate([("messages", asked), ("messages", answered), ("conversations", shared)]):
        given, out = tmp_path / f"{number}.jsonl", tmp_path / f"{number}.out.jsonl"
        given.write_text("".join(json.dumps({name: each}) + "\n" for each in turns))
        how = ["task.prompt=null", "task.completion=null"]
        assert main(["predict", str(run), str(given), "-o", str(out), *how]) == 0
        found.append([json.loads(line)["prediction"] for line in out.read_text().splitlines()])
    stored = pq.ParquetFile(run / "predictions" / "test.parquet").read().sort_by("example")
    assert found == [stored["prediction"].to_pylist()] * 3
