"""Remembers checks that found nothing wrong, so that checking again what has not changed need not load anything.

A check is filed under a hash of everything that its outcome depends on: the resolved recipe, Python and every installed
package, our own source, and the files that it reads. Whatever changes, the hash is another one and the check is made.
Where something cannot be told from files of this machine (a hub, a device, a model's own code), nothing is remembered.
Only `finetune check` asks here; a run always looks for itself.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.advice.advising import Advice
from finetune.core.errors import Damaged, InputError
from finetune.core.options import Options
from finetune.core.paths import cache_folder, resolve_paths
from finetune.core.run_dir import read_json, write_json
from finetune.core.unchanged import Elsewhere, Files, software
from finetune.data.options import Source
from finetune.evaluate.metrics import HUB as HUB_METRIC
from finetune.metrics.function import is_function
from finetune.models import ModelOptions, locate

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe

FORMAT = 3
"""Version of what is written; part of the hash."""

BESIDE_GGUF = (".json", ".jinja", ".model", ".txt", ".py")
"""Endings of the files beside a GGUF file that transformers may take a tokenizer's settings from."""

DAYS, ENTRIES = 90, 200
"""How long, and how many, checks are remembered."""


@dataclass(frozen=True)
class Checked:
    """What a check has found."""

    lines: list[str]
    """On data and parameters, for a person."""
    advice: list[Advice]


@dataclass(frozen=True)
class Remembered(Checked):
    """What a former check has found, and when."""

    checked: datetime


def folder() -> Path | None:
    """Find the folder where checks are remembered; None when they are not."""
    place = cache_folder()
    return place / "checks" if place else None


def key_of(recipe: ResolvedRecipe, earlier: Path | None = None) -> str | None:
    """Hash all that a check of ``recipe`` depends on; None when that cannot be told, or nothing is remembered.
    ``earlier``: the results of its study, where there are some."""
    if folder() is None:
        return None
    try:
        facts = [FORMAT, _content(recipe), software(), *_files_of(recipe), _Files().file(earlier) if earlier else None]
    except (Elsewhere, InputError, OSError):
        return None
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def recall(key: str) -> Remembered | None:
    """Read the lines of the check with this key; None when there was none, or its file cannot be read."""
    place = folder()
    try:
        entry = read_json(place / f"{key}.json") if place else {}
        lines, checked = entry["lines"], datetime.fromisoformat(entry["checked"])
        advice = [Advice.from_json(each) for each in entry["advice"]]
    except (OSError, ValueError, TypeError, KeyError, Damaged):
        return None
    sound = isinstance(lines, list) and all(isinstance(line, str) for line in lines)
    return Remembered(lines, advice, checked) if sound else None


def remember(key: str, found: Checked) -> None:
    """Write down a check that found nothing wrong, and forget old ones. Where that cannot be done, it is not."""
    place = folder()
    if place is None:
        return
    try:
        checked = datetime.now().astimezone().isoformat(timespec="seconds")
        advice = [each.to_json() for each in found.advice]
        entry = {"format": FORMAT, "checked": checked, "lines": found.lines, "advice": advice}
        write_json(place / f"{key}.json", entry)
        _forget(place)
    except OSError:
        return


def _forget(place: Path) -> None:
    """Remove entries that are too old, and the oldest when there are too many."""
    ages = sorted((time.time() - path.stat().st_mtime, path) for path in place.glob("*.json"))
    for number, (age, path) in enumerate(ages):
        if number >= ENTRIES or age > DAYS * 24 * 3600:
            path.unlink(missing_ok=True)


def _content(recipe: ResolvedRecipe) -> list[Any]:
    """Every value of every variant, in their order, which the answer follows; seeds and `vary` are among them."""
    return [[variant.name, variant.recipe.model_dump(mode="json")] for variant in recipe.variants]


def _files_of(recipe: ResolvedRecipe) -> Iterator[list[Any]]:
    """The identity of every file that a check of ``recipe`` reads."""
    files, seen = _Files(), set()
    for variant in recipe.variants:
        if variant.recipe.lm_eval:  # whose files, and documents on the hub, the harness finds
            raise Elsewhere
        own = [entry.task for entry in variant.recipe.evaluate if entry.task is not None]
        metrics = [variant.recipe.train.select]
        metrics += [name for task in (variant.recipe.task, *own) for name in task.metrics]
        if any(name.startswith(HUB_METRIC) or is_function(name) for name in metrics):
            raise Elsewhere
        for section in _sections(variant.recipe):
            if isinstance(section, Source | ModelOptions) and (known := section.model_dump_json()) not in seen:
                seen.add(known)
                yield from files.data(section) if isinstance(section, Source) else files.model(section)


def _sections(value: Any) -> Iterator[Options]:
    """``value``, when it is a section of options, and all that are inside it."""
    if isinstance(value, Options):
        yield value
        for name in type(value).model_fields:
            yield from _sections(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from _sections(item)


class _Files(Files):
    """Tells the files that data and models are read from."""

    def data(self, source: Source) -> Iterator[list[Any]]:
        if source.kind == "hub" or source.remote:
            raise Elsewhere
        for path in resolve_paths(source.place.file, "data"):
            yield from self.at(path.absolute())

    def model(self, options: ModelOptions) -> Iterator[list[Any]]:
        if options.trust_remote_code or options.device.startswith("cuda"):
            raise Elsewhere
        for source in filter(None, (options.source, options.tokenizer)):
            place = locate(source)
            if not place.local:
                raise Elsewhere
            inside = Path(place.name).absolute()
            if place.gguf_file is None:
                yield from self.tree(inside)
            else:
                beside = [path for path in inside.iterdir() if path.suffix.lower() in BESIDE_GGUF and path.is_file()]
                yield from map(self.file, [inside / place.gguf_file, *sorted(beside)])
                yield from self.tree(inside / "additional_chat_templates")
