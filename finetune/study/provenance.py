"""The provenance of a study: base models, stages, arithmetic and versions, fixed when it is opened.

Seeds are averaged, so all of them must have started from the same; and what is scored again must be what was trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from finetune import models
from finetune.core.errors import InputError, Problem
from finetune.core.run_dir import StudyDir, read_json
from finetune.core.runtime import Runtime
from finetune.runner.resources import Resources
from finetune.study.stages import digests

if TYPE_CHECKING:
    from finetune.recipe import Recipe, ResolvedRecipe

FIXED = ("torch", "transformers", "peft", "tokenizers")
"""Packages whose versions runs must have in common; the others are written down."""

PARTS = {"weights": "model.source", "configuration": "model.source", "tokenizer": "model.source"}
PARTS |= {"template": "model.source", "stages": "stages", "dtype": "model.dtype"}
"""What each variant starts from, and where the recipe says it."""

NAMES = {"template": "chat template", "kind": "kind of device", "kernels": "processor's arithmetic"}

RESTORE = "restore what the study began with, or choose another name or --output"


@dataclass(frozen=True)
class Change:
    """A difference from what there was when runs of the study were made."""

    name: str
    was: Any
    now: Any
    variant: str | None = None
    word: str | None = None
    """What `mix` has to say to allow it; None: nothing allows it."""

    def problem(self, folder: StudyDir) -> Problem:
        """Turn the change into a problem, as bad input has."""
        was, now = (_shown(value) for value in (self.was, self.now))
        whose = f" of variant '{self.variant}'" if self.variant else ""
        found = f"the {NAMES.get(self.name, self.name)}{whose} is {now}, and was {was} when {folder.path} was made"
        path = PARTS.get(self.name, "model.device" if self.word == "devices" else "mix")
        if self.word is None:
            return Problem(found, RESTORE, path)
        return Problem(found, f"{RESTORE}; to mix them all the same, write mix: [{self.word}]", path)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {digest[:8]}" for name, digest in value.items()) or "none"
    return "none" if value is None else re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,28}\b", r"\1", str(value))


@contextmanager
def same_arithmetic(recipe: ResolvedRecipe, folder: StudyDir) -> Iterator[None]:
    """Within the context, let `auto` stand for the arithmetic with which the study in ``folder`` has begun, where this
    machine's is of the same kind."""
    settled: models.Chosen = {}
    if folder.environment.exists():
        former = read_json(folder.environment)
        why = former.get("dtype_reason", "the study has begun with it")
        for variant in recipe.variants:
            model = variant.recipe.model
            device, was = models.choose_device(model), former.get("starts", {}).get(variant.name, {}).get("dtype")
            same = (former.get("kind"), former.get("kernels")) == (device.type, kernels(device))
            if was and same and model.dtype == "auto":
                settled[models.measured_width(model)] = (was, why)
    models.settle(settled)
    try:
        yield
    finally:
        models.settle({})


def agreed(recipe: ResolvedRecipe, runtime: Runtime) -> Runtime:
    """Let `auto` stand, in all processes, for what the first one has chosen; give the runtime in that arithmetic."""
    every = [variant.recipe.model for variant in recipe.variants]
    chosen = (model for model in every if model.dtype == "auto")
    own = {models.measured_width(model): models.explain_dtype(model, runtime.device) for model in chosen}
    models.settle(runtime.broadcast(own))
    return runtime.at(runtime.title, models.choose_dtype(every[0], runtime.device))


def starts_of(recipe: ResolvedRecipe, resources: Resources, device: torch.device) -> dict[str, Any]:
    """Collect by variant what its runs start from: digests of base model and stages, and the arithmetic."""
    return {variant.name: start_of(variant.recipe, resources, device) for variant in recipe.variants}


def start_of(recipe: Recipe, resources: Resources, device: torch.device) -> dict[str, Any]:
    """Collect what the runs of one variant start from: digests of base model and stages, and the arithmetic."""
    dtype = str(models.choose_dtype(recipe.model, device)).removeprefix("torch.")
    return {**models.facts_of(recipe.model), "stages": digests(recipe, resources), "dtype": dtype}


