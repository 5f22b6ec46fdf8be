"""From a study's folder to the trained model in memory, with the data that it was trained and is certified by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.core.digests import text_digest
from finetune.core.errors import bad_input
from finetune.export.choosing import Chosen
from finetune.export.licence import terms_of
from finetune.export.trained import Trained

if TYPE_CHECKING:
    import torch

    from finetune.recipe import Recipe
    from finetune.runner.resources import TaskData
    from finetune.tasks.base import Task


def open_trained(chosen: Chosen) -> Trained:
    """Load the chosen model in float32 on the CPU, and the study's data. Raises :class:`InputError` where the data, or
    the base model of a run that saved only what it changed, are not those of the study any more."""
    from finetune import recipe as recipes
    from finetune.models.pooled import read_pooling
    from finetune.recipe import Recipe
    from finetune.runner import saved
    from finetune.runner.resources import Resources
    from finetune.study.claim import same_split
    from finetune.study.preflight import split_seed

    place, folder = chosen.study.folder, chosen.folder.model
    resolved = recipes.read_resolved(place.resolved)
    variant = next(each for each in resolved.variants if each.name == chosen.variant)
    described = saved.read_description(folder)
    own = Recipe.model_validate(saved.recipe_of(described))  # as it was after its stages
    seed = resolved.seeds[0] if chosen.seed is None else chosen.seed
    # Tasks of lm-evaluation-harness certify nothing, and take long to open.
    data = Resources(place.begun_on).data(own.model_copy(update={"lm_eval": []}), split_seed(resolved, variant, seed))
    same_split(place, resolved, chosen.variant, data, "restore the data: an export is certified on what was held out")
    pooling = read_pooling(folder)
    task = data.task if pooling is None else data.task.pooled(pooling)
    if list(task.labels) != described["labels"]:
        found = f"the labels in the data are not those that {folder} was trained for"
        raise bad_input("data", found, "restore the data")
    loaded = saved.load_trained(folder)
    return Trained(
        study=place.path,
        variant=chosen.variant,
        seed=chosen.seed,
        folder=chosen.folder.path,
        model=loaded.model,
        tokenizer=task.tokenizer,
        task=task,
        recipe=own,
        data=data,
        decision=_decision(chosen, task, loaded.model, data, own),
        result=chosen.run.result,
        chosen=chosen.reason,
        terms=terms_of(variant.recipe.model),
        digests=_digests(variant.digest, data, chosen.run.result),
    )


def _decision(chosen: Chosen, task: Task, model: torch.nn.Module, data: TaskData, recipe: Recipe) -> dict[str, float]:
    """What the run has decided by its validation examples; of a soup, which keeps none, it is decided again."""
    kept: dict[str, float] = chosen.run.result.get("decision") or {}
    if kept or not task.decides or data.validation is None:
        return kept
    import torch

    from finetune.core.progress import Progress
    from finetune.core.runtime import open_runtime
    from finetune.core.signals import StopRequest
    from finetune.evaluate.predict import predictions_of
    from finetune.replicas.group import ReplicaGroup

    cpu = torch.device("cpu")
    runtime = open_runtime(cpu, torch.float32, Progress(), StopRequest(), chosen.folder.path)
    examples = data.validation.examples
    [found] = predictions_of(ReplicaGroup(model), task, examples, recipe.scoring.batch_size, runtime)
    return task.decide(examples, found)


def _digests(recipe: str, data: TaskData, result: dict[str, Any]) -> dict[str, str]:
    splits = {name: facts["fingerprint"] for name, facts in data.facts["splits"].items()}
    return {"recipe": recipe, "data": text_digest(str(sorted(splits.items()))), "base": str(result.get("base", ""))}
