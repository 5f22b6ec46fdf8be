"""`finetune diagnose`: a crossed design says what a spread comes from, one change is named, and tried on fresh seeds.

Both are studies like any other, in folders of their own, so that they resume and have a report:
`<study>-<variant>-diagnosis`, whose seeds spell a level for each source, and `<study>-<variant>-trial`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.digests import text_digest
from finetune.core.errors import FinetuneError, InputError, bad_input, did_you_mean
from finetune.core.progress import Progress
from finetune.core.randomness import STREAMS, to_digits
from finetune.core.run_dir import FAILED, FORMAT, StudyDir, write_json
from finetune.core.runtime import open_runtime
from finetune.core.signals import stop_on_signals
from finetune.diagnose.remedies import (
    ADVICE,
    NONE_FITS,
    Cause,
    Changes,
    Remedy,
    TrialArm,
    candidates,
    find_cause,
    judged,
)
from finetune.diagnose.sources import find_sources
from finetune.evaluate.options import BaselineOptions
from finetune.metrics import unit
from finetune.models import processor
from finetune.recipe.resolve import Variant, digest_of
from finetune.recipe.yaml_text import one_line
from finetune.results.reading import Run, Study, read_study
from finetune.results.schema import EvaluationSet
from finetune.results.variant_scores import contributions, variant_scores
from finetune.runner.build import make_mitigations
from finetune.runner.resources import Resources
from finetune.runner.result import StudyOutcome
from finetune.stats.components import Decomposition, decompose, orthogonal_array, spare
from finetune.stats.multibootstrap import by_cluster
from finetune.study.preflight import located, preflight
from finetune.study.provenance import agreed, same_arithmetic
from finetune.study.running import run_study

if TYPE_CHECKING:
    from finetune.recipe import Recipe, ResolvedRecipe

LEVELS = {9: 3, 16: 4, 25: 5}
"""By number of runs, how many levels each source has."""

FRESH = 100
"""The first seed of a trial: above every level, and above the seeds that studies usually have."""

FEWEST = 6
"""Seeds of a trial: with fewer, no exact test of pairs can reach 0.05."""


@dataclass
class Diagnosis:
    """The findings of a crossed design, and the study that tries the remedy it names."""

    folder: StudyDir
    content: dict[str, Any]
    """Of `diagnosis.json`."""
    outcomes: list[StudyOutcome]
    trial: ResolvedRecipe | None = None
    """None where there is nothing to try."""

    @property
    def speaks(self) -> bool:
        """Tell whether this process is the one that speaks to the person."""
        return self.outcomes[0].speaks

    @property
    def failed(self) -> list[dict[str, Any]]:
        """List the runs that failed, of the design and the trial."""
        return [run for outcome in self.outcomes for run in outcome.failed]

    def write(self) -> None:
        """Write `diagnosis.json`, which the report of the design shows when it is made again."""
        if self.speaks:
            write_json(self.folder.diagnosis, self.content)


def diagnose(
    recipe: ResolvedRecipe,
    output: Path,
    variant: str | None = None,
    runs: int | None = None,
    sources: Sequence[str] = (),
    overrides: Sequence[str] = (),
    new_progress: Callable[[], Progress] = Progress,
) -> Diagnosis:
    """Run the design of one variant (by default the first), decompose its spread, and name a change to try.

    ``sources``: those to cross; by default all that matter in this recipe. ``overrides`` are those that ``recipe`` was
    loaded with. Raises InputError before anything has started, and Interrupted: the same call resumes.
    """
    chosen = _chosen(recipe, variant)
    folder = StudyDir(output / f"{recipe.name}-{chosen.name}-diagnosis")
    found = _sources(recipe, chosen, output, sources, new_progress)
    crossed = [stream for stream in STREAMS if found[stream] is None]
    levels = _levels(crossed, found, runs)
    outcome = run_study(_design(recipe, chosen, folder.path, crossed, levels), output, new_progress())
    study = read_study(folder.path)
    task = study.data["tasks"][0]
    decomposition, reason = _decomposed(study, task, chosen.recipe, crossed)
    cause = find_cause(len(outcome.failed), levels**2, decomposition, unit(task["headline"]).point)
    if cause is None or any(run["status"] == "error" for run in outcome.failed):
        raise FinetuneError(
            f"nothing can be said yet: {reason}; see {folder.report / 'index.html'}, and diagnose again"
        )
    content: dict[str, Any] = {
        "format": FORMAT,
        "study": recipe.name,
        "variant": chosen.name,
        "task": task["name"],
        "metric": task["headline"],
        "runs": levels**2,
        "levels": levels,
        "left_out": {stream: why for stream, why in found.items() if why is not None},
        "failed": len(outcome.failed),
        "decomposition": decomposition and decomposition.facts(),
        "reason": reason,
        "cause": asdict(cause),
        "cure": None,
        "refused": {},
        "advice": ADVICE.get(cause.name, NONE_FITS),
        "trial": None,
    }
    varied = [stream for stream in STREAMS if stream in (*crossed, "noise") and stream != "split"]
    trial = _prescribed(recipe, chosen, cause, overrides, varied, content)
    diagnosis = Diagnosis(folder, content, [outcome], trial)
    diagnosis.write()
    return diagnosis


def try_remedy(
    diagnosis: Diagnosis, output: Path, seeds: int, new_progress: Callable[[], Progress] = Progress
) -> dict[str, Any]:
    """Train the variant as it is and with the change, under ``seeds`` fresh seeds each, and add what comes of it."""
    assert diagnosis.trial is not None and seeds >= FEWEST
    recipe = replace(diagnosis.trial, seeds=list(range(FRESH, FRESH + seeds)))
    outcome = run_study(recipe, output, new_progress())
    task = outcome.results.tasks[0]
    study = read_study(outcome.folder)
    before, after = (_tried(runs, task) for runs in study.variants.values())
    clusters, cause = study.clusters(task.name), diagnosis.content["cause"]["name"]
    found = judged(before, after, cause, task.higher_is_better, clusters)
    diagnosis.content["trial"] = {"study": str(outcome.folder), "seeds": recipe.seeds, **found}
    diagnosis.outcomes.append(outcome)
    diagnosis.write()
    return found


def _tried(runs: Sequence[Run], task: EvaluationSet) -> TrialArm:
    """Collect the scores and failures of a variant's runs under fresh seeds."""
    failed = {run.seed: run.result["status"] in FAILED for run in runs if run.seed is not None}
    return TrialArm(variant_scores(runs, task.name, task.metric), failed)


