"""Engines, and the code of cards, in the process of the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
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


def printed(place: Path, name: str = "tuned") -> str:
    """What the first code of the card of the export ``name`` prints, beside its folder."""
    card = (place / name / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", card, re.S)
    assert found is not None
    out, before = io.StringIO(), Path.cwd()
    os.chdir(place)
    try:
        with contextlib.redirect_stdout(out), torch.enable_grad():
            exec(found[1], {"__name__": "of_the_card"})
    finally:
        os.chdir(before)
    return out.getvalue()
