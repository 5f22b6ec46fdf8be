"""Computes a study's cheap baselines, once: what was computed on the same examples stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.core.errors import InputError, StudyEnded
from finetune.core.run_dir import StudyDir, write_json
from finetune.core.runtime import make_deterministic
from finetune.runner.baselines import UntunedModel, in_words, opening, score_baseline
from finetune.runner.result import failure, summary
from finetune.runner.scoring import Scores
from finetune.runner.session import Session
from finetune.study.preflight import Preflight
from finetune.tasks.baselines.base import Baseline
from finetune.train.checkpoint import told_when_full

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe, Variant


@dataclass(frozen=True)
class Wanted:
    """A baseline that is still to be computed."""

    baseline: Baseline
    inputs: dict[str, Any]
    """What it comes from, as `result.json` says it: computed again only when that changes."""
    known: Scores
    """Its scores on held-out sets that are not scored now."""


def score_baselines(
    recipe: ResolvedRecipe,
    folder: StudyDir,
    found: Preflight,
    starts: Mapping[str, Any],
    open_session: Callable[[Variant, int, str], Session],
) -> Iterator[str]:
    """Compute the baselines of the recipe's first variant that are not there yet; yield a line on each.

    ``starts`` says by variant what its model is; ``open_session`` is given a variant, a seed and a title. One that
    fails gets a result with the reason, is tried again the next time, and ends nothing else. Raises Interrupted when
    asked to stop, and DiskFull; what was computed by then stays.
    """
    variant = recipe.variants[0]
    if variant.recipe.baselines.enabled and any(each.left_out for each in found.baselines):
        yield from in_words(found.baselines)
    wanted = pending(variant, folder, found, starts)
    if not wanted:
        return
    make_deterministic(variant.recipe.train.deterministic)
    session = open_session(variant, recipe.seeds[0], "baselines")
    untuned = UntunedModel(session)
    for each in session.runtime.track(wanted, "baselines"):
        result = _compute(each, variant, session, untuned, folder)
        yield summary(f"baseline {each.baseline.name}", result, variant.recipe.task.metrics[0])
    del untuned
    session.runtime.accelerator.free_memory()


def pending(variant: Variant, folder: StudyDir, found: Preflight, starts: Mapping[str, Any]) -> list[Wanted]:
    """List the baselines that are to be computed: those without a result, those that failed, and those that were
    computed on other examples, with other settings, or from another model."""
    data, wanted = found.data[variant.name], []
    splits = {name: data.facts["splits"][name]["fingerprint"] for name in ("train", *data.held_out)}
    for each in (planned.baseline for planned in found.baselines if planned.left_out is None):
        start = starts.get(variant.name) if each.needs_model else None
        inputs = {"splits": splits, "settings": each.settings, "start": start}
        result = folder.baseline(each.name).read_result() or {}
        former = result.get("inputs") or {"splits": {}}
        same = former == {**inputs, "splits": former["splits"]} and former["splits"].get("train") == splits["train"]
        if not same or not splits.items() <= former["splits"].items():
            everything = {**inputs, "splits": former["splits"] | splits} if same else inputs
            wanted.append(Wanted(each, everything, result["scores"] if same else {}))
    return wanted


def _compute(
    wanted: Wanted, variant: Variant, session: Session, untuned: UntunedModel, folder: StudyDir
) -> dict[str, Any]:
    """Compute one baseline and give its result, in all processes: what needs no model is left to the first."""
    runtime, given = session.runtime, (wanted, variant, session, untuned, folder)
    if not wanted.baseline.needs_model:
        return runtime.broadcast(_attempt(*given) if runtime.accelerator.is_main_process else None)
    result = _attempt(*given)
    runtime.accelerator.wait_for_everyone()
    return result


def _attempt(
    wanted: Wanted, variant: Variant, session: Session, untuned: UntunedModel, folder: StudyDir
) -> dict[str, Any]:
    """Compute one baseline; an exception inside becomes its result."""
    baseline, accelerator, place = wanted.baseline, session.runtime.accelerator, folder.baseline(wanted.baseline.name)
    digest = session.base.digest if baseline.needs_model else None
    begins = opening(baseline, variant, digest, wanted.inputs, wanted.known)
    try:
        with told_when_full(folder.path):
            if accelerator.is_main_process:
                place.result.unlink(missing_ok=True)  # of other examples, whose predictions are written over
            return score_baseline(baseline, session, untuned, place, begins, alone=not baseline.needs_model)
    except Exception as error:
        ends_all = isinstance(error, StudyEnded) and not isinstance(error, InputError)
        if ends_all or (baseline.needs_model and accelerator.num_processes > 1):
            raise  # where several take part, the others may be waiting for this one
        accelerator.free_memory()
        result = {**failure({**begins, "inputs": None}, error), "scores": wanted.known}
        write_json(place.result, result)
        return result
