"""Opens a study, lets its runs be done, and reports: what `finetune run` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import FinetuneError
from finetune.core.events import StudyOpened, finished_event
from finetune.core.progress import Progress
from finetune.core.run_dir import StudyDir, not_for_all_to_write, read_json
from finetune.core.signals import StopRequest, stop_on_signals
from finetune.core.tracking import Tracking
from finetune.runner.resources import Resources
from finetune.runner.result import StudyOutcome
from finetune.study.preflight import Preflight, located, preflight
from finetune.study.provenance import same_arithmetic
from finetune.study.sharing import Asked, Helper, finished
from finetune.study.study import Study
from finetune.train.checkpoint import told_when_full

if TYPE_CHECKING:
    from finetune.recipe import ResolvedRecipe


def run_study(
    recipe: ResolvedRecipe,
    output: Path,
    progress: Progress | None = None,
    only: str | None = None,
    by: Callable[[Progress, StopRequest], None] | None = None,
) -> StudyOutcome:
    """Run every variant under every seed, or ``only`` one variant or run (`lora`, `lora/3`), and write the report.

    ``by`` does the runs, where it is not this process: it starts others that :func:`help_study`. Finished runs are
    kept, interrupted ones resumed. Raises InputError before anything has started, Interrupted when asked to stop, and
    DiskFull; what was finished by then stays.
    """
    with _opened(recipe, output, progress or Progress(), only, others=by is not None) as (study, found, shown):
        names = [each.name for each in recipe.variants]
        there = [finished_event(variant, seed, result) for (variant, seed), result in study.results.items()]
        headline = "{name}/{headline}".format_map(read_json(study.folder.data)["tasks"][0])
        runs = [] if only is None else [(name, seed) for name in names for seed in recipe.seeds]
        asked = [run for run in runs if study.asked.for_run(*run)]
        shown.tell(StudyOpened(study.folder.path, names, recipe.seeds, len(there), headline, there, asked))
        for line in found.notes():
            shown.say(line)
        if by is None:
            study.score_baselines(found)
            study.do_all()
        else:
            by(shown, study.runtime.stop)
            study.score_baselines(found)  # where none of them had begun to
            study.reread()
            if recipe.until is not None:  # by which they may have added some
                done = {seed for _, seed in study.results}
                study.seeds = [seed for seed in recipe.seeds if seed in done or seed in study.seeds]
        for variant in recipe.variants:
            study.combine(variant)
        outcome = study.report()
        if lost := sum(len(study.left(variant.name)) for variant in recipe.variants):
            # Whoever has died after all others had left.
            raise FinetuneError(f"{lost} runs have not been done; run the same command again")
        return outcome


def runs_left(recipe: ResolvedRecipe, output: Path, only: str | None) -> int:
    """Count the runs that are asked for and not finished; where a rule adds seeds, all that it might add."""
    asked, folder = Asked.of(recipe, only), StudyDir(output / recipe.name)
    return sum(
        asked.for_run(variant.name, seed) and (variant.name, seed) not in known
        for variant in recipe.variants
        for known in [finished(variant.name, recipe.seeds, folder)]
        for seed in recipe.seeds
    )


def help_study(recipe: ResolvedRecipe, output: Path, progress: Progress, only: str | None, helper: Helper) -> None:
    """Do those of a study's runs that no other process does. Raises as :func:`run_study` does."""
    with _opened(recipe, output, progress, only, helps=True) as (study, found, _):
        study.helper = helper
        if study.claims.take("baselines"):
            study.claims.release("baselines")
            study.score_baselines(found)
        study.do_all()


@contextmanager
def _opened(
    recipe: ResolvedRecipe,
    output: Path,
    progress: Progress,
    only: str | None,
    others: bool = False,
    helps: bool = False,
) -> Iterator[tuple[Study, Preflight, Progress]]:
    """Within the context, work at a study, whose runs ``others`` may do; ``helps``: for one of them that has asked."""
    folder = StudyDir(output / recipe.name)
    with (
        not_for_all_to_write(),
        told_when_full(output),
        located(recipe),
        same_arithmetic(recipe, folder),
        progress as shown,
        stop_on_signals(shown.say) as stop,
    ):
        asked, resources = Asked.of(recipe, only), Resources(folder.begun_on)
        found = preflight(recipe, resources)
        study = Study.open(recipe, folder, resources, found, shown, stop, compares=not others)
        study.asked = asked
        tracking = None if helps else tracked(recipe, folder, shown)  # whoever it helps hears of its events too
        try:
            yield study, found, shown
        finally:
            if tracking is not None:
                tracking.close()
            study.runtime.close()


def tracked(recipe: ResolvedRecipe, folder: StudyDir, progress: Progress) -> Tracking:
    """Have the recipe's trackers hear of what happens in its study."""
    about = {variant.name: dict(leaves_of(variant.recipe.identifying())) for variant in recipe.variants}
    tracking = Tracking(recipe.variants[0].recipe.tracking, folder.path, about, progress.say)
    if tracking.options.trackers:
        progress.listeners.append(tracking)
    return tracking


def leaves_of(section: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a section's options by their dotted path."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from leaves_of(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
