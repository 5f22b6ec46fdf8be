"""Stages: training that precedes the task's own, once for all seeds: continued pretraining on unlabelled text
(Gururangan et al. 2020) or an intermediate task (Phang et al. 2018); or another loss over the examples that the runs
learn from themselves (Tunstall et al. 2022), once for each split of them.

What a stage makes is kept in the study's folder, under a digest of everything it depends on: the base model, the stages
before it, its own options and its data. Every variant that asks for the same finds it there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.core.compute import ComputeOptions
from finetune.core.digests import text_digest
from finetune.core.errors import FinetuneError, InputError, bad_input
from finetune.core.progress import phase
from finetune.core.randomness import Streams
from finetune.core.run_dir import FORMAT, RunDir, StudyDir, write_json
from finetune.core.runtime import Runtime
from finetune.models import ModelOptions, facts_of
from finetune.replicas.group import Replica
from finetune.runner.resources import Resources, TaskData
from finetune.runner.run import whole_folder
from finetune.runner.session import Session
from finetune.strategies.whole_model import merged

if TYPE_CHECKING:
    from finetune.recipe import Recipe, Stage


def chain(stages: list[Stage]) -> list[int]:
    """List the numbers of the stages that lead to the last one, in the order in which they are trained."""
    found: list[int] = []
    number: int | None = len(stages) - 1 if stages else None
    while number is not None:
        found.insert(0, number)
        after = stages[number].after
        if after is None:
            number = number - 1 if number else None
        else:
            number = next((n for n, stage in enumerate(stages) if stage.name == after), None)
    return found


def recipe_of(recipe: Recipe, number: int, model: ModelOptions) -> Recipe:
    """Make a recipe of its own for a stage, which starts from ``model``."""
    stage = recipe.stages[number]
    own: dict[str, Any] = {name: getattr(stage, name) for name in ("task", "strategy", "train")}
    own["data"] = stage.data or recipe.data
    return recipe.model_copy(
        update={**own, "model": model, "mitigations": [], "evaluate": [], "lm_eval": [], "stages": []}
    )


def whose(recipe: Recipe, number: int) -> Recipe | None:
    """Give the recipe whose examples a stage learns from; None where it has data of its own."""
    return recipe if recipe.stages[number].data is None else None


def split_of(stage: Stage, split: int) -> int:
    """Give the seed of the split that a stage learns from, for runs whose own is ``split``."""
    return split if stage.data is None else stage.data.split.seed


def reach(recipe: Recipe, folder: StudyDir, resources: Resources, runtime: Runtime, split: int) -> Recipe:
    """Train the stages that have not been trained, and give the recipe as it starts after them, for runs with that
    seed of a ``split``.

    Raises Interrupted when asked to stop, after saving; and FinetuneError when a stage diverges: nothing could start
    from it.
    """
    model, before = recipe.model, _start(recipe)
    for number in chain(recipe.stages):
        stage = recipe.stages[number]
        with within(number):
            alone, given = recipe_of(recipe, number, model), (split_of(stage, split), whose(recipe, number))
            before = _next(before, stage, resources.data(alone, *given))
            place = RunDir(folder.stages / f"{stage.name}-{before[:8]}")
            if place.read_result() is None:
                here = runtime.at(f"stage {stage.name}", runtime.dtype)
                _train(Session.open(resources, alone, given[0], here, given[1]), stage, place, before)
            model = model.model_copy(update={"source": str(place.model), "tokenizer": None})
            _same_model(place, model)
    return recipe.model_copy(update={"model": model})


def digests(recipe: Recipe, resources: Resources) -> dict[str, str]:
    """Compute, by name of the stage, the digest of what it makes, in the order in which they are trained; of one that
    learns from the runs' own examples, of what it makes of the recipe's own split."""
    before, found = _start(recipe), {}
    for number in chain(recipe.stages):
        stage = recipe.stages[number]
        # The data do not depend on what an earlier stage has trained.
        split = split_of(stage, recipe.data.split.seed)
        data = resources.data(recipe_of(recipe, number, recipe.model), split, whose(recipe, number))
        found[stage.name] = before = _next(before, stage, data)
    return found


def _start(recipe: Recipe) -> str:
    """Compute the digest of what the first stage starts from, and of how it is computed where that is not as usual."""
    compute = recipe.compute.identifying()
    own = [] if compute == ComputeOptions().identifying() else [str(compute)]
    return text_digest("".join([str(recipe.model.identifying()), *own]))


def _next(before: str, stage: Stage, data: TaskData) -> str:
    """Compute the digest of a stage after another, or after the base model."""
    splits = {name: facts["fingerprint"] for name, facts in data.facts["splits"].items()}
    return text_digest(str([before, stage.identifying(), splits]))


def _same_model(place: RunDir, options: ModelOptions) -> None:
    """Refuse a stage's model that was changed since it was trained; old ones do not say what it was."""
    result = place.read_result() or {}
    was, now = result.get("model"), facts_of(options)
    if was is not None and was != now:
        parts = ", ".join(part for part in now if now[part] != was.get(part))
        found = f"{place.model} is no longer what the stage has trained: its {parts} changed"
        raise bad_input(None, found, f"restore it, or remove {place.path} to train the stage again")


def ready_stages(recipe: Recipe, resources: Resources, runtime: Runtime, split: int) -> None:
    """Find out what examples may share in the stages' models, before anything is trained on that ``split``."""
    for number in chain(recipe.stages):
        with within(number):
            stage, seed = recipe_of(recipe, number, recipe.model), split_of(recipe.stages[number], split)
            Session.open(resources, stage, seed, runtime, whose(recipe, number))


def _train(session: Session, stage: Stage, place: RunDir, digest: str) -> None:
    """Train one stage, or go on with it, and save the whole model; `result.json` says that it is there."""
    runtime, data = session.runtime, session.data
    assembled, [trained] = session.train([Replica(Streams(stage.seed), place)])
    if trained.diverged:
        raise FinetuneError(f"stage '{stage.name}' diverged, and nothing can start from it: {trained.diverged}")
    if runtime.accelerator.is_main_process:
        with phase("writing the model"), assembled.group.alone(0) as model, whole_folder(place.model) as folder:
            # Adapters are merged: what starts from it need not know how it was trained.
            merged(model).save_pretrained(folder)
            data.task.tokenizer.save_pretrained(folder)
            data.task.save_beside(folder)
        about: dict[str, Any] = {"format": FORMAT, "stage": stage.name, "digest": digest, "seed": stage.seed}
        shutil.rmtree(place.checkpoints, ignore_errors=True)
        model_options = session.recipe.model.model_copy(update={"source": str(place.model), "tokenizer": None})
        about["model"] = facts_of(model_options)
        write_json(place.result, {**about, "training": trained.facts, "data": data.facts["splits"]})
    runtime.accelerator.wait_for_everyone()


@contextmanager
def within(number: int) -> Iterator[None]:
    """Within the context, give every InputError the place of a stage in the recipe."""
    try:
        yield
    except InputError as error:
        raise InputError(
            replace(problem, path=f"stages.{number}.{problem.path}")
            if problem.path and not problem.path.startswith("model.")
            else problem
            for problem in error.problems
        ) from error
