"""Checkpoints: complete or absent, exact, and without pickle."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finetune.core.digests import content_digest
from finetune.core.errors import DiskFull, NotWritable, StudyEnded, disk_full, not_writable
from finetune.core.progress import say
from finetune.core.run_dir import sync
from finetune.core.sharding import Parts, rows_of

STATE, TENSORS, INDEX = "state.json", "tensors.safetensors", "index.json"

SEAL = ".blake2b"
"""What is added to a file's name for that of its digest."""


def save(folder: Path, step: int, state: dict[str, Any], tensors: dict[str, Any], parts: Parts | None = None) -> None:
    """Write the checkpoint of ``step`` beside those before, which :func:`prune` removes.

    ``state`` is plain JSON; ``tensors`` a nested dict whose leaves are tensors or numbers. The checkpoint appears
    under its name in one rename, after everything in it has reached the disk, so a crash at any moment leaves
    this one or the one before. A full disk raises :class:`DiskFull` and leaves the one before. Each file has its
    digest in a file beside it.

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
                sync(folder)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if parts is None and isinstance(error, DiskFull) and len(before := complete(folder)) > 1:
            _remove(before[0])  # there is room for two only
            return save(folder, step, state, tensors)
        raise


def prune(folder: Path) -> None:
    """Remove all checkpoints but the newest and the one before, in case the newest turns out to be damaged."""
    for old in complete(folder)[:-2]:
        _remove(old)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint, which is no longer one from the first moment on."""
    left = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
    shutil.rmtree(left, ignore_errors=True)
    checkpoint.rename(left)
    shutil.rmtree(left)


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read state and tensors of the newest checkpoint that is as it was written; None when there is none."""
    found = next((each for each in reversed(complete(folder)) if damage(each) is None), None)
    return read(found) if found else None


def read(checkpoint: Path, parts: Parts | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read state and tensors of one checkpoint.

    However many processes have written it, it is read whole, or with ``parts`` as this process's rows of what is split.
    """
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if not (checkpoint / INDEX).exists() and parts is None:
        # Copies: tensors that are views of the file would keep its room on the disk after it is removed.
        return state, _unflatten({name: value.clone() for name, value in load_file(checkpoint / TENSORS).items()})
    return state, _unflatten(_read_parts(checkpoint, parts))


def complete(folder: Path) -> list[Path]:
    """List the checkpoints in ``folder``, the newest one last; of one step, the one that was written later."""
    return sorted(folder.glob("step-*")) if folder.exists() else []


def step_of(checkpoint: Path) -> int:
    """Read the step of a checkpoint from its name."""
    return int(checkpoint.name.removeprefix("step-").rstrip("+"))


def alike(folders: Mapping[int, Path]) -> list[list[int]]:
    """Group runs, whose ``folders`` are given by seed, into those that can go on from one step, or have none."""
    groups = list[tuple[set[int], list[int]]]()
    for seed, folder in folders.items():
        steps = {*map(step_of, complete(folder))}
        group = next((each for each in groups if each[0] & steps or not (each[0] or steps)), None)
        if group is None:
            groups.append((steps, [seed]))
        else:
            group[0].intersection_update(steps)
            group[1].append(seed)
    return [seeds for _, seeds in groups]


def damage(checkpoint: Path) -> str | None:
    """Say what is wrong with a checkpoint's files; None where all of them are as they were written."""
    names = [STATE, TENSORS]
    try:
        if (checkpoint / INDEX).exists():
            count = json.loads((checkpoint / INDEX).read_text(encoding="utf-8"))["processes"]
            names = [STATE, INDEX, *(_part_name(process, count) for process in range(count))]
        if not any(checkpoint.glob(f"*{SEAL}")) and all((checkpoint / name).exists() for name in names):
            return None  # former versions wrote no digests
        for name in names:
            if (checkpoint / (name + SEAL)).read_text(encoding="ascii") != content_digest(checkpoint / name):
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except ValueError:  # no JSON, or no text
        return f"{INDEX} or a digest cannot be read"
    return None


def newest_of_one_step(folders: Sequence[Path]) -> list[Path]:
    """Find in each of ``folders`` a checkpoint that is as it was written, all of the newest step of which each has
    one; empty where there is none. Those that are damaged, of which a line says so, or newer, are removed, and of one
    that is left alone thereby there is a copy then, so that it may be damaged in its turn."""
    removed = set[Path]()
    while True:
        found = [{step_of(each): each for each in complete(folder)} for folder in folders]
        step = max(set(found[0]).intersection(*found), default=-1)
        chosen = [each[step] for each in found] if step >= 0 else []
        damaged = [(each, wrong) for each in chosen if (wrong := damage(each))]
        for each, wrong in damaged:
            say(f"{each} is damaged ({wrong}): going on from what was saved before it")
            _remove(each)
            removed.add(each.parent)
        if not damaged:
            break
    for folder in folders:
        for each in complete(folder):
            if step_of(each) > step:  # those steps are taken again, and logged again
                _remove(each)
                removed.add(folder)
        if folder in removed and len(left := complete(folder)) == 1:
            temporary = folder / f".{left[0].name}+.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            with told_when_full(folder):
                shutil.copytree(left[0], temporary)
            temporary.rename(folder / f"{left[0].name}+")
    return chosen


@contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """Turn the error of a disk that is full, or can no longer be written to, whoever met it, into :class:`DiskFull` or
    :class:`NotWritable`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, StudyEnded):
            raise
        if (why := not_writable(error, folder)) is not None:
            raise NotWritable(
                f"{folder} can no longer be written to ({why}); what was saved before is intact. Run the same command "
                "again when it can be, to resume"
            ) from error
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
        _seal(temporary / name)
    _write_json(temporary / STATE, state)
    sync(temporary)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
    _seal(path)


def _seal(path: Path) -> None:
    """Let a file reach the disk, and its digest beside it."""
    seal = path.with_name(path.name + SEAL)
    seal.write_text(content_digest(path), encoding="ascii")
    for written in (path, seal):
        sync(written)


def _write_part(temporary: Path, state: dict[str, Any], tensors: dict[str, torch.Tensor], parts: Parts) -> None:
    """Write this process's file; the first process also writes what is not split, and the index, when all files are
    there."""
    parts.wait()  # until there is a folder
    shapes = {path: shape for path in tensors if (shape := parts.shape_of(path)) is not None}
    own = {path: value for path, value in tensors.items() if path in shapes or parts.process == 0}
    save_file(own, temporary / _part_name(parts.process, parts.processes))
    _seal(temporary / _part_name(parts.process, parts.processes))
    parts.wait()
    if parts.process == 0:
        _write_json(temporary / INDEX, {"processes": parts.processes, "shapes": shapes})
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
