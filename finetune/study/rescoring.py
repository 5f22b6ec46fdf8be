"""Scores the saved models of a study again: on its own held-out tasks, or on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune import recipe as recipes
from finetune.core.progress import Progress
from finetune.core.run_dir import StudyDir, write_json
from finetune.core.runtime import make_deterministic, open_runtime
from finetune.core.signals import stop_on_signals
from finetune.replicas.group import ReplicaGroup
from finetune.runner.build import sharded
from finetune.runner.resources import Resources
from finetune.runner.result import StudyOutcome, summary
from finetune.runner.run import score_untuned
from finetune.study.baselines import score_baselines
from finetune.study.claim import same_data
from finetune.study.environment import environment
from finetune.study.facts import data_facts, with_former, write_examples
from finetune.study.preflight import located, preflight
from finetune.study.provenance import agreed, rescored, same_arithmetic, same_provenance, same_weights, starts_of
from finetune.study.sharing import claim_of
from finetune.study.study import Study
from finetune.train.checkpoint import told_when_full

if TYPE_CHECKING:
    from finetune.recipe import Variant


def rescore(folder: Path, overrides: Sequence[str] = (), progress: Progress | None = None) -> StudyOutcome:
    """Score the saved models of a study again: on its own held-out tasks, or on those that ``overrides`` name.

    Cheap baselines are computed on held-out tasks where they are not there yet. Runs without a saved model keep the
    scores they have. Raises InputError, before any score is written, where the base models or the versions are not
    those that the study was made with.
    """
    place = StudyDir(folder).require()
    recipe = recipes.read_resolved(place.resolved, overrides)
    with (
        told_when_full(folder),
        located(recipe),
        same_arithmetic(recipe, place),
        progress or Progress() as shown,
        stop_on_signals(shown.say) as stop,
    ):
        resources = Resources(place.begun_on)
        found = preflight(recipe, resources)
        facts, first = data_facts(recipe, found), recipe.variants[0].recipe
        same_data(place, facts)
        runtime = agreed(recipe, open_runtime(*models.processor(first.model), shown, stop, folder))
        starts = starts_of(recipe, resources, runtime.device)
        now = environment(runtime, models.choose_dtype(first.model, runtime.device), resources.today, starts)
        kept, lines = same_provenance(place, now, recipe.mix)
        for line in lines:
            runtime.progress.say(line)
        study = Study.resume(recipe, place, resources, runtime, starts)
        variants = {variant.name: variant for variant in recipe.variants}
        staged = {(name, seed): study.staged(variants[name], seed) for name, seed in study.results}
        _same_weights(study, staged)
        for (name, seed), result in study.results.items():
            with study.claims.alone(claim_of(name, seed), "working at this run"):
                _rescore(study, staged[name, seed], seed, result)
        for variant in recipe.variants:
            study.combine(variant)
        _rescore_untuned(study)
        for line in score_baselines(recipe, place, found, starts, study.session):
            runtime.progress.say(line)
        if study.runtime.accelerator.is_main_process:
            write_json(place.data, with_former(place, facts))
            write_examples(place, recipe, found)
            write_json(place.environment, rescored(place, kept))
        return study.report()


def _same_weights(study: Study, staged: Mapping[tuple[str, int], Variant]) -> None:
    """Refuse runs that have started from other weights than there are now, before any of them is scored again."""
    for (name, seed), result in study.results.items():
        study.checked_session(staged[name, seed], seed, "", {seed: result})


def _rescore(study: Study, variant: Variant, seed: int, result: dict[str, Any]) -> None:
    """Score one finished run's saved model, and add the scores to its result."""
    folder = study.folder.run(variant.name, seed)
    title = f"{variant.name}, seed {seed}"
    if not folder.model.exists():
        study.runtime.progress.say(f"{title} · no saved model (train.save_model), scores kept as they are")
        return
    make_deterministic(variant.recipe.train.deterministic)
    session = study.session(variant, seed, title)
    built = session.build(study.recipe.streams(seed))
    built.restore(folder.model)
    [(scores, *_)] = session.score(
        ReplicaGroup(sharded(built.model, session.runtime)), [folder], [result.get("decision")]
    )
    result["scores"] |= scores
    if study.runtime.accelerator.is_main_process:
        write_json(folder.result, result)
    study.runtime.progress.say(summary(title, result, variant.recipe.task.metrics[0]))


def _rescore_untuned(study: Study) -> None:
    """Score the base model again, where the study has scored it."""
    former = study.folder.base.read_result()
    if former is None:
        return
    variant = study.recipe.variants[0]
    session = study.session(variant, study.recipe.seeds[0], "base model")
    same_weights(former, session.base.digest, "the untuned base model's score")
    score_untuned(variant, session, study.folder.base, former["scores"])
