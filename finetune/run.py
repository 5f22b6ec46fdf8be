"""THE MAIN PATH: one variant under one seed, or a group of seeds, from a recipe's options to results on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from finetune import models
from finetune.assemble import assemble, count_parameters, open_prefix, settle, techniques_of
from finetune.errors import FinetuneError
from finetune.evaluate import metrics
from finetune.group.group import Group, Member
from finetune.group.stacked import Weights
from finetune.models.pooled import pooled_in, write_pooling
from finetune.progress import phase
from finetune.randomness import Streams
from finetune.run_dir import FORMAT, RunDir, atomic, write_json
from finetune.saved import write_description
from finetune.scoring import Scores, score_held_out, validate_with
from finetune.shared import TaskData
from finetune.strategies.adapters.base_folder import write_base
from finetune.strategies.base import TRAINED_WEIGHTS, Strategy
from finetune.surroundings import Surroundings
from finetune.train.loop import train
from finetune.train.meters import Phases
from finetune.train.options import TrainOptions
from finetune.train.solving import solve_head
from finetune.train.state import Trained

if TYPE_CHECKING:
    from finetune.recipe import Recipe, Variant


def run(
    variant: Variant,
    members: Sequence[Member],
    data: TaskData,
    base: models.BaseModel,
    around: Surroundings,
    sisters: dict[int, dict[str, Any]],
    untuned: Scores | None,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Train and score one run, or several side by side; write each `result.json`, last, and return them.

    ``sisters`` are the results of the variant's other seeds, ``untuned`` the base model's scores where they mean
    something; ``compiled``: whether to compile the model. Runs that were interrupted resume from their checkpoints.
    """
    recipe, phases = variant.recipe, Phases(around.device, len(members), around.total)
    base.tell(around.progress.say)
    begun = train_before(recipe, members, data, base, around)
    # What is solved is the same for all of them: it is done once, and stored for each.
    single = techniques_of(recipe)[0].solves
    doing = members[:1] if single else members
    group, strategy, starts = assemble(recipe, base, data, doing, around, sisters, begun)
    phases.end("load")
    trained = fit(group, strategy, recipe, base, data, doing, around, compiled)
    phases.end("train", sum(each.facts["seconds"] for each in trained))
    found = score_held_out(group, data, recipe, around, [member.folder for member in doing], base.digest)
    if single:
        copy_predictions(members, data, around)
        trained, found, starts = trained * len(members), found * len(members), starts * len(members)
    phases.end("evaluate")
    results = []
    whole = not any(each.facts["resumed"] for each in trained)
    for number, (member, how, (scores, right, latency)) in enumerate(zip(members, trained, found, strict=True)):
        status, reason = judge(how, scores, right, data, recipe, untuned)
        with group.alone(0 if single else number) as model:
            result = {
                **opening(variant, member.streams.seed, status, reason),
                **phases.facts(whole),
                "latency": latency,
                "parameters": count_parameters(model),
                "scores": scores,
                "training": how.facts,
                "identity": None if single else starts[number],
                "base": base.digest,
                "new": models.modules_of(base.new),
                "streams": member.streams.facts(),
                **pooling_facts(model),
            }
            results.append(
                finish(
                    result, strategy if recipe.train.save_model else None, model, data, around, member.folder, recipe
                )
            )
    return results


def fit(
    group: Group,
    strategy: Strategy,
    recipe: Recipe,
    base: models.BaseModel,
    data: TaskData,
    members: Sequence[Member],
    around: Surroundings,
    compiled: bool = False,
) -> list[Trained]:
    """Solve or train what learns in ``group``; how it went, for each of its members."""
    examples = data.train.examples
    if strategy.solves:
        size, streams = recipe.scoring.batch_size, members[0].streams
        return [solve_head(group.model, base, data.task, examples, size, streams, around)]
    open_prefix(group, recipe, base, data, around)
    if compiled:
        group.compile()
    validation = validate_with(group, data, recipe, around)
    return train(group, data.task, examples, recipe.train, members, around, validation)


def copy_predictions(members: Sequence[Member], data: TaskData, around: Surroundings) -> None:
    """Give each run the predictions of the first."""
    if around.accelerator.is_main_process:
        for member in members[1:]:
            for task in data.held_out:
                with atomic(member.folder.predictions(task)) as temporary:
                    shutil.copyfile(members[0].folder.predictions(task), temporary)
    around.accelerator.wait_for_everyone()


def pooling_facts(model: torch.nn.Module) -> dict[str, Any]:
    """How a head of our own pools, for the run's result."""
    found = pooled_in(model)
    return {"pooling": found.pooling.model_dump()} if found else {}


