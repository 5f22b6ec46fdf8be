"""A place to write recipes, which is also the current folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """\
model: {source: org/name}
data:
  train: {path: news.csv}
  split: {test: 0.3, validation: 0.1}
task: {type: classification}
strategy: {type: adapter, rank: 8}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """write(text, name='recipe.yaml') -> its path, relative to the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = GOOD, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return Path(name)

    return write


@pytest.fixture
def good() -> str:
    """A complete recipe, which tests extend by appending lines."""
    return GOOD
