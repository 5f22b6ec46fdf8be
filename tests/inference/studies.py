"""Tiny studies of every task, whose runs are asked again about what was held out."""

from __future__ import annotations

from pathlib import Path

from finetune import recipe as recipes
from finetune.core.registry import TASKS
from finetune.study.running import run_study
from tests import tiny
from tests.examples import examples_of

MODELS = {
    "encoder": tiny.save_encoder,
    "framed": tiny.save_framed,
    "decoder": tiny.save_decoder,
    "encoder-decoder": tiny.save_encoder_decoder,
    "masked": tiny.save_masked,
}
TRAIN, TEST = 48, 37


def make(
    folder: Path,
    example: str,
    model: str,
    seeds=1,
    validation=12,
    steps=6,
    mitigations=(),
    strategy=None,
    dtype="float32",
    **options,
) -> Path:
    """Run a few steps of an example of a task on a model, and give the study's folder; `test` beside it has what is
    held out."""
    said = examples_of(TASKS)[example]
    for name in ("train", "test"):
        (folder / name).mkdir(parents=True)
    train, test = said.data(folder / "train", TRAIN), said.data(folder / "test", TEST)
    recipe = {
        "name": "study",
        "seeds": seeds,
        "model": {"source": str(MODELS[model](folder / "model")), "dtype": dtype},
        "data": {
            "train": {"path": str(train)},
            "test": {"path": str(test)},
            "leaks": "allow",
            **({"split": {"validation": validation}} if validation else {}),
        },
        "task": {"type": example.partition("/")[0], **said.options, **options},
        "baselines": {"enabled": False},
        "strategy": strategy or {"type": "full"},
        "mitigations": list(mitigations),
        "train": {"max_steps": steps, "min_steps": steps, "batch_size": 8, "learning_rate": 1e-2},
    }
    outcome = run_study(recipes.load(recipe), folder / "runs")
    assert [run["reason"] for run in outcome.failed if run["status"] == "error"] == []
    return outcome.folder


def run_of(study: Path) -> Path:
    """The folder of its first run."""
    [run] = sorted(study.glob("*/seed-0"))
    return run


def test_file(folder: Path) -> Path:
    """The file that is held out."""
    [path] = (folder / "test").iterdir()
    return path
