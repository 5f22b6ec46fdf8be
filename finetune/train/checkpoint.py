"""Checkpoints: complete or absent, exact, and without pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from finetune.core.errors import DiskFull, disk_full

STATE, TENSORS = "state.json", "tensors.safetensors"


def save(folder: Path, step: int, state: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Write the checkpoint of ``step``, then remove older ones.

    ``state`` is plain JSON; ``tensors`` a nested dict whose leaves are tensors or numbers. The checkpoint appears
    under its name in one rename, after everything in it has reached the disk, so a crash at any moment leaves
    this one or the one before. A full disk raises :class:`DiskFull` and leaves the one before.
    """
    target = folder / f"step-{step:08d}"
    while list(folder.glob(f"{target.name}*")):
        # The newest checkpoint must not make room for its own successor before that is complete.
        target = target.with_name(f"{target.name}+")
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with told_when_full(folder):
            _write(temporary, state, tensors)
            os.replace(temporary, target)
            _sync(folder)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in _complete(folder)[:-1]:
        shutil.rmtree(old)


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read state and tensors of the newest checkpoint; None when there is none."""
    complete = _complete(folder)
    if not complete:
        return None
    newest = complete[-1]
    state = json.loads((newest / STATE).read_text(encoding="utf-8"))
    # Copies: tensors that are views of the file would keep its room on the disk after it is removed.
    return state, _unflatten({name: value.clone() for name, value in load_file(newest / TENSORS).items()})


def step_of(folder: Path) -> int | None:
    """Find the step of the newest checkpoint; None when there is none."""
    complete = _complete(folder)
    return int(complete[-1].name.removeprefix("step-").rstrip("+")) if complete else None


@contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk, whoever met it, into :class:`DiskFull`."""
    try:
        yield
    except Exception as error:
        if not disk_full(error):
            raise
        raise DiskFull(
            f"the disk that holds {folder} is full; what was saved before is intact. Free some room and run the same "
            "command again to resume, or set train.save_model=false to keep scores only"
        ) from error


def _write(temporary: Path, state: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Write a checkpoint's files, down to the disk; first remove what a crash left half-written."""
    for left in temporary.parent.glob(".step-*.tmp"):
        shutil.rmtree(left)
    temporary.mkdir(parents=True)
    save_file(_flatten(tensors), temporary / TENSORS)
    (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
    for written in (temporary / TENSORS, temporary / STATE, temporary):
        _sync(written)


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.exists() else []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    flat: dict[str, torch.Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return flat


def _unflatten(flat: dict[str, torch.Tensor]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    return tree
