"""What a study writes down about itself, and holds against what it finds when it is run again."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import finetune
from finetune import models
from finetune import recipe as recipes
from finetune.digests import file_digest, text_digest
from finetune.errors import InputError, Problem, bad_input
from finetune.evaluate import metrics
from finetune.locations import resolve_path
from finetune.outside import recorded
from finetune.preflight import Preflight
from finetune.provenance import kernels
from finetune.recipe.yaml_text import one_line
from finetune.run_dir import FORMAT, StudyDir, atomic, read_json, write_json, write_text
from finetune.shared import TaskData
from finetune.surroundings import Surroundings

if TYPE_CHECKING:
    from finetune.recipe import Recipe, ResolvedRecipe, Variant


MOST_CHARACTERS = 2_000
"""Characters kept of a held-out text; longer ones are cut there."""

ADVICE = "choose another name or --output, restore what was changed, or move the old folder away"


def claim(folder: StudyDir, recipe: ResolvedRecipe, facts: dict[str, Any]) -> None:
    """Refuse a folder whose runs came from another recipe, or from data that have changed since.

    Seeds and variants may be added: what a finished run depends on is in its variant's digest.
    """
    _refuse_no_folder(folder.path)
    if not folder.path.exists():
        return
    if not folder.resolved.exists():
        # A crash on the very first write leaves no more than its temporary file.
        if any(not path.name.endswith(".tmp") for path in folder.path.iterdir()):
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
    """What is wrong when ``folder`` holds runs of a variant of this name that another recipe made."""
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
    if changes and all(name.split(".")[0] == "evaluate" for name, _, _ in changes):
        advice = f"to score runs that are finished on other tasks: finetune evaluate {folder.path} evaluate='[...]'"
    return Problem(holds + shown + more, advice, path, path and recipe.locate(path, variant.name))


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted path, former and present value of every option that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in (key for key in {**before, **now} if path or key not in ("name", "seeds")):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield path, before, now


def write_down(
    folder: StudyDir, recipe: ResolvedRecipe, found: Preflight, facts: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write what will be run, on what data, and what it is run with."""
    write_text(folder.resolved, recipe.to_yaml())  # first: with it the folder is known as this study's
    write_text(folder.recipe, recipe.text)
    write_json(folder.data, with_former(folder, facts))
    write_examples(folder, recipe, found)
    write_json(folder.environment, about)


def same_data(folder: StudyDir, facts: dict[str, Any]) -> None:
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
                "restore the data, or choose another name or --output",
                "data",
            )
            for name in sorted(changed)
        )


def data_facts(recipe: ResolvedRecipe, found: Preflight) -> dict[str, Any]:
    """The content of `data.json`: the splits of the first variant, every held-out task, and fingerprints of all."""
    tasks: dict[str, Any] = {}
    for variant in recipe.variants:
        data, names = found.data[variant.name], variant.recipe.task.metrics
        for task, encoded in data.held_out.items():
            tasks.setdefault(
                task,
                {
                    "name": task,
                    "split": "test" if task == "test" else "evaluate",
                    "examples": len(encoded.examples),
                    "fingerprint": data.facts["splits"][task]["fingerprint"],
                    "headline": names[0],
                    "example_score": data.task.example_score,
                    "metrics": [
                        {"name": name, "higher_is_better": metrics.load(name).higher_is_better} for name in names
                    ],
                    "majority": data.majority[task],
                },
            )
    first = recipe.variants[0]
    fingerprints = {
        name: {split: facts["fingerprint"] for split, facts in data.facts["splits"].items()}
        for name, data in found.data.items()
    }
    if "split" in recipe.vary:  # where each seed has its own, that of the first says nothing about the others'
        fingerprints = {variant.name: dict(_files(variant.recipe)) for variant in recipe.variants}
    return {
        "format": FORMAT,
        "seed": first.recipe.data.split.seed,
        "split_varies": "split" in recipe.vary,
        **found.data[first.name].facts,
        "tasks": list(tasks.values()),
        "variants": fingerprints,
    }


