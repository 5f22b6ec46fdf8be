"""Claims a folder for a study: refuses one whose runs were made from another recipe or other data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import recipe as recipes
from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.run_dir import LAUNCH, StudyDir, read_json
from finetune.recipe.yaml_text import one_line
from finetune.study.sharing import LOCKS

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe, Variant
    from finetune.runner.resources import TaskData

ADVICE = "choose another name or --output, restore what was changed, or move the old folder away"


def claim(folder: StudyDir, recipe: ResolvedRecipe, facts: dict[str, Any]) -> None:
    """Refuse a folder whose runs came from another recipe, or from data that have changed since.

    Seeds and variants may be added: what a finished run depends on is in its variant's digest.
    """
    _refuse_no_folder(folder.path)
    if not folder.path.exists():
        return
    if not folder.resolved.exists():
        # A crash on the very first write leaves no more than its temporary file, and a lock; a launch precedes it.
        if any(not path.name.endswith(".tmp") and path.name not in (LOCKS, LAUNCH) for path in folder.path.iterdir()):
            raise bad_input(None, f"{folder.path} is not empty, and is not a study's folder", ADVICE)
        return
    former = recipes.read_resolved(folder.resolved)
    if former.vary != recipe.vary:
        found = f"{folder.path} was made with vary: [{', '.join(sorted(former.vary))}]"
        raise InputError(Problem(found, ADVICE, "vary"))
    known = {variant.name: variant for variant in former.variants}
    problems = [
        problem
        for variant in recipe.variants
        if (problem := _changed(folder, recipe, variant, known.get(variant.name))) is not None
    ]
    if problems:
        raise InputError(problems)
    same_data(folder, facts)


def _refuse_no_folder(path: Path) -> None:
    """Refuse a place where no folder can be made."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise bad_input(None, f"{there} is a file, where a folder is needed", "choose another name or --output")
    if not os.access(there, os.W_OK):
        raise bad_input(None, f"{there} cannot be written to", "choose another --output, or change its permissions")


def _changed(folder: StudyDir, recipe: ResolvedRecipe, variant: Variant, former: Variant | None) -> Problem | None:
    """Describe the mistake when ``folder`` holds runs of a variant of this name that another recipe made; None: no
    mistake."""
    holds = f"{folder.path} holds runs of variant '{variant.name}' from a different recipe"
    if former is None:
        # The variant had been taken out of the recipe; what it has left behind must still fit.
        left = [folder.run(variant.name, seed) for seed in recipe.seeds]
        results = [result for run in left if (result := run.read_result())]
        fits = all(result["digest"] == variant.digest for result in results)
        return None if fits and not any(run.checkpoints.exists() for run in left) else Problem(holds, ADVICE)
    if former.digest == variant.digest:
        return None
    changes = list(_differences(former.recipe.identifying(), variant.recipe.identifying()))
    path = changes[0][0] if changes else None
    shown = "".join(f"; {name} was {one_line(before)} and is now {one_line(now)}" for name, before, now in changes[:3])
    more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
    advice = ADVICE
    keys = {name.split(".")[0] for name, _, _ in changes}
    if keys and keys <= {"evaluate", "lm_eval"}:
        said = " ".join(f"{key}='[...]'" for key in sorted(keys))
        advice = f"to score runs that are finished on other tasks: finetune evaluate {folder.path} {said}"
    return Problem(holds + shown + more, advice, path, path and recipe.locate(path, variant.name))


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """List the dotted path, the former and the present value of every option that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in (key for key in {**before, **now} if path or key not in ("name", "seeds")):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield path, before, now


def same_split(folder: StudyDir, recipe: ResolvedRecipe, variant: str, data: TaskData, advice: str) -> None:
    """Refuse a variant's data that have changed since the study began, with ``advice``; where each seed has its own
    split, nothing was kept that would tell."""
    if "split" not in recipe.vary:
        now = {name: facts["fingerprint"] for name, facts in data.facts["splits"].items()}
        same_data(folder, {"variants": {variant: now}}, advice)


def same_data(
    folder: StudyDir, facts: dict[str, Any], advice: str = "restore the data, or choose another name or --output"
) -> None:
    """Refuse data that have changed since the study began."""
    if not folder.data.exists():
        return
    before, changed = read_json(folder.data)["variants"], set()
    for variant, parts in facts["variants"].items():
        known = before.get(variant, {})
        changed |= {name for name, fingerprint in parts.items() if known.get(name, fingerprint) != fingerprint}
    if changed:
        raise InputError(
            Problem(
                f"the examples of '{name}' are not those that {folder.path} was made with",
                advice,
                "data",
            )
            for name in sorted(changed)
        )
