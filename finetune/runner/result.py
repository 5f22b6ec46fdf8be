"""The outcome of a study, and the line and the result of a run that has ended."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import FinetuneError, message_of
from finetune.core.run_dir import FAILED
from finetune.core.secrets import without_secrets
from finetune.metrics.function import key_of

if TYPE_CHECKING:  # results bring statistics, which take a third of a second to import
    from finetune.results.schema import CombinedResult, Results, RunResult


@dataclass(frozen=True)
class StudyOutcome:
    """The folder and the results of a study that has ended."""

    folder: Path
    results: Results
    speaks: bool = True
    """True in the one process that tells the person."""
    asked: Callable[[str, Any], bool] = lambda variant, seed: True
    """Whether a variant's run under a seed was asked for; of what was made of several runs there is none."""

    @property
    def failed(self) -> list[dict[str, Any]]:
        """List the runs that failed, each with its variant, seed, status and reason; combinations have a kind for a
        seed."""
        from finetune.results.schema import to_json

        made: list[tuple[str, RunResult | CombinedResult]] = []
        for variant in self.results.variants:
            made += [(variant.name, each) for each in variant.runs]
            made += [(variant.name, each) for each in variant.combined]
        failed = [{"variant": name, **to_json(each)} for name, each in made if each.status in FAILED]
        return [each for each in failed if self.asked(each["variant"], each.get("seed"))]

    @property
    def failed_baselines(self) -> list[dict[str, Any]]:
        """List the cheap baselines that failed, each with its name, status and reason."""
        each = [(made.name, run) for made in self.results.baselines for run in made.runs]
        return [
            {"name": name, "status": run.status, "reason": run.reason} for name, run in each if run.status in FAILED
        ]


def summary(title: str, result: dict[str, Any], headline: str) -> str:
    """Write one line on a run that has ended."""
    scores = ", ".join(
        f"{name} {value:.4g}" for name, value in result["scores"].items() if name.endswith(f"/{key_of(headline)}")
    )
    status = "" if result["status"] == "finished" else f" · {result['status']}: {result['reason']}"
    seconds = f" · {result['seconds']:.1f} s" if result["seconds"] is not None else ""
    return f"{title} · {scores or 'no scores'}{seconds}{status}"


def failure(opening: dict[str, Any], error: Exception) -> dict[str, Any]:
    """Make the result of what ended in an exception, which is written like any other; ``opening``: its first keys."""
    named = isinstance(error, FinetuneError) or not str(error).strip()  # by its own words, or by its type alone
    reason = message_of(error) if named else f"{type(error).__name__}: {error}"
    return {
        **opening,
        "status": "error",
        "reason": without_secrets(reason),
        "traceback": without_secrets("".join(traceback.format_exception(error))),
        "seconds": None,
        "phases": {},
        "peak_memory_bytes": None,
        "parameters": None,
        "scores": {},
    }
