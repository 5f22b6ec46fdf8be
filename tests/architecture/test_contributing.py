"""The examples in CONTRIBUTING.md work, so that whoever copies them starts from something right: each is one file and
its test file, with which the contract battery and a study run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from finetune.core import registry
from finetune.core.errors import InputError
from tests import tiny

ROOT = Path(__file__).parents[2]
FILES = (
    "finetune/strategies/norms.py",
    "tests/strategies/test_norms.py",
    "finetune/tasks/rating.py",
    "tests/tasks/test_rating.py",
)
"""What the reader makes of the blocks of Python, in their order."""


def examples():
    """The content of each of the files."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    return dict(zip(FILES, blocks, strict=True))


@pytest.fixture
def norms(tmp_path, monkeypatch):
    """The strategy, imported as the file a reader would make of it, and found by a registry of its own."""
    (tmp_path / "example").mkdir()
    (tmp_path / "example" / "norms.py").write_text(examples()["finetune/strategies/norms.py"], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "STRATEGIES", registry.Registry("strategy", "example"))
    strategy = registry.STRATEGIES.get("norms")
    yield strategy(strategy.Options(type="norms"))
    for name in ("example", "example.norms"):
        del sys.modules[name]


def test_the_example_trains_norms_and_head_and_nothing_else(norms):
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    model = norms.prepare(BertForSequenceClassification(config), {"classifier.weight", "classifier.bias"})
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # Two layers of two norms and the embedding's norm, each with weight and bias, and the head.
    assert len(trained) == 2 * (2 * 2 + 1) + 2
    assert all("LayerNorm" in name or name.startswith("classifier.") for name in trained)


def test_the_example_refuses_a_model_without_norms(norms):
    with pytest.raises(InputError, match="no normalisation layers"):
        norms.prepare(torch.nn.Linear(2, 2), {"weight"})


RECIPE = """
name: ratings
seeds: 2
model: {{source: {model}, dtype: float32, device: cpu}}
data: {{train: {{path: data.csv}}, split: {{test: 12, validation: 6}}}}
task: {{type: rating}}
train: {{max_steps: 40, min_steps: 40, batch_size: 8, learning_rate: 1.0e-2, evaluations: 2}}
variants:
  full: {{strategy: {{type: full}}}}
  norms: {{strategy: {{type: norms}}}}
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """python(...) in a copy of the repository that has the examples' files, and nothing else that is new."""
    place = tmp_path_factory.mktemp("repository")
    for folder in ("finetune", "tests"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    for file, content in examples().items():
        assert not (place / file).exists()
        (place / file).write_text(content, encoding="utf-8")

    def python(*words, cwd=place):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), os.environ["PYTHONPATH"]])}
        return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True)

    return python


@pytest.mark.slow
def test_the_contract_battery_finds_the_examples_and_they_hold_it(copied):
    """Of their many combinations with other plug-ins those that are quick."""
    files = ["tests/tasks/test_rating.py", *(f"tests/contracts/test_{name}.py" for name in ("tasks", "strategies"))]
    combinations = ("full-rating", "norms-rating-encoder", "norms-classification-encoder")
    words = " or ".join([*combinations, "test_rating", "example", "documented"])
    done = copied("-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", "slow or not slow", "-k", words, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    for each in ("full-rating-decoder", *combinations[1:], "rating", "norms"):
        assert f"[{each}] PASSED" in done.stdout


def test_a_study_of_them_runs(copied, tmp_path, encoder_folder):
    lines = [f"{text},{value % 3}" for value, (text, _) in enumerate(tiny.sentences(60))]
    (tmp_path / "data.csv").write_text("\n".join(["text,rating", *lines]) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=encoder_folder))
    done = copied("-m", "finetune", "run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "runs/ratings/report/results.json").read_text())
    assert {run["status"] for variant in results["variants"] for run in variant["runs"]} == {"finished"}
    means = {variant["name"]: variant["estimates"]["test/loss"]["mean"] for variant in results["variants"]}
    assert means["full"] < 1 / 3, "which always saying 1, the mean, would cost"
    listed = json.loads(copied("-m", "finetune", "list", "--json").stdout)
    assert {"rating"} <= {entry["name"] for entry in listed["tasks"]} and listed["left_out"] == []
