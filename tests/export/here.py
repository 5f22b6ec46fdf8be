"""Engines in the process of the tests."""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path

import torch

_ENGINES: dict[str, object] = {}


def here(command: list[str]) -> tuple[int, str]:
    """Run an engine's program in this process: starting one of its own would take longer than all else."""
    _, isolated, file, *arguments = command
    assert isolated == "-I"
    if file not in _ENGINES:
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        assert spec is not None and spec.loader is not None
        _ENGINES[file] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(_ENGINES[file])
    with torch.enable_grad():  # which is as it was afterwards
        try:
            _ENGINES[file].main(*arguments)
        except Exception:
            return 1, traceback.format_exc()
    return 0, ""
