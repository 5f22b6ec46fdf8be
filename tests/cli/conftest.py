"""The command line in a process of its own, as a person meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

GOOD = """\
seeds: 2
model: {source: org/name}
data:
  train: {path: news.csv}
  split: {test: 0.3}
task: {type: classification}
strategy: {type: adapter, rank: 8}
variants:
  lora: {}
  linear: {strategy: {type: linear}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a good recipe."""
    (tmp_path / "recipe.yaml").write_text(GOOD)
    return tmp_path


@pytest.fixture
def finetune(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """finetune('check', 'recipe.yaml') -> the finished process."""

    def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        command = [sys.executable, "-m", "finetune", *args]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)

    return run