def train_before(
    recipe: Recipe, members: Sequence[Member], data: TaskData, base: models.BaseModel, around: Surroundings
) -> list[Weights]:
    """What each run's strategy lets another one train first, such as a head; empty where it starts by itself.

    Kept in `before/` of the run's folder until the run is finished. Raises FinetuneError when it diverges.
    """
    strategy, _ = techniques_of(recipe)
    asked = strategy.before()
    if asked is None:
        return []
    options = TrainOptions.model_validate({**recipe.train.model_dump(), **asked[1]})
    first = recipe.model_copy(update={"strategy": asked[0], "train": options, "mitigations": []})
    places = [Member(member.streams, member.folder.before) for member in members]
    left = [place for place in places if not place.folder.model.exists()]
    if left:
        single = techniques_of(first)[0].solves
        group, strategy, _ = assemble(first, base, data, left[:1] if single else left, around, {})
        found = fit(group, strategy, first, base, data, left, around)
        for number, place in enumerate(left):
            trained = found[0 if single else number]
            if trained.diverged:
                raise FinetuneError(f"what comes before strategy '{recipe.strategy.type}' diverged: {trained.diverged}")
            with group.alone(0 if single else number) as model:
                if around.accelerator.is_main_process:
                    save_model(strategy, model, data, place.folder.model)
        around.accelerator.wait_for_everyone()
    return [load_file(place.folder.model / TRAINED_WEIGHTS) for place in places]


def judge(
    trained: Trained,
    scores: Scores,
    means: dict[str, float],
    data: TaskData,
    recipe: Recipe,
    untuned: Scores | None,
) -> tuple[str, str | None]:
    """Status and reason: `diverged`; `degenerate`, when training has not beaten what needs none; or `finished`."""
    if trained.diverged:
        return "diverged", trained.diverged
    task = next(iter(data.held_out))
    majority = data.majority[task]
    if majority is not None and means[task] <= majority:
        found = f"accuracy {means[task]:.3f} on '{task}'"
        return "degenerate", f"{found}; always giving the commonest label gets {majority:.3f}"
    headline = recipe.task.metrics[0]
    if untuned and (key := f"{task}/{headline}") in untuned and key in scores:
        gain = scores[key] - untuned[key]
        if (gain if metrics.load(headline).higher_is_better else -gain) <= 0:
            found = f"{headline} {scores[key]:.4g} on '{task}'"
            return "degenerate", f"{found}; the untuned base model has {untuned[key]:.4g}"
    return "finished", None


def opening(variant: Variant, seed: int | None, status: str, reason: str | None) -> dict[str, Any]:
    """The first keys of every `result.json`."""
    strategy = variant.recipe.strategy.type if seed is not None else "none"
    return {
        "format": FORMAT,
        "variant": variant.name,
        "seed": seed,
        "digest": variant.digest,
        "strategy": strategy,
        "status": status,
        "reason": reason,
    }


def finish(
    result: dict[str, Any],
    strategy: Strategy | None,
    model: torch.nn.Module,
    data: TaskData,
    around: Surroundings,
    folder: RunDir,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Save the model where wanted, drop the checkpoints that are no longer needed, and write the result, last."""
    if around.accelerator.is_main_process:
        if strategy is not None:
            save_model(strategy, model, data, folder.model, recipe)
        write_json(folder.result, result)
        for done in (folder.checkpoints, folder.before.checkpoints, folder.before.model):
            shutil.rmtree(done, ignore_errors=True)
    around.accelerator.wait_for_everyone()
    return result


def save_model(
    strategy: Strategy, model: torch.nn.Module, data: TaskData, folder: Path, recipe: Recipe | None = None
) -> None:
    """Write what was trained, the tokenizer, and where there is a ``recipe`` what it takes to load the model again."""
    with phase("writing the model"), whole_folder(folder) as temporary:
        strategy.save(model, temporary)
        write_pooling(model, temporary)
        if recipe is not None:
            write_description(recipe, data, temporary)
        write_base(model, temporary, folder)
        data.task.tokenizer.save_pretrained(temporary)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of ``folder`` when the block ends: a crash leaves no half-written model there."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    yield temporary
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def score_untuned(
    variant: Variant,
    base: models.BaseModel,
    data: TaskData,
    around: Surroundings,
    folder: RunDir,
    known: Scores | None = None,
) -> dict[str, Any]:
    """Score the base model as it is, and write its `result.json`, with the scores that are ``known`` already.

    Means nothing when the model has a new head.
    """
    phases = Phases(around.device, total=around.total)
    model = settle(base.copy(Streams(0)).requires_grad_(False), around)
    phases.end("load")
    [(scores, _, latency)] = score_held_out(Group(model), data, variant.recipe, around, [folder], base.digest)
    phases.end("evaluate")
    result = {
        **opening(variant, None, "finished", None),
        **phases.facts(),
        "latency": latency,
        "parameters": count_parameters(model),
        "scores": {**(known or {}), **scores},
        "training": None,
        "identity": None,
        "base": base.digest,
        "streams": None,
    }
    return finish(result, None, model, data, around, folder)
