"""A model card in the hub's format, for the variant with the best mean: the report's numbers, for people and machines.

The metadata follow https://github.com/huggingface/hub-docs/blob/main/modelcard.md: `model-index` lists each metric's
mean over seeds, in the metric's own unit as in results.json, and its `args` say of how many seeds, and how sure.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import yaml

from finetune.core.numbers import NONE, count, memory, seconds, share, short_count
from finetune.metrics import find, unit
from finetune.report.blocks import Block, Bullets, Cell, Code, Column, Fold, Table, Text
from finetune.report.markdown import blocks, escape
from finetune.report.sections import methods
from finetune.results.measure import SOLVED_METHOD
from finetune.results.reading import Study
from finetune.results.schema import EvaluationSet, Results, VariantResult
from finetune.results.verdict import verdict_of

HUB = "hub:"

OLDER_TAGS = {"classification": "text-classification"}
OLDER_LIBRARIES = {"adapter": "peft", "adaptive": "transformers", "full": "transformers"}
"""For studies whose `data.json` does not say it yet: what a task's models do (above), and what opens them."""

SURE = ("ci", "ci_seeds", "prediction", "level", "method", "sd", "sd_ci", "sd_floor", "sd_corrected", "sd_corrected_ci")
"""What of an estimate stands in the metadata."""

_HUB_ID = re.compile(r"[\w-][\w.-]*(?:/[\w.-]+)?(?:@[\w./-]+)?")

INTRO = (
    "Each mean is over those seeds of the same recipe whose run did not fail. Its 95 % interval says where it would "
    "lie with endless seeds and examples like these. “One more run” is where the score of one new run on these same "
    "examples would lie, if it does not fail. A published checkpoint is one of the seeds: its own scores stand "
    "under “Each seed”."
)


class Body(NamedTuple):
    """The parts of a card below its metadata, in Markdown."""

    title: str
    origin: str
    """What it was made from, by which study."""
    verdict: list[str]
    sections: list[str]
    """Results over seeds, training and data, each with its heading."""


def render(study: Study, results: Results, variant: VariantResult) -> str:
    """The card of ``variant``, one of the results' variants."""
    data = yaml.safe_dump(metadata(study, results, variant), sort_keys=False, allow_unicode=True, width=10_000)
    found = body(study, results, variant)
    paragraphs = [found.title, found.origin, *found.verdict, *found.sections]
    return f"---\n{data}---\n\n" + "\n\n".join(paragraphs) + "\n"


def body(study: Study, results: Results, variant: VariantResult, in_sds: bool = True) -> Body:
    """What the card of ``variant`` says in words and tables; ``in_sds``: whether numbers that its model gives are in
    SDs from the training mean."""
    source = _recipe(study, variant).get("model", {}).get("source", "a pretrained model")
    start = escape(source if hub_id(source) else _short(source))
    verdict = verdict_of(results)
    sections = [
        "## Results",
        *blocks([Text(INTRO), _score_table(results, variant)]),
        "## Each seed",
        *blocks([_seed_table(results, variant)]),
        "## Training and data",
        *blocks([_training(study, variant, in_sds), _data_table(study), *_folds(study, results)]),
    ]
    return Body(
        f"# {escape(_name(study, variant))}",
        f"Fine-tuned with finetune from {start}: variant **{escape(variant.name)}** of the study "
        f"{escape(study.name)} ({escape(study.digest[:12])}), strategy {escape(variant.strategy)}.",
        [f"**{escape(verdict.word)}.** {escape(verdict.sentence)}", *(escape(each) for each in verdict.remarks)],
        sections,
    )


