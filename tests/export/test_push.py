"""`--push`: everything in the folder goes to the hub in one commit, or a line says why not; the hub is a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.stand_in_hub import TOKEN, stand_in_hub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub():
    with stand_in_hub() as made:
        yield made


def run(hub, *arguments, token=TOKEN, offline="0"):
    """The command line in a process of its own: the library reads its address when it is imported."""
    settings = {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_XET": "1"}
    env = {**os.environ, **settings, "COLUMNS": "400"}
    path = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
    command = [sys.executable, "-m", "finetune", "export", *map(str, arguments)]
    return subprocess.run(command, env={**env, "PYTHONPATH": path}, capture_output=True, text=True, timeout=200)


def test_everything_is_pushed(hub, topics, tmp_path):
    place = tmp_path / "out"
    done = run(hub, topics, "--variant", "full", "--seed", 1, "--to", place, "--push", "someone/topics")
    assert done.returncode == 0, done.stdout + done.stderr
    written = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert hub.files == {"someone/topics": written} and "certificate.json" in written
    assert hub.repositories["someone/topics"]["visibility"] == "private" and hub.messages == ["Export full, seed 1"]
    assert f"pushed: {hub.address}/someone/topics/commit/" in done.stdout


def test_a_hub_that_refuses_leaves_the_folder(hub, topics, tmp_path):
    hub.refuses = "/commit/main"
    done = run(hub, topics, "--variant", "full", "--seed", 0, "--to", tmp_path / "out", "--push", "someone/topics")
    assert done.returncode == 1 and "could not be pushed to someone/topics" in done.stderr
    assert "Traceback" not in done.stderr and (tmp_path / "out" / "config.json").exists() and not hub.files


@pytest.mark.parametrize(
    ("repo", "token", "offline", "said"),
    [
        ("topics", TOKEN, "0", "'topics' is no repository's name"),
        ("someone/topics", "hf_wrong", "0", "the hub does not know you"),
        ("someone/topics", TOKEN, "1", "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_cannot_be_pushed_is_not_written(repo, token, offline, said, hub, topics, tmp_path):
    command = [topics, "--variant", "full", "--seed", 0, "--to", tmp_path / "out", "--push", repo]
    done = run(hub, *command, token=token, offline=offline)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()) and not hub.repositories
