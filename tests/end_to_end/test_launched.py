"""Under launchers, and into pipes: nothing but our own words, once, and no traceback where results are written."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from finetune.core.run_dir import read_json
from tests import tiny
from tests.end_to_end.reading import spoken
from tests.end_to_end.warm import environment_with

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
ACCELERATE = ["accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1", "-m"]
UNTEACHABLE = ["seeds=1", "train.learning_rate=1e-12", "train.min_steps=4"]
"""Of which neither run is no better than the commonest label."""


def launch(launcher, folder, *argv):
    command = [sys.executable, "-m", *launcher, "finetune", *argv]
    return subprocess.run(command, cwd=folder, env=environment_with(), capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_a_degenerate_run_is_no_crash_to_a_launcher(tmp_path, encoder_folder, launcher):
    tiny.write_topics(tmp_path, encoder_folder)
    done = launch(launcher, tmp_path, "run", "topics.yaml", *UNTEACHABLE)
    assert read_json(tmp_path / "runs/topics/full/seed-0/result.json")["status"] == "degenerate", done.stderr
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Error" not in done.stderr, done.stderr
    assert done.stdout.count("full, seed 0: degenerate") == done.stdout.count("report: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "write, save, options",
    [
        (tiny.write_topics, tiny.save_encoder, ["baselines.enabled=true"]),
        (tiny.write_chat_study, tiny.save_decoder, ["baselines={enabled: true, shots: 1}"]),
    ],
    ids=["topics", "chats"],
)
def test_baselines_of_two_processes_are_those_of_one(command, tmp_path, write, save, options):
    recipe = write(tmp_path, save(tmp_path / "model"))
    given = ["run", recipe.name, "seeds=1", "train.min_steps=2", "train.max_steps=2", *options]
    assert command(*given, "--output", "alone").returncode < 2
    done = launch(TORCHRUN, tmp_path, *given, "--output", "together")
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "alone").glob("*/baselines/*/result.json"))
    assert len(found) == (4 if "shots" not in options[0] else 2)
    for path in found:
        alone, together = (
            read_json(tmp_path / name / path.relative_to(tmp_path / "alone")) for name in ("alone", "together")
        )
        assert alone["status"] == together["status"] == "finished"
        assert together["scores"] == pytest.approx(alone["scores"], rel=1e-5)
        assert done.stdout.count(f"baseline {alone['variant']} · ") == 1


@pytest.mark.slow
def test_bad_input_is_told_once(tmp_path, encoder_folder):
    tiny.write_topics(tmp_path, encoder_folder)
    done = launch(TORCHRUN, tmp_path, "run", "topics.yaml", "task.max_length=0")
    assert done.returncode == 1 and spoken(done.stdout) == []
    assert done.stderr.count("nothing was started") == done.stderr.count("task.max_length") == 1, done.stderr
    assert "process 1: " not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "write, save, options",
    [
        (tiny.write_chat_study, tiny.save_gguf, ["task.max_length=128"]),
        (
            tiny.write_chat_study,
            tiny.save_decoder,
            ["strategy={type: adapter, rank: 2}", "baselines={enabled: true, shots: 1}"],
        ),
        (
            tiny.write_topics,
            tiny.save_encoder,
            ["mitigations=[{type: soup, method: uniform}, {type: ensemble}]", "baselines.enabled=true"],
        ),
    ],
    ids=["gguf", "lora", "soup"],
)
def test_what_is_piped_is_ours(command, tmp_path, write, save, options):
    """No bar, table or warning of the libraries, on either stream."""
    path = tmp_path / ("model.gguf" if save is tiny.save_gguf else "model")
    save(path)
    recipe = write(tmp_path, path)
    for verb in ("check", "run"):
        done = command(verb, recipe.name, "seeds=2", "train.min_steps=4", *options)
        assert done.returncode < 2 and not re.search(r"\r|%\||it/s|Warning|REPORT", done.stdout + done.stderr)
        assert spoken(done.stderr) == []  # what takes long in `check` is shown aside


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb",
    [["run", "seeds=1"], ["diagnose", "--runs", "9", "--sources", "init,order", "--no-test"]],
    ids=lambda words: words[0],
)
def test_processes_whose_clocks_disagree_compute_alike(tmp_path, encoder_folder, verb):
    """In the arithmetic, and in parts of as many tokens, as the first one has measured."""
    tiny.write_topics(tmp_path, encoder_folder)
    given = [verb[0], "topics.yaml", "model.dtype=auto", *verb[1:]]
    command = [sys.executable, "-m", *TORCHRUN, "tests.study.disagreeing", *given]
    done = subprocess.run(command, cwd=tmp_path, env=environment_with(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    used = re.findall(r"process (\d) used (.*)", done.stdout)
    assert sorted(used) == [("0", "['torch.float32']"), ("1", "['torch.float32']")]