def metadata(study: Study, results: Results, variant: VariantResult) -> dict[str, Any]:
    """Collect what stands between the card's dashes, as plain values."""
    recipe = _recipe(study, variant)
    source = recipe.get("model", {}).get("source", "")
    held_out = [_held_out(study, recipe, task) for task in results.tasks]
    trained_on = [str(each.get("path", "")) for each in _sources(recipe)]
    found = {
        "base_model": hub_id(source),
        "library_name": _library(study, variant),
        "pipeline_tag": next((_hub_task(study, recipe, task)["type"] for task in results.tasks), None),
        "tags": ["finetune", variant.strategy],
        "datasets": [_data_name(path) for path in trained_on if path.startswith(HUB)] or None,
        "metrics": list(dict.fromkeys(_hub_metric(m.name)["type"] for t in results.tasks for m in t.metrics)),
        "model-index": [
            {
                "name": _name(study, variant),
                "results": [
                    {"task": _hub_task(study, recipe, task), "dataset": data, "metrics": metrics}
                    for task, data in zip(results.tasks, held_out, strict=True)
                    if (metrics := _metrics(variant, task))
                ],
            }
        ],
    }
    plain = json.loads(json.dumps(found))  # NumPy's floats become Python's
    return {key: value for key, value in plain.items() if value is not None}


