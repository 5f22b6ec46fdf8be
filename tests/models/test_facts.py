"""What a base model is made of, told from its files."""

from __future__ import annotations

import json
import shutil

import pytest

from finetune.models import ModelOptions, facts_of
from tests import tiny


@pytest.fixture
def folder(tmp_path, decoder_folder):
    """A model folder to be changed."""
    return shutil.copytree(decoder_folder, tmp_path / "model")


def facts(folder, **said):
    return facts_of(ModelOptions(source=str(folder), **said))


def test_the_same_files_elsewhere_are_the_same(folder, decoder_folder):
    assert facts(folder) == facts(decoder_folder)
    assert set(facts(folder)) == {"weights", "configuration", "tokenizer", "template"} and all(facts(folder).values())


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("model.safetensors", "weights"),
        ("model-00002-of-00002.safetensors", "weights"),
        ("config.json", "configuration"),
        ("generation_config.json", "configuration"),
        ("modeling_own.py", "configuration"),
        ("1_Pooling/config.json", "configuration"),
        ("modules.json", "configuration"),
        ("tokenizer.json", "tokenizer"),
        ("special_tokens_map.json", "tokenizer"),
        ("added_tokens.json", "tokenizer"),
        ("vocab.txt", "tokenizer"),
        ("spiece.model", "tokenizer"),
        ("chat_template.jinja", "template"),
        ("additional_chat_templates/tools.jinja", "template"),
        ("README.md", None),
        ("training_args.bin", None),
        ("onnx/model.onnx", None),
    ],
)
def test_each_file_counts_where_it_belongs(folder, file, part):
    before = facts(folder)
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n")
    now = facts(folder)
    assert [name for name in now if now[name] != before[name]] == ([part] if part else [])


def test_a_template_in_the_settings_is_the_template(folder):
    (folder / "chat_template.jinja").unlink()
    none, path = facts(folder), folder / "tokenizer_config.json"
    assert none["template"] is None
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "{{ messages }}"}))
    now = facts(folder)
    assert now["template"] is not None and now["tokenizer"] == none["tokenizer"]


def test_a_tokenizer_from_elsewhere_is_that_one(folder, encoder_folder, tmp_path):
    own = facts(folder)
    other = facts(folder, tokenizer=str(encoder_folder))
    assert other["weights"] == own["weights"] and other["tokenizer"] == facts(encoder_folder)["tokenizer"]
    assert other["tokenizer"] != own["tokenizer"] and other["template"] is None


def test_a_gguf_file_is_all_of_it(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF one")
    before = facts(path)
    path.write_bytes(b"GGUF two")
    now = facts(path)
    assert {name for name in now if now[name] != before[name]} == {"weights", "tokenizer", "template"}


def test_pickled_weights_count_where_they_are_allowed(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert facts(folder)["weights"] is None and facts(folder, allow_pickle=True)["weights"]


def test_of_a_hub_model_the_commit_is_told(tmp_path, monkeypatch):
    from huggingface_hub import constants, file_download

    for module in (constants, file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path), raising=False)
    place, commits = tmp_path / "models--org--name", ["a" * 40, "b" * 40]
    (place / "refs").mkdir(parents=True)
    for commit in commits:
        tiny.save_encoder(place / "snapshots" / commit)
    found = []
    for commit in commits:
        (place / "refs" / "main").write_text(commit)
        found.append(facts("org/name"))
    assert [each["weights"] for each in found] == commits and found[0]["tokenizer"] == commits[0]
    assert facts(f"org/name@{commits[0]}") == found[0]
    assert set(facts("org/other").values()) == {None}