def same_start(folder: StudyDir, variant: str, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a base model that changed since the study was opened by this call."""
    problems = [change.problem(folder) for change in _changed_parts(variant, was, now)]
    if problems:
        raise InputError(problems)


def same_provenance(folder: StudyDir, now: dict[str, Any], mix: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """Make the content of `environment.json` from what there is ``now`` and what it said before, and lines to tell.

    Raises InputError for what changed since runs of the study were made, unless ``mix`` allows it. Studies of former
    versions do not say all of it: that is told, and held to from now on.
    """
    former = read_json(folder.environment) if folder.environment.exists() else {}
    if not _has_runs(folder):
        return now, []
    changes = list(_changes(former, now))
    problems = [change.problem(folder) for change in changes if change.word not in mix]
    if problems:
        raise InputError(problems)
    mixed = dict(former.get("mixed", {}))
    for change in changes:
        name = change.name if change.variant is None else f"{change.name} of {change.variant}"
        mixed[name] = list(dict.fromkeys([*mixed.get(name, [change.was]), change.now]))
    lines = [f"mixed, as the recipe allows: {name} {' and '.join(values)}" for name, values in mixed.items()]
    if "starts" not in former:
        why = "was made by a version that did not write down" if former else f"has lost {folder.environment.name}, with"
        lines.append(
            f"this study {why} which base model its runs started from: that is unknown, and from now on it is held to "
            "what is there today"
        )
    merged = {**now, "starts": former.get("starts", {}) | now["starts"]}
    return merged | ({"mixed": mixed} if mixed else {}), lines


def rescored(folder: StudyDir, kept: dict[str, Any]) -> dict[str, Any]:
    """Make the content of `environment.json` after runs were scored again: it still says where they were trained."""
    former = read_json(folder.environment) if folder.environment.exists() else kept
    return former | {name: kept[name] for name in ("starts", "mixed") if name in kept}


def _has_runs(folder: StudyDir) -> bool:
    """Tell whether anything has been trained or scored that later runs would stand beside."""
    begun = ("*/seed-*/checkpoints/step-*", "*/seed-*/before/*", "stages/*/checkpoints/step-*", "stages/*/result.json")
    if any(next(folder.path.glob(pattern), None) for pattern in (*begun, "base/result.json")):
        return True
    return any(read_json(path)["status"] != "error" for path in folder.path.glob("*/seed-*/result.json"))


def _changes(former: dict[str, Any], now: dict[str, Any]) -> Iterator[Change]:
    """List all that is not as it was."""
    for variant, parts in now["starts"].items():
        yield from _changed_parts(variant, former.get("starts", {}).get(variant, {}), parts)
    # Former versions say the kind of the device at the beginning of its description.
    was = {"kind": str(former.get("device", now["kind"])).partition(" ")[0], **former}
    for name in ("kind", "kernels"):
        if was.get(name, now[name]) != now[name]:
            yield Change(name, was[name], now[name], word="devices")
    before = former.get("packages", {})
    for name in FIXED:
        if before.get(name, now["packages"][name]) != now["packages"][name]:
            yield Change(name, before[name], now["packages"][name], word="versions")


def _changed_parts(variant: str, was: dict[str, Any], now: dict[str, Any]) -> Iterator[Change]:
    for part, value in now.items():
        if part in was and was[part] != value:
            # A recipe that names its arithmetic has another digest with another one: this is what `auto` is here.
            yield Change(part, was[part], value, variant, "devices" if part == "dtype" else None)


def same_weights(result: dict[str, Any], digest: str, title: str) -> None:
    """Refuse pretrained weights that are not those which a run, whose ``result`` is given, has started from."""
    was = result.get("base")
    if was is not None and was != digest:
        raise InputError(
            Problem(
                f"the pretrained weights that were loaded are {digest[:12]}, and {title} has started from {was[:12]}",
                RESTORE,
                "model.source",
            )
        )


def kernels(device: torch.device) -> str:
    """Name the arithmetic that the device has: the vector instructions in use, or the GPU's compute capability."""
    if device.type == "cuda":
        return "compute capability " + ".".join(map(str, torch.cuda.get_device_capability(device)))
    return str(torch.backends.cpu.get_cpu_capability())
