"""A task may put a head of its own on any base model: it is drawn, trained, saved, loaded and scored like any other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base, load_tokenizer, skeleton, weightless_base
from finetune.models.loading import class_of
from finetune.models.small import draw_small
from finetune.runner.parity import compare
from finetune.tasks.batching import Batching
from tests import tiny
from tests.tasks.own_head import Mood

ROOT = Path(__file__).parents[2]
SAVED = {"bert": tiny.save_encoder, "llama": tiny.save_decoder, "t5": tiny.save_t5}
HEAD = {"head.query", "head.out.weight", "head.out.bias"}


@pytest.fixture(scope="module", params=SAVED)
def loaded(request, tmp_path_factory):
    """(options of the model, the task, the base model with its head)"""
    options = ModelOptions(source=str(SAVED[request.param](tmp_path_factory.mktemp(request.param))))
    task = Mood(Mood.Options(type="mood"))
    task.fit(tiny.splits(None), load_tokenizer(options))
    return options, task, load_base(options, task.architecture, task.new_head, **task.model_config())


def encoded(task, count=8):
    rows = tiny.sentences(count)
    numbers = {"merry": [0.5 * number for number in range(count)], "lively": [-1.0] * count}
    return task.encode(tiny.dataset(text=[text for text, _ in rows], **numbers), "data.train", True).examples


def test_the_head_is_new_and_each_seed_draws_its_own(loaded):
    options, task, base = loaded
    assert base.new == HEAD and type(base.model).__name__ == "MoodForSequenceClassification"
    one, again, other = (dict(base.copy(Streams(seed)).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], other[name])} == HEAD - {"head.out.bias"}
    config = task.model_config()
    assert weightless_base(options, skeleton(options, task.architecture, **config), task.new_head).new == HEAD


def test_padding_does_not_count_and_a_text_gets_the_same_beside_others(loaded):
    options, task, base = loaded
    found = compare(base.copy(Streams(1)), task, encoded(task))
    assert found.batching == Batching.PADDED and found.refused is None and found.given_up == ()
    assert draw_small(options, task.architecture, base.model.config) is not None


def test_a_complete_model_is_loaded_as_it_was_saved(loaded, tmp_path):
    _, task, base = loaded
    model, batch = base.copy(Streams(3)).eval(), task.collate(encoded(task))
    model.save_pretrained(tmp_path)
    again = class_of(task.architecture).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(task.losses(again, batch), task.losses(model, batch))
        assert task.outputs(model, batch).logits.shape == (8, 2)


PROGRAM = """
import sys
from pathlib import Path
import torch
from finetune.cli import main
from finetune.evaluate import store
from finetune.runner.saved import load_model

code = main(["run", "recipe.yaml"])
for run in sorted(Path("runs/mood").glob("*/seed-0")):
    model, tokenizer = load_model(run)
    texts = store.pq.read_table("runs/mood/examples/test.parquet")["input"].to_pylist()
    with torch.no_grad():
        found = [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]
    stored = [list(map(float, text.split())) for text in store.read(run / "predictions/test.parquet").prediction]
    assert max(abs(a - b) for one, other in zip(found, stored) for a, b in zip(one, other)) < 2e-3, run
sys.exit(code)
"""

RECIPE = """
name: mood
seeds: 2
model: {{source: {model}, dtype: float32, device: cpu}}
data: {{train: {{path: data.csv}}, split: {{test: 12, validation: 6}}}}
task: {{type: mood}}
train: {{max_steps: 40, min_steps: 40, batch_size: 8, learning_rate: 1.0e-2, evaluations: 1}}
strategy: {{type: full}}
mitigations: [{{type: soup}}]
variants:
  full: {{}}
  lora: {{strategy: {{type: adapter, rank: 4}}}}
  last: {{strategy: {{type: partial, last: 1}}}}
"""


@pytest.fixture
def installed(tmp_path, encoder_folder):
    """finetune(...) in a folder with a recipe, beside a package that brings the task by its entry point."""
    about = tmp_path / "site" / "moods-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: moods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[finetune.tasks]\nmood = tests.tasks.own_head:Mood\n")
    level = {topic: number for number, topic in enumerate(sorted(tiny.WORDS))}
    lines = [f"{text},{level[topic]},{1 - level[topic]}" for text, topic in tiny.sentences(60)]
    (tmp_path / "data.csv").write_text("\n".join(["text,merry,lively", *lines]) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=encoder_folder))

    def run(*words):
        path = os.pathsep.join([str(ROOT), str(about.parent), os.environ["PYTHONPATH"]])
        env = {**os.environ, "PYTHONPATH": path}
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


def test_a_study_of_it_runs_and_its_models_come_back(installed, tmp_path):
    done = installed("-c", PROGRAM)
    assert done.returncode == 0, done.stderr + done.stdout
    study = tmp_path / "runs" / "mood"
    facts = json.loads((study / "data.json").read_text())
    [task] = facts["tasks"]
    assert (task["answer"], task["pipeline_tag"], task["majority"]) == ("number", "text-classification", None)
    assert set(facts["libraries"].values()) == {"finetune"}, "whose class the model is of"
    results = json.loads((study / "report" / "results.json").read_text())
    assert {run["status"] for variant in results["variants"] for run in variant["runs"]} == {"finished"}
    assert (study / "full" / "soup-uniform" / "result.json").exists()
    assert "library_name: finetune" in (study / "report" / "model-card.md").read_text()
    page = (study / "report" / "report.md").read_text()
    assert "Hardest examples of test" in page and "taken for" not in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy.type=linear"], "for one linear layer, and more is new here"),
        (["mitigations=[{type: label-smoothing}]"], "about a softmax over classes or tokens"),
        (["mitigations=[{type: r3f}]"], "about a softmax over classes or tokens"),
        (["mitigations=[{type: ensemble}]"], "averages probabilities of labels"),
    ],
)
def test_what_needs_labels_is_refused(installed, words, said):
    done = installed("-m", "finetune", "check", "recipe.yaml", *words)
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr
