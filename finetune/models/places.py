"""Which base model is asked for, where it lies, and whether it can be loaded from there at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from finetune.core.errors import bad_input
from finetune.core.options import Options
from finetune.core.paths import local_path, resolve_package_path


class ModelOptions(Options):
    """Which pretrained model to start from, and where its arithmetic runs."""

    source: str
    """`org/name` or `org/name@revision` on the hub, a folder, a `.gguf` file, or `package:NAME/path` inside an
    installed package (`*` allowed in the last part)."""
    tokenizer: str | None = None
    """Where the tokenizer comes from when it is not beside the model; the same forms as `source`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the forward and backward pass. `auto` is bfloat16 where it is faster: on a CPU that
    is measured, once for a machine. float16 is for GPUs without bfloat16; the loss is scaled. Trained weights and
    optimizer statistics are float32 unless `compute` says otherwise."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    trust_remote_code: bool = False
    """Allow the model's own Python code from the hub or folder to run."""
    allow_pickle: bool = False
    """Allow weights stored as pickle (`pytorch_model.bin`), which can run code when loaded."""
    new: list[str] = Field(default_factory=list)
    """Parts of the base model that its checkpoint lacks and that are to start from random numbers, such as
    `[crossattention]`: names of modules or parameters, or shell-style patterns over them; `a.b` also names
    `x.a.b.weight`. They are drawn from each run's seed and learn under every strategy. Without their names only a new
    head and a pooler may be missing."""


@dataclass(frozen=True)
class Location:
    """Where a model or tokenizer lies, in the words of `from_pretrained`."""

    name: str
    """A folder, or a hub id."""
    revision: str | None = None
    gguf_file: str | None = None
    local: bool = True

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`; local files make no hub call."""
        arguments: dict[str, Any] = {"local_files_only": self.local}
        if self.revision:
            arguments["revision"] = self.revision
        if self.gguf_file:
            arguments["gguf_file"] = self.gguf_file
        return arguments


def locate(source: str, at: str = "model.source") -> Location:
    """Find what ``source`` names; raises :class:`InputError` when a local one is not there."""
    if source.startswith("package:"):
        path = resolve_package_path(source, at)
    elif source.startswith((".", "/", "~")) or source.endswith(".gguf") or os.path.isdir(source):
        path = local_path(source)
    else:
        name, _, revision = source.partition("@")
        return Location(name, revision=revision or None, local=False)
    if not os.path.exists(path):
        raise bad_input(at, f"there is no file or folder {path}", "give a model folder, a .gguf file, or org/name")
    if path.suffix == ".gguf":
        return Location(str(path.parent), gguf_file=path.name)
    if not path.is_dir():
        raise bad_input(at, f"{path} is a file, but not a .gguf file", "give the folder that holds the model")
    return Location(str(path))


def check_files(options: ModelOptions) -> None:
    """Refuse a local model that cannot be loaded, before anything is; hub models are checked when they load."""
    place = locate(options.source)
    if not place.local or place.gguf_file:
        return
    folder = Path(place.name)
    if not (folder / "config.json").exists():
        raise bad_input("model.source", f"{folder} has no config.json", "give the folder that holds the model")
    if not any(folder.glob("*.safetensors")):
        pickled = next(iter([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]), None)
        if pickled is None:
            raise bad_input(
                "model.source", f"{folder} holds no weights (*.safetensors)", "give a complete model folder"
            )
        if not options.allow_pickle:
            raise bad_input(
                "model.source",
                f"{pickled.name} in {folder} is a pickle, which can run any code when it is loaded",
                "convert it to safetensors, or, if you trust its origin, write model.allow_pickle: true",
            )
