"""The whole look at the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetune.doctor.findings import Finding
from finetune.doctor.hub import look_at_hub
from finetune.doctor.machine import look_at_arithmetic, look_at_devices, look_at_disk
from finetune.doctor.packages import installed, look_at_extras, look_at_import, look_at_packages, look_at_python


def examine(runs: Path, hub: bool) -> Iterator[Finding]:
    """Yield what is found, one thing after the other. ``runs``: where studies are to lie; ``hub``: try it."""
    yield from look_at_python()
    yield from look_at_packages()
    usable = []
    for name in ("torch", "huggingface_hub"):
        if installed(name) is None:  # the packages have said it
            continue
        broken = [*look_at_import(name)]
        yield from broken
        if not broken:
            usable.append(name)
    if "torch" in usable:
        yield from look_at_devices()
        yield from look_at_arithmetic()
    yield from look_at_disk(runs)
    if "huggingface_hub" in usable:
        yield from look_at_hub(hub)
    yield from look_at_extras()
