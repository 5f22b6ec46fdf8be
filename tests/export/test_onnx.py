"""The form onnx: every task that one graph can answer is answered by onnxruntime as it was scored."""

import json
from types import SimpleNamespace

import pytest

from finetune.core.errors import FinetuneError, InputError
from finetune.export.engine import ENGINES
from finetune.export.exporting import export
from finetune.export.forms.base import find_form
from finetune.export.forms.onnx import Onnx
from tests import tiny
from tests.export.studies import FULL, MODELS, let_it_count, run_tiny

TASKS = {task: model for task, model in MODELS.items() if task != "seq2seq"}
"""A graph is of one model, and encoder-decoders are two."""


def agreed(found):
    about = found.certificate["agreement"]
    assert about["same"] >= 0.99 and about["near"] == 1 and about["read"] == 1
    assert about["examples"] > 0 and about["difference"] < 1e-3
    return about


QUICK = ("question-answering", "embedding")
"""Making a graph takes a quarter of a minute of one core; the others are made in the slow tests."""


@pytest.mark.parametrize(
    "task", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in TASKS]
)
def test_every_task_is_taken_away(task, models, tmp_path):
    study = let_it_count(run_tiny(tmp_path / "study", models[TASKS[task]], task, FULL, seeds=1))
    agreed(export(study, tmp_path / "out", "onnx"))


@pytest.mark.parametrize("variant", ["lora", "mean"])
def test_adapters_are_merged_and_pooling_is_inside(variant, topics, tmp_path):
    found = export(topics, tmp_path / "out", "onnx", variant, seed=0)
    agreed(found)
    assert found.certificate["engine"]["name"] == "onnxruntime"
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "certificate.json", "README.md"} <= files
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert kept["id2label"] == {"0": "money", "1": "space", "2": "sport"} and "architectures" not in kept


def test_a_chat_is_scored_without_a_cache(chats, tmp_path):
    found = export(chats, tmp_path / "out", "onnx", "lora")
    assert agreed(found)["generated"] is None


def test_the_graph_takes_any_batch_of_texts_and_padding_on_either_side(chats, tmp_path):
    import numpy as np
    import onnxruntime

    export(chats, tmp_path / "out", "onnx", "full")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    ids, (long, short) = np.array([[5, 9, 14, 20, 31], [7, 8, 9, 0, 0]]), ([1] * 5, [1, 1, 1, 0, 0])
    [right] = session.run(None, {"input_ids": ids, "attention_mask": np.array([long, short])})
    left = np.array([[*ids[0]], [0, 0, *ids[1][:3]]])
    [moved] = session.run(None, {"input_ids": left, "attention_mask": np.array([long, short[::-1]])})
    np.testing.assert_allclose(moved[1, 2:], right[1, :3], atol=1e-5)
    [alone] = session.run(None, {"input_ids": ids[1:, :3], "attention_mask": np.ones((1, 3), np.int64)})
    np.testing.assert_allclose(alone[0], right[1, :3], atol=1e-5)


@pytest.mark.slow
def test_turns_that_end_with_another_token_than_texts(tmp_path):
    """The tokenizer's own end token is not the one that closes a turn, as of many chat models."""
    model = tiny.save_decoder(tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<unk>"}))
    study = let_it_count(run_tiny(tmp_path / "study", model, "chat", FULL, seeds=1))
    agreed(export(study, tmp_path / "out", "onnx"))
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert len(kept["eos_token_id"]) == 2


@pytest.mark.parametrize(
    ("written", "ends"), [({"eos_token_id": [4, 0]}, [4, 0]), ({"eos_token_id": 3}, [3]), (None, [7])]
)
def test_the_folder_says_where_answers_end(written, ends, tmp_path, monkeypatch):
    if written is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(written))
    monkeypatch.syspath_prepend(ENGINES)
    import onnxruntime_engine

    assert onnxruntime_engine.ends_of(str(tmp_path), SimpleNamespace(eos_token_id=7)) == ends


def test_labels_in_another_order_are_caught(topics, tmp_path, monkeypatch):
    whole = Onnx.write

    def write(self, trained, folder):
        whole(self, trained, folder)
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = {"0": "space", "1": "money", "2": "sport"}
        (folder / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr(Onnx, "write", write)
    with pytest.raises(FinetuneError, match="the order of labels"):
        export(topics, tmp_path / "out", "onnx", "full", seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("task", "model", "why"), [("seq2seq", "bart", "two graphs")])
def test_what_is_no_single_graph_is_refused(task, model, why, models, tmp_path):
    study = let_it_count(run_tiny(tmp_path / "study", models[model], task, FULL, seeds=1))
    with pytest.raises(InputError, match=why) as refused:
        export(study, tmp_path / "out", "onnx")
    assert "transformers" in str(refused.value) and not (tmp_path / "out").exists()


def test_virtual_tokens_are_refused(topics, tmp_path):
    with pytest.raises(InputError, match="learnt tokens before every text"):
        export(topics, tmp_path / "out", "onnx", "prefix", seed=0)


def test_a_missing_package_is_told_in_one_line(monkeypatch):
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else there(name))
    with pytest.raises(InputError, match="needs the package onnxscript, which is not installed") as caught:
        find_form("onnx")
    assert 'pip install "finetune[onnx]"' in str(caught.value)
