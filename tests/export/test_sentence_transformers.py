"""The form sentence-transformers: pooling and head, as SentenceTransformer loads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from finetune.core.errors import InputError
from finetune.export.exporting import export
from tests.export.studies import let_it_count, run_tiny


def test_a_probe_is_a_dense_layer_behind_the_pooling(topics, tmp_path):
    found = export(topics, tmp_path / "out", None, "mean", seed=0)
    assert found.form == "sentence-transformers" and found.certificate["agreement"]["same"] == 1
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert [each["type"].rpartition(".")[2] for each in modules] == ["Transformer", "Pooling", "Dense"]
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    logits = model.encode(["a match of the team", "the bank"])
    assert logits.shape == (2, 3) and model.max_seq_length == 32
    assert model[0].auto_model.config.id2label == {0: "money", 1: "space", 2: "sport"}


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("regression", {"pooling": "mean", "normalise": True}),
        ("multi-label-classification", {"pooling": "max"}),
        ("embedding", {}),
    ],
)
def test_other_heads(task, options, models, tmp_path):
    variants = {"full": {"strategy": {"type": "full"}, "task": options}}
    study = let_it_count(run_tiny(tmp_path / "study", models["framed"], task, variants, seeds=1))
    found = export(study, tmp_path / "out", "sentence-transformers").certificate["agreement"]
    assert found["same"] == 1 and found["read"] == 1
    if task == "regression":  # in the data's own unit, and not in SDs
        values = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(["a match"])
        assert np.isfinite(values).all()
        assert "target_sd" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_what_does_not_pool_is_refused(topics, tmp_path):
    with pytest.raises(InputError, match="not put on pooled hidden states"):
        export(topics, tmp_path / "out", "sentence-transformers", "full", seed=0)
    assert not list(tmp_path.iterdir())
