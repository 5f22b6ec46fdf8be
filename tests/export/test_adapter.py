"""The form adapter: AutoPeftModelFor… loads it with its labels, and it stays in its place."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import peft
import pytest
import torch
from huggingface_hub import constants

from finetune.core.errors import InputError
from finetune.export.exporting import export
from tests.export.conftest import HEADS
from tests.export.here import printed
from tests.export.studies import let_it_count, run_tiny


def test_it_is_loaded_with_its_labels_and_its_head(topics, tmp_path):
    found = export(topics, tmp_path / "out", "adapter", "lora", seed=0)
    assert found.certificate["agreement"]["same"] == 1 and "peft" in found.certificate["engine"]["versions"]
    model = peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "money", 1: "space", 2: "sport"}
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(tmp_path / "out" / "base")
    assert said["modules_to_save"] == ["classifier"]
    # Weights of the base model are not in it a second time.
    assert (tmp_path / "out" / "base" / "model.safetensors").is_symlink()
    assert (tmp_path / "out" / "adapter_model.safetensors").stat().st_size < 40_000


def test_learnt_tokens_too(topics, tmp_path):
    found = export(topics, tmp_path / "out", None, "prefix", seed=0)
    assert found.form == "adapter" and found.certificate["agreement"]["same"] == 1


def test_a_chat_adapter(chats, tmp_path):
    found = export(chats, tmp_path / "out", "adapter", "lora")
    assert found.certificate["agreement"]["same"] == 1
    model = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert model.peft_config["default"].r == 2


def test_what_is_no_adapter_is_refused(topics, tmp_path):
    with pytest.raises(InputError, match="strategy full trains no adapter"):
        export(topics, tmp_path / "out", "adapter", "full", seed=0)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def hub(models, request):
    """A hub model `tiny/framed`, already in the cache."""
    cache = Path(constants.HF_HUB_CACHE) / "models--tiny--framed"
    request.addfinalizer(lambda: shutil.rmtree(cache))
    shutil.copytree(models["framed"], cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    return "tiny/framed"


OF_THE_HUB = {
    "classification": ({}, r"\{'money': 0\.\d+, 'space'"),
    "classification/ordinal": ({"ordinal": ["money", "space", "sport"]}, r"\['(money|space|sport)'\]"),
    "multi-label-classification": ({}, r"\{'"),
    "regression": ({}, r"^-?\d"),
    "token-classification": ({}, r"\[\('"),
    "question-answering": ({}, ""),
}


@pytest.mark.parametrize("task", OF_THE_HUB)
def test_a_base_model_of_the_hub_is_given_the_labels(task, hub, tmp_path):
    """Its own configuration has two, or none, and other names."""
    options, shown = OF_THE_HUB[task]
    name, variants = task.partition("/")[0], {"lora": HEADS["lora"]}
    study = let_it_count(run_tiny(tmp_path / "study", hub, name, variants, seeds=1, options=options))
    found = export(study, tmp_path / "tuned", "adapter").certificate["agreement"]
    assert found["same"] == found["near"] == 1
    assert json.loads((tmp_path / "tuned" / "adapter_config.json").read_text())["base_model_name_or_path"] == hub
    assert re.search(shown, printed(tmp_path))