def _chosen(recipe: ResolvedRecipe, name: str | None) -> Variant:
    """The variant of that name, or the first."""
    names = [variant.name for variant in recipe.variants]
    if name is not None and name not in names:
        raise bad_input(None, f"there is no variant called '{name}'", did_you_mean(name, names))
    return recipe.variants[names.index(name) if name is not None else 0]


def _bare(variant: Variant, vary: Sequence[str], name: str | None = None, digest: str = "") -> Variant:
    """The variant as its runs are trained: nothing is made of them afterwards or set beside them, and no model is
    kept."""
    recipe = variant.recipe
    working = zip(recipe.mitigations, make_mitigations(recipe.mitigations), strict=True)
    changes = {
        "mitigations": [options for options, mitigation in working if mitigation.combines is None],
        "train": recipe.train.model_copy(update={"save_model": False}),
        "vary": list(vary),
        "baselines": BaselineOptions(enabled=False),
    }
    bare = recipe.model_copy(update=changes)
    return Variant(name or variant.name, bare, text_digest(digest + digest_of(bare))[:16])


def _sources(
    recipe: ResolvedRecipe, chosen: Variant, cache: Path, wanted: Sequence[str], new_progress: Callable[[], Progress]
) -> dict[Any, str | None]:
    """Tell by stream why it is not crossed; None where it is."""
    unknown = [name for name in wanted if name not in STREAMS]
    if unknown:
        raise bad_input(None, f"there is no source called '{unknown[0]}'", did_you_mean(unknown[0], STREAMS))
    one = _bare(chosen, chosen.recipe.vary)
    alone, nowhere = replace(recipe, variants=[one]), StudyDir(cache)
    with (
        located(recipe),
        same_arithmetic(alone, nowhere),
        new_progress() as progress,
        stop_on_signals(progress.say) as stop,
    ):
        resources = Resources()
        preflight(alone, resources)
        runtime = agreed(alone, open_runtime(*processor(one.recipe.model), progress, stop, cache))
        found: dict[Any, str | None] = dict(find_sources(one.recipe, resources, runtime))
        silent = [name for name in wanted if found[name] is not None]
        if silent:
            raise bad_input(None, f"'{silent[0]}' is not random here: {found[silent[0]]}", "leave it out of --sources")
        found |= {stream: "it was not asked for" for stream in STREAMS if wanted and stream not in wanted}
        named = [stream for stream in STREAMS if found[stream] is None]
        runtime.progress.say(f"{chosen.name} · random here: {', '.join(named) or 'nothing'}")
        return found


def _levels(crossed: Sequence[str], found: dict[Any, str | None], runs: int | None) -> int:
    """Choose how many levels each source has; refuse ``runs`` with which sources cannot be told apart."""
    if len(crossed) < 2:
        why = "; ".join(f"{stream}: {reason}" for stream, reason in found.items() if reason)
        told = f"only {crossed[0]} is random here" if crossed else "nothing is random here"
        advice = "`finetune run` shows its spread, all of which it causes" if crossed else "more seeds repeat one run"
        raise bad_input(None, f"{told}, so there is nothing to tell apart ({why})", advice)
    fitting = [count for count, levels in LEVELS.items() if spare(levels, len(crossed)) > 0]
    if runs is None:
        return LEVELS[max(16, fitting[0])]
    if runs not in fitting:
        found_ = f"{runs} runs cannot tell {len(crossed)} sources and their interactions apart ({', '.join(crossed)})"
        raise bad_input(None, found_, f"write --runs {fitting[0]}, or name fewer sources with --sources")
    return LEVELS[runs]


