"""Names and shapes of a checkpoint's weights, read without the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input
from finetune.models.places import ModelOptions, locate

if TYPE_CHECKING:
    import torch

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""How transformers names one file of weights, and the list of several."""


def weight_shapes(options: ModelOptions) -> dict[str, torch.Tensor] | None:
    """Every weight of the base's checkpoint by name, as an empty tensor on torch's `meta` device.

    None where there is no safetensors file on this machine to read them from. Raises :class:`InputError` when a file is
    missing, or is none that safetensors can read.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    files = _files(options)
    if files is None:
        return None
    shapes = {}
    for file in files:
        if not file.exists():
            found = f"{file.name} is missing in {file.parent}, and {INDEX} lists it"
            raise bad_input("model.source", found, "give a complete model folder")
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no dictionary)
                    shapes[name] = torch.empty(opened.get_slice(name).get_shape(), device="meta")
        except SafetensorError as error:
            found = f"{file} could not be read: {error}"
            raise bad_input("model.source", found, "copy or download it again: it is cut off, or a pointer") from error
    return shapes


def stored_dtype(options: ModelOptions) -> torch.dtype:
    """The type of the base's weights in its checkpoint, if it is one of 16 bits for all that are no whole numbers; else
    float32, which also stands for what is not known yet."""
    import torch
    from safetensors import safe_open

    files, kinds = _files(options) or [], set[str]()
    for file in files:
        with safe_open(file, "pt") as opened:
            kinds |= {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
    numbers = {kind for kind in kinds if kind.startswith(("F", "BF"))}
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get(numbers.pop() if len(numbers) == 1 else "", torch.float32)


def _files(options: ModelOptions) -> list[Path] | None:
    """The safetensors files of the base that transformers would read, if they are on this machine."""
    from transformers.utils import cached_file

    place = locate(options.source)
    if place.gguf_file:
        return None
    found = {}
    for name in (SINGLE, INDEX):
        path = cached_file(
            place.name,
            name,
            revision=place.revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        if path is not None:
            found[name] = Path(path)
    if SINGLE in found:
        return [found[SINGLE]]
    if INDEX not in found:
        return None
    index = json.loads(found[INDEX].read_text(encoding="utf-8"))
    files = [found[INDEX].with_name(name) for name in sorted(set(index["weight_map"].values()))]
    # Of a model on the hub, the rest may not have been downloaded yet.
    return files if place.local or all(file.exists() for file in files) else None
