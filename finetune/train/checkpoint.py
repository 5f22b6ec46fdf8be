"""Checkpoints: complete or absent, exact, and without pickle."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finetune.core.errors import DiskFull, disk_full
from finetune.core.sharding import Parts, rows_of

STATE, TENSORS, INDEX = "state.json", "tensors.safetensors", "index.json"


def save(folder: Path, step: int, state: dict[str, Any], tensors: dict[str, Any], parts: Parts | None = None) -> None:
    """Write the checkpoint of ``step``, then remove older ones.

    ``state`` is plain JSON; ``tensors`` a nested dict whose leaves are tensors or numbers. The checkpoint appears
    under its name in one rename, after everything in it has reached the disk, so a crash at any moment leaves
    this one or the one before. A full disk raises :class:`DiskFull` and leaves the one before.

    With ``parts`` all processes have to call, each with its own rows of what is split over them: each writes a file,
    and an index says what is in it.
    """
    target = folder / f"step-{step:08d}"
    while list(folder.glob(f"{target.name}*")):
        # The newest checkpoint must not make room for its own successor before that is complete.
        target = target.with_name(f"{target.name}+")
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with told_when_full(folder):
            if parts is None or parts.process == 0:
                _make(temporary)
            if parts is None:
                _write(temporary, state, {TENSORS: _flatten(tensors)})
            else:
                _write_part(temporary, state, _flatten(tensors), parts)
            if parts is None or parts.process == 0:
                os.replace(temporary, target)
                _sync(folder)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if parts is None or parts.process == 0:
        for old in _complete(folder)[:-1]:
            shutil.rmtree(old)


def load(folder: Path, parts: Parts | None = None) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read state and tensors of the newest checkpoint; None when there is none.

    However many processes have written it, it is read whole, or with ``parts`` as this process's rows of what is split.
    """
    complete = _complete(folder)
    if not complete:
        return None
    newest = complete[-1]
    state = json.loads((newest / STATE).read_text(encoding="utf-8"))
    if not (newest / INDEX).exists() and parts is None:
        # Copies: tensors that are views of the file would keep its room on the disk after it is removed.
        return state, _unflatten({name: value.clone() for name, value in load_file(newest / TENSORS).items()})
    return state, _unflatten(_read_parts(newest, parts))


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


def _make(temporary: Path) -> None:
    """Make an empty folder; remove what a crash left half-written beside it."""
    for left in temporary.parent.glob(".step-*.tmp"):
        shutil.rmtree(left)
    temporary.mkdir(parents=True)


def _write(temporary: Path, state: dict[str, Any], files: Mapping[str, dict[str, torch.Tensor]]) -> None:
    """Write a checkpoint's files, down to the disk."""
    for name, tensors in files.items():
        save_file(tensors, temporary / name)
    (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
    for written in (*(temporary / name for name in files), temporary / STATE, temporary):
        _sync(written)


def _write_part(temporary: Path, state: dict[str, Any], tensors: dict[str, torch.Tensor], parts: Parts) -> None:
    """Write this process's file; the first process also writes what is not split, and the index, when all files are
    there."""
    parts.wait()  # until there is a folder
    shapes = {path: shape for path in tensors if (shape := parts.shape_of(path)) is not None}
    own = {path: value for path, value in tensors.items() if path in shapes or parts.process == 0}
    save_file(own, temporary / _part_name(parts.process, parts.processes))
    _sync(temporary / _part_name(parts.process, parts.processes))
    parts.wait()
    if parts.process == 0:
        index = {"processes": parts.processes, "shapes": shapes}
        (temporary / INDEX).write_text(json.dumps(index), encoding="utf-8")
        _sync(temporary / INDEX)
        _write(temporary, state, {})


def _part_name(process: int, processes: int) -> str:
    return f"tensors-{process + 1:05d}-of-{processes:05d}.safetensors"


def _read_parts(folder: Path, parts: Parts | None) -> dict[str, torch.Tensor]:
    """Read tensors, by path: of those that are split the rows that ``parts`` says, or all, wherever they lie."""
    index: dict[str, Any] = {"processes": 1, "shapes": {}}
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    processes, found = index["processes"], dict[str, torch.Tensor]()
    names = [_part_name(process, processes) for process in range(processes)] if index["shapes"] else [TENSORS]
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(folder / name, "pt")) for name in names]
        for path in files[0].keys():  # noqa: SIM118 - it is no mapping
            shape = index["shapes"].get(path) or (parts.shape_of(path) if parts else None)
            if shape is None:
                found[path] = files[0].get_tensor(path)
                continue
            first, last = parts.rows(shape[0]) if parts else (0, shape[0])
            pieces = []
            for process, file in enumerate(files):
                begin, end = rows_of(shape[0], process, processes)
                start, stop = max(first, begin), min(last, end)
                piece = file.get_slice(path)
                # What is flat, of a parameter that is not, has as many numbers to a row as the parameter.
                size = math.prod(shape[1:]) if len(piece.get_shape()) < len(shape) else 1
                if start < stop:
                    pieces.append(piece[(start - begin) * size : (stop - begin) * size])
            found[path] = torch.cat(pieces) if pieces else files[0].get_slice(path)[:0]
    return found


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
