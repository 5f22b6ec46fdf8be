"""Placement: which devices do which runs of a study, so that it takes the shortest time.

Runs on devices of their own need no communication, and several seeds side by side on one device are cheaper than apart;
so devices share a run only where there are fewer runs than devices, or where a model is to be split over them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input
from finetune.core.launched import launched

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe


@dataclass(frozen=True)
class Layout:
    """Groups of devices; those of a group share each run."""

    groups: tuple[tuple[str, ...], ...]
    """Each device as `CUDA_VISIBLE_DEVICES` names it; `cpu` for a share of the processor's cores."""
    at_once: int
    """Runs that a group does side by side, at most: more would leave others without any."""

    @property
    def devices(self) -> int:
        """Count the devices."""
        return sum(map(len, self.groups))

    def __str__(self) -> str:
        count = len(self.groups)
        each = len(self.groups[0])
        if count == 1:
            return f"{each} devices share each run" if each > 1 else "one device does all runs"
        return f"{count} devices with runs of their own" if each == 1 else f"{count} groups of {each} devices"


def lay_out(runs: int, devices: Sequence[str], shard: bool, share: bool = True) -> Layout:
    """Lay ``runs`` out over ``devices``. With ``shard`` all of them share each run; with ``share`` some do where there
    are fewer runs.

    Devices that would be left over, such as the fourth where three runs are to be done, share none: a group's are
    equally many.
    """
    count = len(devices)
    groups = 1 if shard else max(min(runs, count), 1)
    each = count // groups if share or shard else 1
    cut = tuple(tuple(devices[number * each : (number + 1) * each]) for number in range(groups))
    return Layout(cut, math.ceil(runs / groups))


def find_devices(recipe: ResolvedRecipe, asked: int | None) -> list[str]:
    """Find the devices that a study may use: all that are visible, or as many as ``asked`` for; one where a launcher
    has started this process, or the recipe names one. Raises InputError where there are fewer."""
    at, wanted = "--devices", {variant.recipe.model.device for variant in recipe.variants}
    if asked is not None and launched():
        raise bad_input(at, "a launcher has started this process beside others already", "leave --devices out")
    if asked is not None and asked < 1:
        raise bad_input(at, f"is {asked}", "count from 1")
    named = sorted(device for device in wanted if ":" in device)
    if named and (asked or 1) > 1:
        raise bad_input(at, f"is {asked}, and the recipe names a device: {named[0]}", "write model.device: auto")
    visible = [] if launched() or named or wanted == {"cpu"} else _visible()
    if not visible:
        cores = len(os.sched_getaffinity(0))
        if asked is not None and asked > cores:
            found = f"is {asked}, and this machine has no GPU that torch sees, and {cores} cores"
            raise bad_input(at, found, f"write at most {cores}: each device is then a share of the cores")
        return ["cpu"] * (asked or 1)
    if asked is not None and asked > len(visible):
        raise bad_input(
            at,
            f"is {asked}, and {len(visible)} GPUs are visible here",
            f"write at most {len(visible)}, or leave --devices out",
        )
    return visible[: asked or len(visible)]


def _visible() -> list[str]:
    """List the visible GPUs, as `CUDA_VISIBLE_DEVICES` names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    named = [name.strip() for name in said.split(",")] if said else [str(number) for number in range(count)]
    return named[:count]  # CUDA goes no further than to the first that there is not
