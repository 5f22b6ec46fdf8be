"""Predicting what is large, and real models: memory does not grow with the file, and answers are those scored."""

import json

import pyarrow.parquet as pq
import pytest

from finetune import recipe as recipes
from finetune.cli import main
from finetune.study.running import run_study
from scripts import _predictions
from tests.test_recipes import RECIPES

ALLOWED = 64 << 20
"""Bytes by which the most memory may differ: allocators keep more the longer they work."""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_file(topics_run, tmp_path, ending):
    needed = []
    for rows in (20_000, 160_000):
        given = _predictions.write_rows(tmp_path / f"{rows}.csv", rows)
        needed.append(_predictions.measure(str(topics_run), given, tmp_path / f"{rows}-predicted.{ending}", rows))
        if ending == "parquet":
            found = pq.ParquetFile(tmp_path / f"{rows}-predicted.parquet").read(["id"])["id"].to_pylist()
            assert found == list(map(str, range(rows)))
    assert needed[1].most - needed[0].most < ALLOWED, "\n".join(map(str, needed))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["quickstart", "smollm2-headlines"])
def test_real_models_say_what_was_scored(tmp_path, name):
    """MiniLM as a classifier, and SmolLM2 that writes headlines."""
    small = ["seeds=1", "train.max_steps=2", "train.min_steps=2", "baselines.enabled=false", "scoring.base=false"]
    sizes = {
        "quickstart": ["data.split.train=48", "data.split.test=40"],
        "smollm2-headlines": ["data.split.train=8", "data.split.test=6", "task.max_new_tokens=6"],
    }
    resolved = recipes.load(RECIPES / f"{name}.yaml", [*small, *sizes[name]])
    study = run_study(resolved, tmp_path / "runs").folder
    column = {"classification": "text", "chat": "prompt"}[resolved.variants[0].recipe.task.type]
    inputs = pq.ParquetFile(study / "examples" / "test.parquet").read().sort_by("example")["input"].to_pylist()
    given = tmp_path / "given.jsonl"
    given.write_text("".join(json.dumps({column: text}) + "\n" for text in inputs))
    for run in sorted(study.glob("*/seed-0")):
        stored = pq.ParquetFile(run / "predictions" / "test.parquet").read().sort_by("example")
        out = tmp_path / f"{run.parent.name}.jsonl"
        assert main(["predict", str(run), str(given), "-o", str(out)]) == 0
        said = [json.loads(line)["prediction"] for line in out.read_text().splitlines()]
        assert said == stored["prediction"].to_pylist(), run
