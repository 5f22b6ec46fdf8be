"""Are files, packages and our own source what they were? What is remembered between calls is filed under the answer."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.core import env_vars

READ = 128 << 20
"""Bytes of files that count by their content. Files beyond them, and weights, count by size and times."""

WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".ot")


class Elsewhere(Exception):
    """Something that is to be told does not lie in files of this machine."""


def software(environment: bool = True) -> list[Any]:
    """List Python, every installed package, our own source, and what the ``environment`` asks for where that matters.

    Packages are told by the names of the folders that describe them, which hold their versions, and by when these
    were written, because a package can be installed again under the same version. This imports nothing.
    """
    installed = [
        [entry.path, entry.stat().st_mtime_ns]
        for place in dict.fromkeys(sys.path)
        if os.path.isdir(place)
        for entry in os.scandir(place)
        if entry.name.endswith((".dist-info", ".egg-info"))
    ]
    source = list(Files().tree(Path(__file__).parents[1]))
    asked = [env_vars.recorded()] if environment else []
    return [sys.version, sys.platform, sorted(installed), source, *asked]


class Files:
    """Tells whether files are the same as before: by content, as long as that is not too much to read."""

    def __init__(self) -> None:
        self.left = READ

    def at(self, path: Path) -> Iterator[list[Any]]:
        """The identity of a file, or of every file in a folder."""
        yield from self.tree(path) if path.is_dir() else [self.file(path)]

    def tree(self, top: Path) -> Iterator[list[Any]]:
        """Every file under ``top``, which may be missing, but for hidden ones and what Python keeps for itself."""
        for place, folders, names in os.walk(top, onerror=_raise_unless_missing):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
            if any(os.path.islink(os.path.join(place, name)) for name in folders):
                raise Elsewhere  # it may lead anywhere, even back
            for name in sorted(names):
                if not name.startswith("."):
                    yield self.file(Path(place, name))

    def file(self, path: Path) -> list[Any]:
        """Give path, size, and content or times. Unlike the other times, that of the last change cannot be set back."""
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Elsewhere
        if path.suffix.lower() in WEIGHTS or found.st_size > self.left:
            return [str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        self.left -= found.st_size
        return [str(path), found.st_size, hashlib.sha256(path.read_bytes()).hexdigest()]


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
