"""Files of a study on disk: where each lies, and how it is written so that a crash leaves the old one or the new one.

runs/<study>/
  recipe.yaml  resolved.yaml  environment.json  data.json
  diagnosis.json                           what `finetune diagnose` has found, beside the runs of its design
  exports.json                             what was taken away, and the digests of its certificates
  speed.json                               how many seeds are trained side by side, as measured
  examples/<task>.parquet                  what is held out: example, input, reference, group
  <variant>/seed-<n>/result.json           written last: its presence means done
                     metrics.jsonl
                     predictions/<task>.parquet
                     checkpoints/  model/
  <variant>/soup-uniform/  soup-greedy/    made of the seeds' models: a result, predictions and a model
            ensemble/                      made of the seeds' predictions
  stages/<name>-<digest>/result.json       training that precedes the task's own; model/ is what comes out
  base/result.json  base/predictions/...   the untuned base model, where scoring it means something
  baselines/<name>/result.json             cheap answers to the same examples, once for the study
                   predictions/<task>.parquet
  launch/launch.json                       how the study was launched, beside batch scripts, and logs/
  .locks/                                  what processes at work on the study have claimed; nothing when none is
  report/index.html  report.md  model-card.md  results.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from finetune.core.errors import Damaged, bad_input, first_line

FORMAT = 1
"""Version of every JSON file written here."""

RESULTS_FORMAT = 2
"""Version of `report/results.json`."""

FAILED = ("degenerate", "diverged", "error")
"""Statuses of a run that count as failures."""

FINAL = ("finished", "degenerate", "diverged")
"""Statuses that running again would only repeat; an `error` may have had a cause outside, and is tried again."""

LAUNCH = "launch"
"""The folder of what `finetune launch` has written, which may be there before the study is begun."""

BASE = "base"
"""The folder, and the variant name, of the untuned base model."""

BASELINES = "baselines"
"""The folder of cheap baselines, which has a folder for each."""


def unfit(result: Mapping[str, Any]) -> str | None:
    """Say of a run's ``result`` why nobody could use its model; None where one can, also where it learnt too little."""
    status = result.get("status")
    if status == "interrupted":
        return "is not finished"
    if status in FAILED and status != "degenerate":
        return f"has failed: {status}: {result.get('reason')}"
    return None


@contextmanager
def not_for_all_to_write() -> Iterator[None]:
    """Within the context, nobody but its owner, and the group where the umask says so, can write what is made."""
    former = os.umask(0o022)
    os.umask(former | 0o002)
    try:
        yield
    finally:
        os.umask(former)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place, flushed to disk, when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Let a file, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, because JSON has no word for them."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Within the context ``path`` is read. Raises :class:`Damaged` where it is not what was written."""
    try:
        yield
    except (ValueError, OSError) as error:  # what JSON, text and Arrow raise
        if getattr(error, "errno", None) is not None:  # the system's own
            raise
        raise Damaged(path, first_line(error)) from error


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises :class:`Damaged` where it is none, such as one that was cut short."""
    with undamaged(path):
        return json.loads(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class RunDir:
    """The folder of one run: one variant under one seed (or the base model, which has no seed)."""

    path: Path

    @property
    def variant(self) -> str:
        """Give the name of the variant that is trained there, or the folder's own where it is no seed's."""
        return self.path.name if self.seed is None else self.path.parent.name

    @property
    def seed(self) -> int | None:
        """The seed that the folder's name says; None: it has none."""
        word, _, number = self.path.name.partition("-")
        return int(number) if word == "seed" and number.isdecimal() else None

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def before(self) -> RunDir:
        """Give the folder of what was trained before the run's own strategy."""
        return RunDir(self.path / "before")

    def predictions(self, task: str) -> Path:
        return self.path / "predictions" / f"{task}.parquet"

    def read_result(self) -> dict[str, Any] | None:
        """The run's result, or None when it has not ended, or is tried again."""
        try:
            return read_json(self.result)
        except (FileNotFoundError, NotADirectoryError):
            return None


@dataclass(frozen=True)
class StudyDir:
    """The folder of one study."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def resolved(self) -> Path:
        return self.path / "resolved.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def begun_on(self) -> date | None:
        """The day on which the study was begun; None where it has not been, or does not say."""
        said = read_json(self.environment).get("date") if self.environment.exists() else None
        return said and date.fromisoformat(said)

    @property
    def data(self) -> Path:
        return self.path / "data.json"

    @property
    def diagnosis(self) -> Path:
        return self.path / "diagnosis.json"

    @property
    def exports(self) -> Path:
        return self.path / "exports.json"

    @property
    def speed(self) -> Path:
        return self.path / "speed.json"

    def examples(self, task: str) -> Path:
        return self.path / "examples" / f"{task}.parquet"

    @property
    def launch(self) -> Path:
        return self.path / LAUNCH

    @property
    def stages(self) -> Path:
        return self.path / "stages"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def base(self) -> RunDir:
        return RunDir(self.path / BASE)

    def baseline(self, name: str) -> RunDir:
        """Give the folder of a cheap baseline, which has no seed."""
        return RunDir(self.path / BASELINES / name)

    def all_baselines(self) -> list[RunDir]:
        """Find every cheap baseline that has a result."""
        return [RunDir(path.parent) for path in sorted((self.path / BASELINES).glob("*/result.json"))]

    def run(self, variant: str, seed: int) -> RunDir:
        return RunDir(self.path / variant / f"seed-{seed}")

    def begun(self, variants: Iterable[str]) -> int:
        """Count the seeds 0, 1, 2, ... that have begun without a gap, each in any of the variants."""
        names = list(variants)
        return next(seed for seed in count() if not any(self.run(name, seed).path.is_dir() for name in names))

    def combined(self, variant: str, kind: str) -> RunDir:
        """Give the folder of what is made of a variant's runs together, such as a soup."""
        return RunDir(self.path / variant / kind)

    def all_combined(self, variant: str) -> list[RunDir]:
        """Find everything that has been made of a variant's runs together."""
        results = sorted((self.path / variant).glob("*/result.json"))
        return [RunDir(path.parent) for path in results if not path.parent.name.startswith("seed-")]

    def require(self) -> StudyDir:
        """Give this folder back; raise InputError when it is not that of a study."""
        if not self.resolved.exists():
            raise bad_input(
                None,
                f"{self.path} is not a study: it has no {self.resolved.name}",
                "give the folder that `finetune run` wrote, such as runs/NAME",
            )
        return self
