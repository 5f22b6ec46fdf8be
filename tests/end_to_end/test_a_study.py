"""`finetune run` from a recipe to a report, and again."""

from __future__ import annotations

import json
import re

import pytest

from finetune.core.arithmetic import GAIN, arithmetic_name
from tests.end_to_end.reading import files, results, scores, spoken

RUN = {
    "result.json",
    "metrics.jsonl",
    "predictions/test.parquet",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "model/finetune.json",
}
STUDY = {"recipe.yaml", "resolved.yaml", "environment.json", "data.json", "speed.json", "examples/test.parquet"}
REPORT = {"report/index.html", "report/report.md", "report/model-card.md", "report/results.json"}
RUN_KEYS = {"seed", "status", "reason", "seconds", "peak_memory_bytes", "scores"}
ESTIMATE_KEYS = {"n", "mean", "sd", "sd_floor", "sd_corrected", "median", "min", "max", "ci", "level", "method"}
COMPARISON_KEYS = {"task", "metric", "left", "right", "difference", "ci", "p_value", "p_value_adjusted"} | {
    "probability_of_improvement",
    "verdict",
    "method",
}


def test_a_study_from_recipe_to_report(topics, command, tmp_path):
    done = command("run", "topics.yaml", COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = spoken(done.stdout)
    assert re.fullmatch(r"run 1 of 4: linear, seed 0 · test/accuracy 0\.\d+ · \d+\.\d s", lines[0])
    assert [line.split(" · ")[0] for line in lines[:4]] == [
        "run 1 of 4: linear, seed 0",
        "run 2 of 4: linear, seed 1",
        "run 3 of 4: full, seed 0",
        "run 4 of 4: full, seed 1",
    ]
    assert lines[4].startswith("test: accuracy, % (30 examples)")
    assert lines[5].split() == ["variant", "score", "95", "%", "interval", "seeds", "SD", "failed", "trained", "time"]
    assert [line.split()[0] for line in lines[6:8]] == ["linear", "full"]
    assert "Undecided. " in lines[8] or " is best" in lines[8], "the verdict, as the page has it"
    assert lines[-1] == "report: runs/topics/report/index.html"

    study = tmp_path / "runs" / "topics"
    trained = {"linear": {"model/trained.safetensors"}, "full": {"model/model.safetensors", "model/config.json"}}
    runs = {
        f"{variant}/seed-{seed}/{name}" for variant, own in trained.items() for seed in (0, 1) for name in RUN | own
    }
    assert {path for path in files(study) if not path.startswith(".locks/")} == STUDY | REPORT | runs
    assert (study / "recipe.yaml").read_bytes() == topics.read_bytes()
    assert "<!doctype html>" in (study / "report" / "index.html").read_text(encoding="utf-8").lower()

    said = results(study)
    assert {"format", "study", "digest", "environment", "tasks", "variants", "comparisons"} <= set(said)
    assert [task["name"] for task in said["tasks"]] == ["test"]
    assert {"name", "split", "metric", "higher_is_better", "examples"} <= set(said["tasks"][0])
    for variant in said["variants"]:
        assert {"name", "strategy", "parameters", "runs", "estimates", "failures", "stability"} <= set(variant)
        assert set(variant["parameters"]) == {"total", "trainable"}
        assert {"count", "n", "rate", "ci"} <= set(variant["failures"])
        assert set(variant["estimates"]) == {f"test/{metric}" for metric in ("accuracy", "macro_f1", "mcc", "nll")}
        assert all(set(estimate) >= ESTIMATE_KEYS for estimate in variant["estimates"].values())
        assert all(set(run) >= RUN_KEYS for run in variant["runs"])
        assert [run["status"] for run in variant["runs"]] == ["finished", "finished"]
    assert all(set(comparison) >= COMPARISON_KEYS for comparison in said["comparisons"])


def stamps(study):
    """When each run's files were last written."""
    return {path: path.stat().st_mtime_ns for path in study.glob("*/seed-*/**/*") if path.is_file()}


def test_running_again_does_only_what_is_new(topics, finetune, tmp_path):
    study = tmp_path / "elsewhere" / "topics"
    output = ("--output", "elsewhere")
    first = finetune("run", "topics.yaml", *output)
    assert first.code == 0, first.text
    assert not (tmp_path / "runs").exists()
    before = stamps(study)
    again = finetune("run", "topics.yaml", *output)
    table = first.out[first.out.index("test: ") :]
    assert (again.code, again.out) == (0, "every run is finished already; writing the report again\n" + table)
    assert stamps(study) == before

    more = finetune("run", "topics.yaml", *output, "seeds=3")
    assert [line.split(" · ")[0] for line in more.out.splitlines()[:2]] == [
        "run 5 of 6: linear, seed 2",
        "run 6 of 6: full, seed 2",
    ]
    topics.write_text(topics.read_text() + "  last: {strategy: {type: partial, last: 1}}\n")
    added = finetune("run", "topics.yaml", *output, "seeds=1")
    assert [line.split(" · ")[0] for line in added.out.splitlines() if line.startswith("run ")] == [
        "run 3 of 3: last, seed 0"
    ]
    assert added.code == 0
    after = stamps(study)
    assert before.items() <= after.items()
    assert [variant["name"] for variant in results(study)["variants"]] == ["linear", "full", "last"]
    assert len(scores(study)) == 7


def test_a_deleted_result_is_run_again_with_the_same_scores(topics, finetune, tmp_path):
    study = tmp_path / "runs" / "topics"
    assert finetune("run", "topics.yaml", "seeds=1").code == 0
    whole = scores(study)
    (study / "full" / "seed-0" / "result.json").unlink()
    assert finetune("run", "topics.yaml", "seeds=1").code == 0
    assert scores(study) == whole


def test_every_kind_of_strategy_and_cure_through_the_command_line(topics, finetune, tmp_path):
    start = topics.read_text().partition("variants:")[0]
    topics.write_text(
        start.replace("seeds: 2", "seeds: 1")
        + """variants:
  partial: {strategy: {type: partial, last: 1}}
  biases: {strategy: {type: partial, patterns: ["*.bias"]}, train: {learning_rate: 0.05}}
  lora: {strategy: {type: adapter, rank: 4}, train: {learning_rate: 0.03}}
  reinit: {strategy: {type: full}, mitigations: [{type: reinit, layers: 1}]}
  early:
    strategy: {type: full}
    train: {min_steps: 40, evaluations: 20, schedule: constant, early_stopping: {patience: 1, min_delta: 1.0}}
"""
    )
    done = finetune("run", "topics.yaml")
    assert done.code == 0, done.text
    study = tmp_path / "runs" / "topics"
    found = {path.parents[1].name: json.loads(path.read_text()) for path in study.glob("*/seed-0/result.json")}
    trainable = {name: result["parameters"]["trainable"] for name, result in found.items()}
    assert trainable["biases"] < trainable["lora"] < trainable["partial"] < trainable["reinit"] == trainable["early"]
    assert (study / "lora" / "seed-0" / "model" / "adapter_model.safetensors").exists()
    assert found["reinit"]["identity"]["initial_weights"] != found["early"]["identity"]["initial_weights"]
    assert found["early"]["training"]["stopped_early"] and found["early"]["training"]["steps"] == 4
    assert not found["lora"]["training"]["stopped_early"]


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_either_arithmetic_learns(topics, finetune, tmp_path, dtype):
    done = finetune("run", "topics.yaml", f"model.dtype={dtype}", "seeds=1")
    assert done.code == 0, done.text
    environment = json.loads((tmp_path / "runs" / "topics" / "environment.json").read_text())
    assert environment["arithmetic"] == arithmetic_name()
    assert ("measured" in environment["dtype_reason"]) == (dtype == "auto")
    if dtype == "auto":  # by what it has measured itself: another process may come to something else
        ratio, way = re.search(r"measured ([\d.]+)x as (fast|slow) as", environment["dtype_reason"]).groups()
        faster = way == "fast" and float(ratio) >= GAIN
        assert environment["dtype"] == ("bfloat16" if faster else "float32") or float(ratio) == GAIN
    else:
        assert environment["dtype"] == dtype
    assert scores(tmp_path / "runs" / "topics")["full/seed-0"]["test/accuracy"] > 0.6