def _sources(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """List what the training examples are read from."""
    train = recipe.get("data", {}).get("train") or {}
    return train if isinstance(train, list) else [train]


def hub_id(source: str) -> str | None:
    """The id on the hub that a model's ``source`` names, without its revision; None for a file, folder or package."""
    return source.partition("@")[0] if _HUB_ID.fullmatch(source) and not source.endswith(".gguf") else None


def _data_name(source: str) -> str:
    return source.removeprefix(HUB).partition("@")[0] if source.startswith(HUB) else _short(source)


def _short(source: str) -> str:
    """A path without the folders above it, which are nobody else's business."""
    return source if source.startswith("package:") else source.rstrip("/").rpartition("/")[2]


def _name(study: Study, variant: VariantResult) -> str:
    return f"{study.name}-{variant.name}"


def _recipe(study: Study, variant: VariantResult) -> dict[str, Any]:
    return study.resolved["variants"][variant.name]["recipe"]


def _library(study: Study, variant: VariantResult) -> str | None:
    """Name the library that opens a saved run; None where that is not known."""
    older = None if variant.pooling else OLDER_LIBRARIES.get(variant.strategy)
    return study.data.get("libraries", {}).get(variant.name, older)


def _hub_task(study: Study, recipe: dict[str, Any], task: EvaluationSet) -> dict[str, str]:
    older = OLDER_TAGS.get(recipe.get("task", {}).get("type", ""), "text-generation")
    return {"type": study.facts(task.name).get("pipeline_tag", older), "name": task.name}


def _hub_metric(name: str) -> dict[str, Any]:
    metric = find(name)
    return {"type": name, **({} if metric is None else metric.hub)}


def _held_out(study: Study, recipe: dict[str, Any], task: EvaluationSet) -> dict[str, Any]:
    """Describe the data of an evaluation set. The hub wants a type: its id there, or else the file's name."""
    named = [other["data"] for other in recipe.get("evaluate", []) if other["name"] == task.name]
    own = recipe.get("data", {})
    options = (named or [own.get(task.split) or next(iter(_sources(recipe)), {})])[0]
    facts = study.facts(task.name)
    split = study.data.get("splits", {}).get(task.split, {})
    name = _data_name(str(options.get("path") or split.get("source") or task.name))
    more = {"config": options.get("subset"), "split": task.split}
    args = {"examples": task.examples, "fingerprint": facts.get("fingerprint")}
    known = {"name": name, "type": name, **more, "args": {key: value for key, value in args.items() if value}}
    return {key: value for key, value in known.items() if value is not None}


def _metrics(variant: VariantResult, task: EvaluationSet) -> list[dict[str, Any]]:
    """List the entries of one evaluation set, those that could be computed."""
    entries = []
    for metric in task.metrics:
        found, shown = variant.estimates[task.key_of(metric.name)], unit(metric.name)
        if not found.n:
            continue
        known, n = _hub_metric(metric.name), found.n
        interval = f" {shown.interval(found.ci)}" if found.ci else ""
        sure = {"seeds": n, **{key: value for key in SURE if (value := getattr(found, key)) is not None}}
        one = SOLVED_METHOD if found.method == SOLVED_METHOD else "one seed"
        name = f"{shown.label}, {f'mean of {n} seeds' if n > 1 else one}{interval}"
        entry = {"type": known["type"], "value": found.mean, "name": name}
        entries.append({**entry, **known, "args": {**known.get("args", {}), **sure}})
    return entries


def _score_table(results: Results, variant: VariantResult) -> Table:
    columns = [
        Column("task", numeric=False),
        Column("metric", numeric=False),
        Column("mean"),
        Column("95 % interval"),
        Column("one more run"),
    ]
    columns += [Column("SD"), Column("seeds"), Column("untuned base")]
    base = next((other for other in results.variants if other.is_base), None)
    rows = []
    for task in results.tasks:
        for metric in task.metrics:
            key, shown = task.key_of(metric.name), unit(metric.name)
            found = variant.estimates[key]
            cells = [shown.number(found.mean), shown.interval(found.ci), shown.interval(found.prediction)]
            cells += [shown.number(found.sd, more=1)]
            alike = found.method == SOLVED_METHOD
            cells += [
                f"{len(variant.runs)}, all alike" if alike else count(found.n),
                shown.number(base.estimates[key].mean if base else None),
            ]
            heading = f"{shown.heading}, {'higher' if metric.higher_is_better else 'lower'} is better"
            rows.append([Cell(task.name), Cell(heading), *map(Cell, cells)])
    return Table(columns, rows)


def _seed_table(results: Results, variant: VariantResult) -> Table:
    """Every run's headline scores, which tell a published checkpoint from the mean."""
    headlines = [(task.name, task.metric) for task in results.tasks]
    columns = [Column("seed"), Column("status", numeric=False)]
    columns += [Column(f"{unit(metric).heading} on {task}") for task, metric in headlines]
    rows = []
    for run in variant.runs:
        scores = [unit(metric).number(run.scores.get(f"{task}/{metric}")) for task, metric in headlines]
        status = f"{run.status}: {run.reason}" if run.reason else run.status
        rows.append([Cell(str(run.seed)), Cell(status), *map(Cell, scores)])
    return Table(columns, rows)


def _training(study: Study, variant: VariantResult, in_sds: bool) -> Bullets:
    size, runs = variant.parameters, variant.runs
    trained = short_count(None if size is None else size.trainable)
    if size is not None and size.total:
        trained += f" of {short_count(size.total)}, {share(size.trainable, size.total)}"
    times = [run.seconds for run in runs if run.seconds]
    peaks = [run.peak_memory_bytes for run in runs if run.peak_memory_bytes]
    failures = variant.failures
    solved = any(found.method == SOLVED_METHOD for found in variant.estimates.values())
    limit = "" if failures.limit is None or solved else f" (of new ones up to {share(failures.limit, 1)} could fail)"
    items = [
        ("Parameters trained", trained),
        ("What varied between seeds", ", ".join(study.vary) or "nothing"),
        ("Failed runs", f"{failures.count} of {failures.n}{limit}"),
        ("Stability", f"{variant.stability}: {variant.stability_reason}"),
        ("Time of a run", seconds(sum(times) / len(times)) if times else NONE),
        ("Peak memory", memory(max(peaks, default=None))),
        ("Device", study.computed_on),
    ]
    learnt = study.data.get("splits", {}).get("train", {}).get("facts", {}).get("numbers")
    if learnt and in_sds:
        how = f"{learnt['mean']:.6g} + {learnt['sd']:.6g} × output: target_mean and target_sd of the configuration"
        items.append(("Output", f"in SDs from the training mean, so that the number is {how}"))
    return Bullets(items)


def _data_table(study: Study) -> Table:
    columns = [Column("split", numeric=False), Column("examples"), Column("source", numeric=False)]
    columns += [Column("fingerprint", numeric=False)]
    rows = [
        [
            Cell(name),
            Cell(count(split["examples"])),
            Cell(_data_name(str(split["source"]))),
            Cell(split["fingerprint"][:12]),
        ]
        for name, split in study.data.get("splits", {}).items()
    ]
    return Table(columns, rows)


def _folds(study: Study, results: Results) -> list[Block]:
    folds: list[Block] = [Fold("How each number was computed", [*methods.sections(study, results)[0].blocks])]
    return [Fold("The recipe", [Code(study.recipe_text)]), *folds] if study.recipe_text else folds
