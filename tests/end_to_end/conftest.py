"""The command line on tiny real studies, as a person meets it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.warm import Done, Warm, environment_with


@pytest.fixture(scope="session")
def warm(tmp_path_factory) -> Iterator[Warm]:
    process = Warm(tmp_path_factory.mktemp("warm"))
    yield process
    process.close()


@pytest.fixture
def finetune(warm: Warm, tmp_path: Path) -> Callable[..., Done]:
    """finetune('run', 'topics.yaml') -> the ended process; it runs in the test's folder."""
    return partial(warm.run, cwd=tmp_path)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same through `python -m finetune`, with environment variables as keywords: slower, and the real thing."""

    def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "finetune", *argv],
            cwd=tmp_path,
            env=environment_with(**environment),
            capture_output=True,
            text=True,
        )

    return run
