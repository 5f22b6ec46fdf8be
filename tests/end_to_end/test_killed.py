"""Killed anywhere and run again, a study ends as one that was never interrupted."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import tiny
from tests.end_to_end.reading import files, predictions, scores
from tests.end_to_end.warm import environment_with

RUN = ("run", "topics.yaml", "seeds=1", "train.min_steps=8", "train.checkpoint_seconds=0")
TIMES = {"seconds", "tokens_per_second", "phases", "utilisation", "resumed"}

# Each ends the process as a power cut would, the moment it is reached.
DIE = "import os, signal\ndef die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
RENAME = """
def dying(rename):
    def replace(source, target, *more):
        if str(target).endswith({target!r}) and {when!r} == "before": die()
        rename(source, target, *more)
        if str(target).endswith({target!r}): die()
    return replace
os.replace, os.rename = dying(os.replace), dying(os.rename)
"""
HALF_A_CHECKPOINT = """
from finetune.train import checkpoint
steps = []
def save_file(tensors, path):
    steps.append(path)
    with open(path, "wb") as file: file.write(b"half of a checkpoint")
    if len(steps) == 3: die()
    whole(tensors, path)
whole, checkpoint.save_file = checkpoint.save_file, save_file
"""
HALF_A_LINE = """
from finetune.train.meters import MetricsLog
def write(self, **row):
    whole(self, **row)
    if row["step"] == 5:
        with open(self.path, "a") as file: file.write('{"kind": "train", "st')
        die()
whole, MetricsLog.write = MetricsLog.write, write
"""
HALF_A_TABLE = """
import pyarrow.parquet
def write_table(table, path, **options):
    if "predictions" not in str(path): return whole(table, path, **options)
    with open(path, "wb") as file: file.write(b"PAR1 half of a table")
    die()
whole, pyarrow.parquet.write_table = pyarrow.parquet.write_table, write_table
"""
PLACES = {
    "before the study's folder is claimed": RENAME.format(target="resolved.yaml", when="before"),
    "before the recipe is kept": RENAME.format(target="recipe.yaml", when="before"),
    "before the data are described": RENAME.format(target="data.json", when="before"),
    "before a checkpoint has its name": RENAME.format(target="step-00000005", when="before"),
    "before older checkpoints are removed": RENAME.format(target="step-00000005", when="after"),
    "inside a checkpoint": HALF_A_CHECKPOINT,
    "inside the log of metrics": HALF_A_LINE,
    "inside a table of predictions": HALF_A_TABLE,
    "before the model has its name": RENAME.format(target="model", when="before"),
    "before the result has its name": RENAME.format(target="result.json", when="before"),
    "after the result has its name": RENAME.format(target="result.json", when="after"),
    "while the report is written": RENAME.format(target="report.md", when="before"),
}


@pytest.fixture(scope="module")
def whole(warm, encoder_folder, tmp_path_factory) -> Path:
    """The study without any interruption."""
    folder = tmp_path_factory.mktemp("whole")
    tiny.write_topics(folder, encoder_folder)
    done = warm.run(*RUN, cwd=folder)
    assert done.code == 0, done.text
    return folder / "runs" / "topics"


def facts(study: Path) -> dict[str, object]:
    """What every run says of its training, and its log, but for the time it took."""
    found: dict[str, object] = {}
    for path in sorted(study.glob("*/seed-*/result.json")):
        training = json.loads(path.read_text())["training"]
        rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        found[path.parent.name, path.parent.parent.name] = [
            {key: value for key, value in row.items() if key not in TIMES} for row in [training, *rows]
        ]
    return found


def assert_as_if_nothing_had_happened(study: Path, whole: Path) -> None:
    assert scores(study) == scores(whole)
    assert facts(study) == facts(whole)
    tables, wanted = predictions(study), predictions(whole)
    assert tables.keys() == wanted.keys()
    assert all(tables[path].equals(wanted[path]) for path in wanted)
    assert files(study) >= files(whole)


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_chosen_place(topics, finetune, tmp_path, whole, place):
    killed = finetune(*RUN, hook=DIE + PLACES[place])
    assert killed.code == -signal.SIGKILL, killed.text
    done = finetune(*RUN)
    assert done.code == 0, done.text
    assert_as_if_nothing_had_happened(tmp_path / "runs" / "topics", whole)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again(topics, finetune, tmp_path, whole, seed):
    rng, kills, code = random.Random(seed), 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        # Later kills come later, so that even a slow machine gets somewhere.
        done = finetune(*RUN, kill_after=rng.uniform(0.05, 0.3 + 0.1 * kills))
        code, kills = done.code, kills + 1
    assert code == 0, done.text
    assert kills > 3
    assert_as_if_nothing_had_happened(tmp_path / "runs" / "topics", whole)


def test_a_killed_chat_study_scores_its_base_model_once(chats, finetune, tmp_path):
    arguments = ("run", "chats.yaml", "seeds=1", "train.checkpoint_seconds=0")
    assert finetune(*arguments, "--output", "whole").code == 0
    killed = finetune(*arguments, hook=DIE + RENAME.format(target="step-00000004", when="after"))
    assert killed.code == -signal.SIGKILL
    base = tmp_path / "runs" / "chats" / "base" / "result.json"
    before = base.stat().st_mtime_ns
    assert finetune(*arguments).code == 0
    assert base.stat().st_mtime_ns == before
    assert_as_if_nothing_had_happened(tmp_path / "runs" / "chats", tmp_path / "whole" / "chats")


STOPPED = """
import os, signal
from finetune.train.loop import _Training
def update(self, norms):
    whole(self, norms)
    if self.at.step == 3: os.kill(os.getpid(), {signal})
whole, _Training.update = _Training.update, update
"""
STOPPED_SCORING = """
import os, signal
from finetune.runner import session
def score_held_out(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(*arguments)
whole, session.score_held_out = session.score_held_out, score_held_out
"""


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (STOPPED.format(signal="signal.SIGTERM"), "stopped after step 3 of 8, which is saved"),
        (STOPPED.format(signal="signal.SIGINT"), "stopped after step 3 of 8, which is saved"),
        (STOPPED_SCORING, "stopped while scoring test"),
    ],
    ids=["SIGTERM", "SIGINT", "while scoring"],
)
def test_asked_to_stop(topics, finetune, tmp_path, whole, hook, said):
    stopped = finetune(*RUN, "train.checkpoint_seconds=100", hook=hook)
    assert stopped.code == 130
    assert stopped.err == f"{said}\ninterrupted; run the same command again to resume\n"
    assert not list(tmp_path.rglob("result.json"))
    done = finetune(*RUN)
    assert done.code == 0, done.text
    assert_as_if_nothing_had_happened(tmp_path / "runs" / "topics", whole)


def test_control_c_in_a_real_process(topics, tmp_path):
    command = [sys.executable, "-m", "finetune", "run", "topics.yaml", "train.min_steps=100000", "seeds=1"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment_with(), stderr=subprocess.PIPE, text=True)
    log = tmp_path / "runs" / "topics" / "linear" / "seed-0" / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 2):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.endswith("interrupted; run the same command again to resume\n")
    assert len(list(log.parent.glob("checkpoints/step-*"))) == 1
