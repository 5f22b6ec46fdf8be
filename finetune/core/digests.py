"""Hashes that tell whether two things are the same."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from finetune.core.paths import cache_folder
from finetune.core.progress import phase
from finetune.core.run_dir import atomic

if TYPE_CHECKING:
    import torch

LARGE = 1 << 20
"""Bytes from which on a file's digest is remembered."""

CHUNK = 1 << 22
"""Bytes read at once."""

SETTLED = 2 * 10**9
"""Nanoseconds after its last change before a file's times tell it from its next version."""


def weights_digest(weights: Mapping[str, torch.Tensor], precise: bool = False) -> str:
    """32 hex digits over tensors, in their order, and their names; ``precise``: over what they are in float32. Where
    they are split over processes, all of these have to ask."""
    import torch

    from finetune.core.sharding import gathered

    digest = hashlib.blake2b(digest_size=16)
    with phase("computing the digest of weights", len(weights)) as under_way:
        for number, (name, value) in enumerate(gathered(weights), start=1):
            digest.update(name.encode())
            value = value.cpu()
            value = value.float() if precise and value.is_floating_point() else value
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
            under_way.step(number)
    return digest.hexdigest()


def form_digest(model: Any, tensors: Mapping[str, torch.Tensor]) -> str:
    """32 hex digits over how a model computes: its configuration, its kernel of attention, and ``tensors`` of it."""
    config = getattr(model, "config", None)
    said = {} if config is None else config.to_dict()
    said = {name: value for name, value in said.items() if name not in ("_name_or_path", "transformers_version")}
    kernel = getattr(config, "_attn_implementation", None)
    shapes = [(name, value.dtype, tuple(value.shape)) for name, value in tensors.items()]
    return text_digest(str([sorted(said.items(), key=str), kernel, shapes, weights_digest(tensors)]))


def text_digest(text: str) -> str:
    """32 hex digits over a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """32 hex digits over a file's content; that of a large one is remembered under its size, times and inode.

    Unlike the other times, that of the last change cannot be set back. A file that was changed within the last seconds
    is read again: it could change once more without its times showing it.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        seal = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
        fresh = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < SETTLED
        name = None if found.st_size < LARGE or fresh else text_digest(f"{os.path.realpath(path)} {seal}")
        if name is not None and (known := _recalled(name)) is not None:
            return known
        digest = _digest(file, path.name)
    if name is not None:
        _remember(name, digest)
    return digest


def content_digest(path: Path) -> str:
    """32 hex digits over a file's content, which is read, whatever is remembered of it."""
    with open(path, "rb") as file:
        return _digest(file, path.name)


def _digest(file: BinaryIO, name: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with phase(f"computing the digest of {name}", -(-os.fstat(file.fileno()).st_size // CHUNK)) as under_way:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            under_way.step(file.tell() // CHUNK)
    return digest.hexdigest()


_known: dict[str, str] = {}
"""By name of the entry: digests that this process has met, also where no folder remembers them."""


def _recalled(name: str) -> str | None:
    """The digest remembered under ``name``; None where there is none, or what was written cannot be read."""
    folder = cache_folder()
    if name in _known or folder is None:
        return _known.get(name)
    try:
        said = (folder / "digests" / name).read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return said if len(said) == 32 and set(said) <= set("0123456789abcdef") else None


def _remember(name: str, digest: str) -> None:
    """Write a digest down; where that cannot be done, this process alone knows it."""
    _known[name] = digest
    folder = cache_folder()
    if folder is None:
        return
    try:
        with atomic(folder / "digests" / name) as temporary:
            temporary.write_text(digest, encoding="ascii")
    except OSError:
        return
