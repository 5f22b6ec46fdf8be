"""The facts that a study writes down when it is opened: its recipe, its data and its held-out examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune.core.answers import NAMED
from finetune.core.digests import file_digest, text_digest
from finetune.core.paths import resolve_paths
from finetune.core.run_dir import FORMAT, StudyDir, atomic, read_json, write_json, write_text
from finetune.data.remote import remotes
from finetune.data.rows import PORTION
from finetune.evaluate import metrics
from finetune.metrics.function import key_of
from finetune.models import is_ours
from finetune.runner.build import make_strategy
from finetune.runner.resources import TaskData
from finetune.study.preflight import Preflight

if TYPE_CHECKING:
    from finetune.metrics.base import Metric
    from finetune.recipe import Recipe, ResolvedRecipe
    from finetune.recipe.options import HarnessSet, HeldOut


MOST_CHARACTERS = 2_000
"""Characters kept of a held-out text; longer ones are cut there."""


def write_down(
    folder: StudyDir, recipe: ResolvedRecipe, found: Preflight, facts: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write what will be run, on what data, and what it is run with."""
    write_text(folder.resolved, recipe.to_yaml())  # first: with it the folder is known as this study's
    write_text(folder.recipe, recipe.text)
    write_json(folder.data, with_former(folder, facts))
    write_examples(folder, recipe, found)
    write_json(folder.environment, about)


def data_facts(recipe: ResolvedRecipe, found: Preflight) -> dict[str, Any]:
    """Collect the content of `data.json`: the splits of the first variant, every held-out task, and fingerprints of
    all."""
    tasks: dict[str, Any] = {}
    for variant in recipe.variants:
        for task in found.data[variant.name].held_out:
            if task not in tasks:
                tasks[task] = _set_facts(variant.recipe, found.data[variant.name], task)
    first = recipe.variants[0]
    fingerprints = {
        name: {split: facts["fingerprint"] for split, facts in data.facts["splits"].items()}
        for name, data in found.data.items()
    }
    if "split" in recipe.vary:  # where each seed has its own, that of the first says nothing about the others'
        fingerprints = {
            variant.name: {
                **dict(_files(variant.recipe)),
                **{each.name: fingerprints[variant.name][each.name] for each in variant.recipe.lm_eval},
            }
            for variant in recipe.variants
        }
    return {
        "format": FORMAT,
        "seed": first.recipe.data.split.seed,
        "split_varies": "split" in recipe.vary,
        **found.data[first.name].facts,
        "tasks": list(tasks.values()),
        "baselines": [each.facts() for each in found.baselines],
        "variants": fingerprints,
        "libraries": {each.name: _library(each.recipe, found.data[each.name]) for each in recipe.variants},
    }


def _set_facts(recipe: Recipe, data: TaskData, name: str) -> dict[str, Any]:
    """Describe a held-out set: what it is, what it is asked for, and on which task and metrics it is scored."""
    task, entry = data.task_of(name), next((each for each in recipe.sets if each.name == name), None)
    role = "in-domain" if entry is None else entry.role_beside(recipe.task)
    margin = margin_of(entry, task.metrics[0]) if entry is not None and role == "forgetting" else None
    return {
        "name": name,
        "split": "test" if entry is None else "evaluate",
        "role": role,
        "margin": margin,
        "examples": len(data.held_out[name].examples),
        "fingerprint": data.facts["splits"][name]["fingerprint"],
        "headline": key_of(task.metrics[0]),
        "answer": task.answer,
        "pipeline_tag": task.pipeline_tag,
        "example_score": task.example_score,
        "metrics": [
            {"name": key_of(metric), "higher_is_better": metrics.load(metric).higher_is_better}
            for metric in task.metrics
        ],
        "majority": data.majority[name],
    }


def margin_of(entry: HeldOut | HarnessSet, metric: str | Metric) -> float:
    """Give what may be forgotten at most, in the metric's own unit."""
    point = metrics.load(metric).unit.point
    return (1.0 if entry.margin is None else entry.margin) * (1.0 if point is None else point)


def _library(recipe: Recipe, data: TaskData) -> str:
    """Name, as the hub does, the library that opens what a run of ``recipe`` saves: ours, where the model's class
    is."""
    return "finetune" if is_ours(data.task.architecture) else make_strategy(recipe.strategy).library


def _files(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Compute digests of the files that a recipe's data are read from, by where it names them; not of those on the
    hub, nor of those elsewhere of which nothing tells whether they are another's today."""
    further = {f"evaluate.{held_out.name}": held_out.data for held_out in recipe.evaluate}
    for at, source in {**recipe.data.sources, **further}.items():
        if source.remote:
            seals = [remote.seal for remote in remotes(source.place.file, at)]
            if None not in seals:
                yield at, text_digest(str(seals))
        elif source.kind != "hub":
            path, *more = resolve_paths(source.place.file, at)
            files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path, *more]
            # Of files that a pattern has found, names tell which was read first.
            names = [each.name if more else each.relative_to(path).as_posix() for each in files]
            yield at, text_digest(str([*zip(names, map(file_digest, files), strict=True)]))


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
    """Tabulate the held-out examples of ``task``: `example` (int64), `input`, `reference` and `group` (strings or
    null).

    Without ``texts`` there are no inputs, no references but :data:`NAMED` ones, and numbers for the names of clusters.
    """
    encoded = data.held_out[task]
    numbers, clusters = encoded.examples.numbers, _clusters(data, task)
    absent: list[str | None] = [None] * len(numbers)
    asked = data.task_of(task)
    inputs = asked.shown(data.tables[task], encoded) if texts else absent
    references = [example.reference for example in encoded.examples] if texts or asked.answer in NAMED else absent
    if clusters and not texts:
        places = {cluster: str(place) for place, cluster in enumerate(dict.fromkeys(clusters))}
        clusters = [places[cluster] for cluster in clusters]
    columns = {"input": inputs, "reference": references, "group": clusters or absent}
    cut = {name: [text and text[:MOST_CHARACTERS] for text in column] for name, column in columns.items()}
    strings = {name: pa.array(column, pa.string()) for name, column in cut.items()}
    if PORTION in data.tables[task].column_names and "portions" in data.facts:
        of = data.tables[task][PORTION]
        rows = range(len(numbers)) if encoded.rows is None else encoded.rows.tolist()
        strings[PORTION] = pa.array([of[row] for row in rows], pa.string())
    return pa.table({"example": pa.array(numbers, pa.int64()), **strings})


def _clusters(data: TaskData, task: str) -> list[str]:
    """What each held-out example belongs to; empty where each stands alone."""
    encoded, column = data.held_out[task], data.task_of(task).group
    rows = range(len(encoded.examples)) if encoded.rows is None else encoded.rows.tolist()
    if column is not None:
        values = list(data.tables[task][column])
        return [str(values[row]) for row in rows]
    # Pieces of one text belong together.
    return [f"row {row}" for row in rows] if len(set(rows)) < len(rows) else []


def with_former(folder: StudyDir, facts: dict[str, Any]) -> dict[str, Any]:
    """Add to ``facts`` what `data.json` has of held-out tasks that were scored in another call."""
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
        "libraries": former.get("libraries", {}) | facts["libraries"],
    }
