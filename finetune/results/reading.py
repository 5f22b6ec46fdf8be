"""Reading a study's folder into plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from finetune.core.errors import Damaged, bad_input, did_you_mean, first_line
from finetune.core.numbers import NONE
from finetune.core.run_dir import BASE, RunDir, StudyDir, read_json, undamaged
from finetune.stats import fixed_test_overlap, own_test_overlap

TEXTS = ("prediction", "reference")
"""Columns of the prediction store that hold texts."""

TEST = "test"
"""The evaluation set that comes from the study's own data."""

UNFINISHED = "it has no result yet; the same command again resumes it"

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast, where PyYAML was built with libyaml."""


@dataclass(frozen=True)
class Run:
    """One run's folder; ``seed`` is None for the untuned base model, for baselines, and for what was made of several
    runs."""

    variant: str
    seed: int | None
    folder: RunDir
    result: dict[str, Any]
    """What stands in result.json; for a run that has none, the same keys with status `interrupted`."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Lines of metrics.jsonl, in order of steps."""

    @property
    def scores(self) -> dict[str, float]:
        """Give the value by "evaluation set/metric" of those scores that could be computed."""
        return {name: value for name, value in (self.result.get("scores") or {}).items() if value is not None}

    def stored(self, task: str) -> list[str]:
        """List the columns of the prediction store of an evaluation set; none where it is not stored."""
        path = self.folder.predictions(task)
        return _read_predictions(path, path.stat().st_mtime_ns).column_names if path.exists() else []

    def predictions(self, task: str, columns: Sequence[str], texts: Sequence[str] = ()) -> pa.Table | None:
        """Read ``columns`` of the prediction store of an evaluation set, in order of `example`; None: not stored.

        Those named in ``texts`` as well are dictionaries: each text once, and its place in every row.
        """
        path = self.folder.predictions(task)
        if not path.exists():
            return None
        table = _read_predictions(path, path.stat().st_mtime_ns).select(["example", *columns])
        for place, column in enumerate(table.columns):
            if pa.types.is_dictionary(column.type) and table.column_names[place] not in texts:
                table = table.set_column(place, table.column_names[place], column.cast(pa.string()))
        return table

    def example_scores(self, task: str, column: str = "score") -> NDArray[np.float64] | None:
        """Read per-example scores on an evaluation set in order of examples, shape (examples,); None: not stored."""
        table = self.predictions(task, [column])
        return None if table is None or table[column].null_count else table[column].to_numpy().astype(float)


def computed_on(environment: Mapping[str, Any]) -> str:
    """The device and the dtype that a study's environment names."""
    return ", ".join(str(environment[name]) for name in ("device", "dtype") if environment.get(name)) or NONE


