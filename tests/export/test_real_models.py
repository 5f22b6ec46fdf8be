"""Real models taken away: MiniLM as the quickstart trains it, and SmolLM2 from its GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from finetune import recipe as recipes
from finetune.export.exporting import export
from finetune.study.running import run_study
from tests.export.studies import let_it_count

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory, request):
    few = ["seeds=1", "data.split.test=40", "train.min_steps=12", "train.max_steps=12", "baselines.enabled=false"]
    recipe = recipes.load(RECIPES / "quickstart.yaml", few)
    return let_it_count(run_study(recipe, tmp_path_factory.mktemp("quickstart")).folder)


@pytest.mark.parametrize(
    ("variant", "form"),
    [
        ("linear", "sentence-transformers"),
        ("lora", "transformers"),
        ("lora", "adapter"),
        ("full", "transformers"),
        ("linear", "onnx"),
        ("lora", "onnx"),
    ],
)
def test_minilm(variant, form, quickstart, tmp_path):
    found = export(quickstart, tmp_path / "out", form, variant).certificate
    about = found["agreement"]
    assert about["examples"] == 40 and about["same"] == 1 and about["read"] == 1 and about["difference"] < 1e-3
    assert found["licence"] == "apache-2.0"
    if form == "transformers":
        said = transformers.pipeline("text-classification", str(tmp_path / "out"), device="cpu")("The match ended 2-1.")
        kept = json.loads((tmp_path / "out" / "config.json").read_text())
        assert said[0]["label"] in kept["id2label"].values() and len(kept["id2label"]) == 5


def test_the_default_form_of_a_probe(quickstart, tmp_path):
    assert export(quickstart, tmp_path / "out", None, "linear", examples=20).form == "sentence-transformers"


def test_smollm2(headlines, tmp_path):
    found = export(headlines, tmp_path / "out", "transformers").certificate
    about = found["agreement"]
    assert about["examples"] == 8 and about["same"] >= 0.99 and about["generated"] == 1 and about["read"] == 1
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert kept["architectures"] == ["LlamaForCausalLM"] and "quantization_config" not in kept
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template


@pytest.fixture(scope="module")
def headlines(tmp_path_factory):
    few = ["seeds=1", "train.min_steps=2", "train.max_steps=2", "data.split={train: 8, validation: 2, test: 8}"]
    recipe = recipes.load(RECIPES / "smollm2-headlines.yaml", [*few, "baselines.enabled=false"])
    return let_it_count(run_study(recipe, tmp_path_factory.mktemp("headlines")).folder)


def test_smollm2_in_llama_cpp(headlines, tmp_path, own_process):
    found = export(headlines, tmp_path / "out", "gguf-f16").certificate
    about = found["agreement"]
    assert about["examples"] == 8 and about["same"] >= 0.99 and about["near"] == 1 and about["read"] == 1


def test_smollm2_in_8_bits(headlines, tmp_path, own_process):
    found = export(headlines, tmp_path / "out", "gguf-q8_0").certificate
    about = found["agreement"]
    low, high = about["gain"]["ci"]
    # Of these 58 tokens two or four are others, by the arithmetic that trained the model.
    assert about["same"] > 0.9 and about["read"] == 1 and -0.1 < low <= about["gain"]["mean"] <= high < 0.1
    assert (tmp_path / "out" / "model-q8_0.gguf").stat().st_size < 150e6