def _design(
    recipe: ResolvedRecipe, chosen: Variant, place: Path, crossed: Sequence[str], levels: int
) -> ResolvedRecipe:
    """The study whose seeds spell the rows of an orthogonal array, levels counted from 1."""
    rows = 1 + orthogonal_array(levels, len(crossed))
    seeds = [to_digits(dict(zip(crossed, map(int, row), strict=True))) for row in rows]
    one = _bare(chosen, crossed, digest="crossed")
    own: dict[str, Any] = {"seeds": seeds, "until": None, "vary": frozenset(crossed), "variants": [one]}
    return replace(recipe, name=place.name, digest=one.digest, crossed=True, **own)


def _decomposed(
    study: Study, task: dict[str, Any], recipe: Recipe, crossed: Sequence[str]
) -> tuple[Decomposition | None, str | None]:
    """The design's spread by source; None with the reason where runs have no score."""
    [runs], name = study.variants.values(), task["name"]
    key = f"{name}/{task['headline']}"
    missing = [run for run in runs if key not in run.scores]
    if missing:
        return None, f"{len(missing)} of {len(runs)} runs have no {key}, and half a design says nothing by source"
    levels = {stream: [run.result["streams"][stream] for run in runs] for stream in crossed}
    scores, same = [run.scores[key] for run in runs], "split" not in crossed or _own_file(recipe, name)
    # Run by run, because there may be others, and another number of them, in every split.
    read = [contributions([run], name, task["headline"], [score]) for run, score in zip(runs, scores, strict=True)]
    rows = [matrix[0] for matrix in read if matrix is not None]
    clusters = study.clusters(name) if same else None
    if clusters is not None and len(rows) == len(runs):
        rows = list(by_cluster(np.stack(rows), clusters))
    rng = np.random.default_rng(list(study.digest.encode()))
    return decompose(scores, levels, rng, rows if len(rows) == len(runs) else None, same), None


def _own_file(recipe: Recipe, task: str) -> bool:
    """Tell whether an evaluation set has a file of its own, which no split changes."""
    if any(each.name == task for each in recipe.lm_eval):
        return True
    source = next((held_out.data for held_out in recipe.evaluate if held_out.name == task), recipe.data.test)
    return source is not None and source.limit is None


def _prescribed(
    recipe: ResolvedRecipe,
    chosen: Variant,
    cause: Cause,
    overrides: Sequence[str],
    vary: Sequence[str],
    content: dict[str, Any],
) -> ResolvedRecipe | None:
    """The study that tries the first cure which the recipe allows; what was found is written into ``content``."""
    for remedy, changes in candidates(cause, chosen.recipe):
        try:
            trial = _trial(recipe, chosen, remedy, changes, overrides, vary)
            preflight(trial)
        except InputError as error:  # a contradiction, or nothing in this model that it could change
            content["refused"][remedy.name] = [problem.found for problem in error.problems]
        else:
            written = [f"{path}: {one_line(value)}" for path, value in changes.items()]
            content |= {"cure": {"name": remedy.name, "why": remedy.why, "write": written}, "advice": None}
            return trial
    return None


def _trial(
    recipe: ResolvedRecipe,
    chosen: Variant,
    remedy: Remedy,
    changes: Changes,
    overrides: Sequence[str],
    vary: Sequence[str],
) -> ResolvedRecipe:
    """The variant as it is and with the change, in one study; the change is written as a person would write it."""
    alone = recipe.trees[chosen.name] is recipe.shared  # a recipe without variants
    start = "" if alone else f"variants.{chosen.name}."
    changed = recipe.again([*overrides, *(f"{start}{path}={one_line(value)}" for path, value in changes.items())])
    other = changed.variants[0] if alone else next(each for each in changed.variants if each.name == chosen.name)
    name = f"{chosen.name}-{remedy.name}"
    variants = [_bare(chosen, vary), _bare(other, vary, name)]
    trees = {chosen.name: recipe.trees[chosen.name], name: changed.trees[other.name]}
    return replace(
        recipe,
        name=f"{recipe.name}-{chosen.name}-trial",
        seeds=list(range(FRESH, FRESH + FEWEST)),
        until=None,
        vary=frozenset(vary),
        variants=variants,
        digest=text_digest("".join(variant.digest for variant in variants))[:16],
        trees=trees,
    )
