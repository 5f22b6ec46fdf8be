"""The form adapter: AutoPeftModelFor… loads it with its labels, and it stays in its place."""

from __future__ import annotations

import json

import peft
import pytest
import torch

from finetune.core.errors import InputError
from finetune.export.exporting import export


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