@dataclass(frozen=True)
class Study:
    """Everything the report is made of."""

    name: str
    digest: str
    seeds: list[int]
    until: dict[str, Any] | None
    """The rule by which seeds were added, as the recipe has it; None where their number was fixed before."""
    vary: list[str]
    baseline: str | None
    """The variant that all others are compared with; None: all pairs are compared."""
    variants: dict[str, list[Run]]
    """Runs that have begun, by variant in the recipe's order, then by seed."""
    combined: dict[str, list[Run]]
    """What was made of a variant's runs together, by variant, then by name; without a seed."""
    base: Run | None
    baselines: dict[str, Run]
    """Cheap baselines by name, in the order in which their task lists them; without a seed. Those that are left out
    now, and why, are in `data` under `baselines`."""
    resolved: dict[str, Any]
    resolved_text: str
    recipe_text: str
    environment: dict[str, Any]
    data: dict[str, Any]
    folder: StudyDir
    exports: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Models that were taken away, by variant, in the order of time: fields of `ExportResult`."""

    @property
    def everything(self) -> dict[str, list[Run]]:
        """Runs by variant, then the untuned base model's one and those of cheap baselines, where they were scored."""
        base = {BASE: [self.base]} if self.base is not None else {}
        return self.variants | base | {name: [run] for name, run in self.baselines.items()}

    @property
    def computed_on(self) -> str:
        """The device, and the dtype of its arithmetic where that is known, beside which every time has to stand."""
        return computed_on(self.environment)

    @property
    def runs(self) -> list[Run]:
        """All tuned runs."""
        return [run for runs in self.variants.values() for run in runs]

    def own_rows(self, task: str) -> bool:
        """Tell whether each seed was scored on examples of its own: of a part that it split off itself, or of a file of
        which it drew as many as `limit` says."""
        if "split" not in self.vary:
            return False
        source = self._source(task)
        return source is None or source.get("limit") is not None

    def overlap(self, task: str) -> float:
        """How much less than new data the data of another seed are: what is added to 1 / runs; 0 where all runs have
        the same.

        What no seed learns from stays in the pool that seeds draw from, whether it is validated on or not used.
        """
        if "split" not in self.vary:
            return 0.0
        sizes = {name: facts["examples"] for name, facts in self.data.get("splits", {}).items()}
        train = self.data.get("distinct", sizes.get("train", 0))  # of a mixture, some are there more than once
        # Earlier versions do not say what was not used.
        carved = [name for name in ("validation", TEST) if self._data_options.get(name) is None]
        pool = self.data.get("pool", train + sum(sizes.get(name, 0) for name in carved))
        own_test = self._source(task) is None
        return own_test_overlap(train, sizes.get(TEST, 0), pool) if own_test else fixed_test_overlap(train, pool)

    def _source(self, task: str) -> dict[str, Any] | None:
        """The data of an evaluation set, as the recipe has them; None: it is a part of the training data."""
        named = {each["name"]: each["data"] for each in self._recipe.get("evaluate", [])}
        return named.get(task, self._data_options.get(TEST) if task == TEST else {})

    @property
    def _recipe(self) -> dict[str, Any]:
        """The first variant's recipe: data are the same in all."""
        recipe: dict[str, Any] = next(iter(self.resolved["variants"].values()))["recipe"]
        return recipe

    @property
    def _data_options(self) -> dict[str, Any]:
        options: dict[str, Any] = self._recipe.get("data", {})
        return options

    def facts(self, task: str) -> dict[str, Any]:
        """Read what `data.json` says of an evaluation set; empty where it does not know it."""
        return next((each for each in self.data.get("tasks", []) if each["name"] == task), {})

    def examples(self, task: str) -> pa.Table | None:
        """Read the held-out `example`, `input`, `reference` and `group`, in order of `example`; None: not stored."""
        path = self.folder.examples(task)
        if not path.exists():
            return None
        with undamaged(path):
            return pq.ParquetFile(path).read().sort_by("example")

    def clusters(self, task: str) -> NDArray[np.int64] | None:
        """Give the cluster of each example, numbered from 0: (examples,) in their order; None where there are none."""
        table = self.examples(task)
        if table is None or table["group"].null_count:
            return None
        return table["group"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def is_mean(matrix: NDArray[np.float64], scores: list[float | None]) -> bool:
    """Tell whether ``scores`` (runs,) are the means of per-example scores (runs, examples).

    Which metrics are such is seen from the numbers and not from a list, so that a new one needs no entry here.
    """
    return None not in scores and np.allclose(matrix.mean(axis=1), np.array(scores, dtype=float), rtol=0, atol=1e-6)


@lru_cache(maxsize=256)  # about as many as a task has, whose statistics all begin with its predictions
def _read_predictions(path: Path, written: int) -> pa.Table:
    """A prediction store in order of `example`; ``written`` tells it from what stood there before."""
    # Not `read_table`, which takes `key=value` folders above the file for columns.
    with undamaged(path):
        table = (
            pq.ParquetFile(path, read_dictionary=list(TEXTS), page_checksum_verification=True)
            .read()
            .unify_dictionaries()
        )
    ordered = bool((np.diff(table["example"].to_numpy()) > 0).all())  # as nearly all are, and sorting copies
    return table if ordered else table.sort_by("example")


def read_study(path: Path, baseline: str | None = None) -> Study:
    """Read the study in ``path``; ``baseline`` takes the place of the recipe's.

    Raises InputError when it is no study's folder, and when there is no variant that ``baseline`` names.
    """
    folder = StudyDir(path).require()
    resolved_text, resolved = _read_resolved(folder.resolved)
    until = resolved["seeds"] if isinstance(resolved["seeds"], dict) else None
    seeds = list(range(max(until["at_least"], folder.begun(resolved["variants"])))) if until else resolved["seeds"]
    data = read_json(folder.data) if folder.data.exists() else {}
    return Study(
        name=resolved["name"],
        digest=resolved["digest"],
        seeds=seeds,
        until=until,
        vary=resolved.get("vary", []),
        baseline=_baseline(resolved["variants"], baseline),
        variants={
            name: [_read_run(run, name, seed) for seed in seeds if (run := folder.run(name, seed)).path.is_dir()]
            for name in resolved["variants"]
        },
        combined={
            name: [_read_run(run, name, None) for run in folder.all_combined(name)] for name in resolved["variants"]
        },
        base=_read_run(folder.base, BASE, None) if folder.base.result.exists() else None,
        baselines=_read_baselines(folder, data.get("baselines", [])),
        resolved=resolved,
        resolved_text=resolved_text,
        recipe_text=folder.recipe.read_text(encoding="utf-8") if folder.recipe.exists() else "",
        environment=read_json(folder.environment) if folder.environment.exists() else {},
        data=data,
        folder=folder,
        exports=read_json(folder.exports)["variants"] if folder.exports.exists() else {},
    )


def _read_resolved(path: Path) -> tuple[str, dict[str, Any]]:
    """Read the recipe of a study, as text and as plain values."""
    with undamaged(path):
        text = path.read_text(encoding="utf-8")
    try:
        said = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise Damaged(path, first_line(error)) from error
    if not isinstance(said, dict) or {"name", "digest", "seeds", "variants"} - said.keys() or not said["variants"]:
        raise Damaged(path, "it is not the whole resolved recipe of a study")
    return text, said


def _baseline(variants: dict[str, Any], wanted: str | None) -> str | None:
    if wanted is not None and wanted not in variants:
        raise bad_input(None, f"there is no variant called '{wanted}'", did_you_mean(wanted, list(variants)))
    first = next(iter(variants.values()))["recipe"]
    said: str | None = (first.get("scoring") or {}).get("baseline")
    return wanted or (said if said in variants else None)  # a diagnosis takes one variant out of its recipe


def _read_baselines(folder: StudyDir, listed: Sequence[Mapping[str, Any]]) -> dict[str, Run]:
    """Read the baselines that have a result, but for those that are ``listed`` as left out."""
    order = [each["name"] for each in listed]
    left_out = {each["name"] for each in listed if each["left_out"] is not None}
    found = {each.path.name: _read_run(each, each.path.name, None) for each in folder.all_baselines()}
    ordered = sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name: found[name] for name in ordered if name not in left_out}


def _read_run(folder: RunDir, variant: str, seed: int | None) -> Run:
    result = folder.read_result() or {"status": "interrupted", "reason": UNFINISHED}
    rows = _read_metrics(folder.metrics)
    if result["status"] in ("finished", "degenerate") and folder.metrics.exists():
        logged, steps = max((row["step"] for row in rows), default=0), (result.get("training") or {}).get("steps") or 0
        if logged < steps:
            raise Damaged(folder.metrics, f"it ends with step {logged} of {steps}")
    return Run(variant, seed, folder, result, rows)


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl. A killed run may leave half a last line, and a resumed one repeat steps."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    with undamaged(path):
        records = [json.loads(line) for line in lines[:-1] if line.strip()]  # what follows the last newline is cut off
    latest = {(record["kind"], record["step"]): record for record in records}
    return sorted(latest.values(), key=lambda record: record["step"])