def _files(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Digests of the files that a recipe's data are read from, by where it names them; not of those on the hub."""
    own = {f"data.{part}": getattr(recipe.data, part) for part in ("train", "validation", "test")}
    for at, source in {**own, **{f"evaluate.{held_out.name}": held_out.data for held_out in recipe.evaluate}}.items():
        if source is not None and source.kind != "hub":
            path = resolve_path(source.path, at)
            files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
            yield at, text_digest(str([(each.relative_to(path).as_posix(), file_digest(each)) for each in files]))


def write_examples(folder: StudyDir, recipe: ResolvedRecipe, found: Preflight) -> None:
    """Write what is held out, for people to read beside predictions: one table for each task, one row per example.

    Not where each seed has its own split: there every run has other examples in the same rows.
    """
    if "split" in recipe.vary:
        return
    for task in dict.fromkeys(task for data in found.data.values() for task in data.held_out):
        variant = next(each for each in recipe.variants if task in found.data[each.name].held_out)
        table = examples(found.data[variant.name], task, variant.recipe.scoring.keep_texts)
        with atomic(folder.examples(task)) as temporary:
            pq.write_table(table, temporary)


def examples(data: TaskData, task: str, texts: bool = True) -> pa.Table:
    """The held-out examples of ``task``: `example` (int64), `input`, `reference` and `group` (strings or null).

    Without ``texts`` there are no inputs, no references but labels, and numbers for the names of groups.
    """
    encoded = data.held_out[task]
    numbers, groups = [example.number for example in encoded.examples], _groups(data, task)
    absent: list[str | None] = [None] * len(numbers)
    inputs = data.task.shown(data.tables[task], encoded) if texts else absent
    references = [example.reference for example in encoded.examples] if texts or data.task.labels else absent
    if groups and not texts:
        places = {group: str(place) for place, group in enumerate(dict.fromkeys(groups))}
        groups = [places[group] for group in groups]
    columns = {"input": inputs, "reference": references, "group": groups or absent}
    cut = {name: [text and text[:MOST_CHARACTERS] for text in column] for name, column in columns.items()}
    strings = {name: pa.array(column, pa.string()) for name, column in cut.items()}
    return pa.table({"example": pa.array(numbers, pa.int64()), **strings})


def _groups(data: TaskData, task: str) -> list[str]:
    """What each held-out example belongs to; empty where each stands alone."""
    encoded, column = data.held_out[task], data.task.group
    rows = encoded.rows or range(len(encoded.examples))
    if column is not None:
        values = list(data.tables[task][column])
        return [str(values[row]) for row in rows]
    # Pieces of one text belong together.
    return [f"row {row}" for row in rows] if len(set(rows)) < len(rows) else []


def with_former(folder: StudyDir, facts: dict[str, Any]) -> dict[str, Any]:
    """``facts`` together with what `data.json` has of held-out tasks that were scored in another call."""
    if not folder.data.exists():
        return facts
    former = read_json(folder.data)
    tasks = {task["name"]: task for task in [*former["tasks"], *facts["tasks"]]}
    variants = {name: former["variants"].get(name, {}) | parts for name, parts in facts["variants"].items()}
    return {
        **facts,
        "splits": former["splits"] | facts["splits"],
        "tasks": list(tasks.values()),
        "variants": former["variants"] | variants,
    }


def environment(around: Surroundings, dtype: Any, today: date, starts: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the study runs on now, and what each variant ``starts`` from: for `environment.json`. ``today`` is the day
    it was begun on, which chat templates may print."""
    packages = ("torch", "transformers", "tokenizers", "datasets", "peft", "accelerate", "evaluate", "numpy", "scipy")
    if around.device.type == "cuda":
        device = f"cuda ({torch.cuda.get_device_name(around.device)}, CUDA {torch.version.cuda})"
    else:
        device = f"{around.device.type} ({models.cpu_name()}, {torch.get_num_threads()} threads)"
    return {
        "format": FORMAT,
        "date": today.isoformat(),
        "finetune": finetune.__version__,
        "git": commit(Path(finetune.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in (*packages, "safetensors", "pyarrow")},
        "device": device,
        "arithmetic": models.arithmetic_name() if around.device.type == "cpu" else None,
        "kind": around.device.type,
        "kernels": kernels(around.device),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "processes": around.accelerator.num_processes,
        "settings": recorded(),
        "starts": starts or {},
    }


def commit(folder: Path) -> str | None:
    """The commit that the code in ``folder`` is of, with `-dirty` where files have been changed since; None where it
    is not kept with git, as an installed package is not."""
    git = shutil.which("git")
    if git is None:
        return None

    def said(*words: str) -> str | None:
        reading = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run([git, "-C", str(folder), *words], capture_output=True, text=True, env=reading)
        return done.stdout.strip() if done.returncode == 0 else None

    # An environment inside somebody's repository is not a part of it.
    kept = said("ls-files", "--error-unmatch", "__init__.py")
    return said("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if kept else None
