"""A run's saved model is loaded as it was scored, whatever the strategy."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import finetune
from finetune import recipe as recipes
from finetune.core.errors import InputError
from finetune.core.run_dir import read_json
from finetune.study.running import run_study
from tests import tiny

VARIANTS = """\
  full: {strategy: {type: full}}
  full-mean: {strategy: {type: full}, task: {pooling: mean, normalise: true}}
  last: {strategy: {type: partial, last: 1}}
  biases-cls: {strategy: {type: partial, parts: bias}, task: {pooling: cls}}
  lora: {strategy: {type: adapter, rank: 2}}
  lora-max: {strategy: {type: adapter, rank: 2}, task: {pooling: max}}
  ia3: {strategy: {type: adapter, method: ia3}}
  prefix: {strategy: {type: adapter, method: prefix, options: {num_virtual_tokens: 2}}, task: {pooling: mean}}
  steps: {strategy: {type: linear, solver: steps}}
  probe: {strategy: {type: linear}}
  own-head: {strategy: {type: linear}, task: {pooling: model}}
  lp-ft: {strategy: {type: linear, mode: lp-ft}}
  tangent: {strategy: {type: linear, mode: linearised}}
  tangent-mean: {strategy: {type: linear, mode: linearised}, task: {pooling: mean}}
"""
NAMES = [line.split(":")[0].strip() for line in VARIANTS.splitlines()]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One run of each variant: its folder."""
    folder = tmp_path_factory.mktemp("saved")
    recipe = tiny.write_topics(folder, tiny.save_encoder(folder / "model"))
    text = recipe.read_text().partition("variants:")[0].replace("min_steps: 24", "min_steps: 3, max_steps: 3")
    recipe.write_text(text + "variants:\n" + VARIANTS)
    outcome = run_study(recipes.load(recipe, ["seeds=1"]), folder / "runs")
    assert [run["reason"] for run in outcome.failed if run["status"] == "error"] == []
    return outcome.folder


@pytest.mark.parametrize("name", NAMES)
def test_it_says_of_every_text_what_the_run_said(study, name):
    run = study / name / "seed-0"
    model, tokenizer = finetune.load_model(run)
    texts = pq.read_table(study / "examples" / "test.parquet").sort_by("example")["input"].to_pylist()
    encoded = tokenizer(texts, truncation=True, max_length=32, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**encoded).logits.softmax(-1)
    stored = pq.read_table(run / "predictions" / "test.parquet").sort_by("example")
    wanted = np.stack(stored["probabilities"].to_pylist())
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float32), atol=2e-5, rtol=0)
    assert not model.training and next(model.parameters()).dtype == torch.float32


def test_the_models_folder_does_as_well(study):
    ids = torch.tensor([[9, 17, 33]])
    one, other = (finetune.load_model(study / "probe" / "seed-0" / end).model(ids).logits for end in ("", "model"))
    assert torch.equal(one, other)


def test_a_chat_adapter_answers_as_it_did(chats, tmp_path):
    tuned = ["seeds=1", "strategy={type: adapter, rank: 2}", "train.max_steps=4", "train.min_steps=4"]
    folder = run_study(recipes.load(chats, tuned), tmp_path / "runs").folder
    [run] = folder.glob("*/seed-0")
    model, tokenizer = finetune.load_model(run)
    ids = tokenizer("the rocket", return_tensors="pt")["input_ids"]
    assert model(input_ids=ids).logits.shape[:2] == ids.shape and "lora" in str(type(model.base_model)).lower()


def test_a_folder_without_a_model_is_refused(study, tmp_path):
    with pytest.raises(InputError, match=r"holds no saved model[\s\S]*train.save_model: true"):
        finetune.load_model(tmp_path)


def test_another_format_is_refused(study, tmp_path):
    said = read_json(study / "full" / "seed-0" / "model" / "finetune.json")
    (tmp_path / "finetune.json").write_text(json.dumps({**said, "format": 99}))
    with pytest.raises(InputError, match=r"has format 99"):
        finetune.load_model(tmp_path)
