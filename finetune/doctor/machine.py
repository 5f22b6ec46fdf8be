"""Devices, memory, disks and arithmetic of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from finetune.core.numbers import memory
from finetune.core.paths import CACHE, cache_folder
from finetune.doctor.findings import Finding

FREE = 5e9
"""Bytes from which on there is room for a small study: a model, its checkpoints and what the hub sends."""
WIDTH = 512
"""Hidden size of the linear layer by which arithmetic is measured."""

HUB_CACHE = {
    "HF_HUB_CACHE": "",
    "HUGGINGFACE_HUB_CACHE": "",
    "HF_HOME": "hub",
    "XDG_CACHE_HOME": "huggingface/hub",
}
"""Variables that say where the hub's library keeps what it fetches, the strongest first, and the folder below."""


def look_at_devices() -> Iterator[Finding]:
    """Name the devices that torch can compute on, and those that it should see and does not."""
    import torch

    from finetune.core.arithmetic import cpu_name

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = (
        f", {memory(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} of memory"
        if hasattr(os, "sysconf")
        else ""
    )
    yield Finding("devices", "fine", f"{cpu_name()}: {cores} cores, {torch.get_num_threads()} threads of torch{room}")
    if torch.get_num_threads() > cores:
        found = f"torch has {torch.get_num_threads()} threads for {cores} cores, which wait for each other"
        yield Finding("devices", "problem", found, f"export OMP_NUM_THREADS={cores}")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            free, total = torch.cuda.mem_get_info(number)
            yield Finding("devices", "fine", f"cuda:{number}: {about.name}, {memory(free)} of {memory(total)} free")
    elif shutil.which("nvidia-smi"):
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        fix = "pip install --force-reinstall torch, or update the driver: nvidia-smi says which CUDA it knows"
        yield Finding("devices", "problem", f"there is an NVIDIA driver, and torch {torch.__version__} {built}", fix)
    else:
        yield Finding("devices", "note", "no GPU: small models train well, large ones take long")


def look_at_arithmetic() -> Iterator[Finding]:
    """Say which arithmetic is faster here, as `model.dtype: auto` finds it out."""
    import torch

    from finetune.core.arithmetic import arithmetic_name, measured_for

    if torch.cuda.is_available():
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        said = "the GPU has bfloat16, which is used" if has else "the GPU has no bfloat16: float32 is used"
        yield Finding("arithmetic", "fine", said)
        return
    found = measured_for(WIDTH)
    yield Finding("arithmetic", "fine", f"{arithmetic_name()}: {found.reason}, so {found.dtype} is used")


def look_at_disk(runs: Path, free_of: Mapping[Path, int] | None = None) -> Iterator[Finding]:
    """Look at the folders that are written to: whether they can be, and how much room there is. ``free_of`` says that
    instead of the system, by folder."""
    hub, variable = _hub_cache()
    cache = cache_folder()
    places = {"studies": (runs.absolute(), "--output DIR"), "the hub's cache": (hub, f"export {variable}=DIR")}
    if cache is not None:
        places["our cache"] = (cache, f"export {CACHE}=DIR")
    for what, (folder, elsewhere) in places.items():
        there = _nearest(folder)
        free = (free_of or {}).get(folder)
        free = shutil.disk_usage(there).free if free is None else free
        if reason := _not_writable(there):
            yield Finding("disk", "problem", f"{what}: {folder} cannot be written to ({reason})", elsewhere)
        elif free < FREE:
            found = f"{what}: {memory(free)} free in {folder}, which is little"
            yield Finding("disk", "problem", found, f"{elsewhere}, on a disk with room; df -h shows them")
        else:
            yield Finding("disk", "fine", f"{what}: {memory(free)} free in {folder}")


def _hub_cache() -> tuple[Path, str]:
    """Where the hub's library keeps what it fetches, and the variable that says so, or could: as `constants.py` of
    huggingface_hub finds it, which may not be there to be asked."""
    for variable, below in HUB_CACHE.items():
        if said := os.environ.get(variable):
            return Path(os.path.expandvars(os.path.expanduser(said)), below).absolute(), variable
    return Path("~/.cache/huggingface/hub").expanduser(), "HF_HOME"


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest place above it that exists, which may be a file."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _not_writable(folder: Path) -> str:
    """Say why no file can be made in a folder; empty where one can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)
