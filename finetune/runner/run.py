"""THE MAIN PATH: one variant under one seed, or a group of seeds, from a recipe's options to results on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from finetune import models
from finetune.core.errors import FinetuneError
from finetune.core.progress import phase
from finetune.core.randomness import Streams
from finetune.core.run_dir import FORMAT, RunDir, atomic, sync, write_json
from finetune.core.runtime import Runtime
from finetune.core.sharding import is_sharded, whole
from finetune.evaluate import metrics
from finetune.metrics.function import key_of
from finetune.models.pooled import pooled_in, write_pooling
from finetune.replicas.group import Replica
from finetune.replicas.stacked import Weights
from finetune.runner.build import count_parameters, group_of
from finetune.runner.resources import TaskData
from finetune.runner.saved import write_description
from finetune.runner.scoring import Scores
from finetune.runner.session import Session
from finetune.strategies.adapters.base_folder import write_base
from finetune.strategies.base import TRAINED_WEIGHTS, Strategy, trained_parameters
from finetune.train.meters import Phases
from finetune.train.options import TrainOptions
from finetune.train.state import Trained

if TYPE_CHECKING:
    from finetune.recipe import Recipe, Variant


def run(
    variant: Variant,
    replicas: Sequence[Replica],
    session: Session,
    other_seeds: Mapping[int, Mapping[str, Any]],
    untuned: Scores | None,
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Train and score one run, or several side by side; write each `result.json`, last, and return them.

    ``other_seeds`` are the results of the variant's other seeds, ``untuned`` the base model's scores where they mean
    something; ``compiled``: whether to compile the model. Runs that were interrupted resume from their checkpoints.
    """
    data, base, runtime = session.data, session.base, session.runtime
    phases = Phases(runtime.device, len(replicas), runtime.all_reduce_sum)
    base.tell(runtime.progress.say)
    begun = train_before(session, replicas)
    # What is solved is the same for all of them: it is done once, and stored for each.
    single = session.strategy.solves
    assembled = session.assemble(replicas[:1] if single else replicas, other_seeds, begun)
    phases.end("load")
    trained = session.fit(assembled, compiled)
    phases.end("train", sum(each.facts["seconds"] for each in trained))
    found, starts = session.score(assembled.group, [one.folder for one in assembled.replicas]), assembled.identities
    if single:
        copy_predictions(replicas, data, runtime)
        trained, found, starts = trained * len(replicas), found * len(replicas), starts * len(replicas)
    phases.end("evaluate")
    strategy = assembled.strategy if session.recipe.train.save_model else None
    results = []
    whole = not any(each.facts["resumed"] for each in trained)
    for number, (replica, how, own) in enumerate(zip(replicas, trained, found, strict=True)):
        scores, measured, latency, decision = own
        status, reason = judge(how, scores, measured, data, session.recipe, untuned)
        with assembled.group.alone(0 if single else number) as model:
            result = {
                **opening(variant, replica.streams.seed, status, reason),
                **phases.facts(whole),
                "latency": latency,
                "parameters": count_parameters(model),
                "scores": scores,
                "training": how.facts,
                "identity": None if single else starts[number],
                "base": base.digest,
                "new": models.modules_of(base.new),
                "streams": replica.streams.facts(),
                **pooling_facts(model),
                **({"decision": decision} if decision else {}),
            }
            results.append(finish(result, strategy, model, data, runtime, replica.folder, session.recipe))
    return results


def copy_predictions(replicas: Sequence[Replica], data: TaskData, runtime: Runtime) -> None:
    """Give each run the predictions of the first."""
    if runtime.accelerator.is_main_process:
        for replica in replicas[1:]:
            for task in data.held_out:
                with atomic(replica.folder.predictions(task)) as temporary:
                    shutil.copyfile(replicas[0].folder.predictions(task), temporary)
    runtime.accelerator.wait_for_everyone()


def pooling_facts(model: torch.nn.Module) -> dict[str, Any]:
    """Give the pooling of a head of our own, for the run's result; nothing where there is no such head."""
    found = pooled_in(model)
    return {"pooling": found.pooling.model_dump()} if found else {}


def train_before(session: Session, replicas: Sequence[Replica]) -> list[Weights]:
    """Train the strategy that each run begins with, such as a head; empty where a run starts by itself.

    Kept in `before/` of the run's folder until the run is finished. Raises FinetuneError when it diverges.
    """
    recipe, runtime, asked = session.recipe, session.runtime, session.strategy.before()
    if asked is None:
        return []
    options = TrainOptions.model_validate({**recipe.train.model_dump(), **asked[1]})
    first = recipe.model_copy(update={"strategy": asked[0], "train": options, "mitigations": []})
    before = replace(session, recipe=first)
    places = [Replica(replica.streams, replica.folder.before) for replica in replicas]
    left = [place for place in places if not place.folder.model.exists()]
    if left:
        single = before.strategy.solves
        assembled, found = before.train(left[:1] if single else left)
        for number, place in enumerate(left):
            trained = found[0 if single else number]
            if trained.diverged:
                raise FinetuneError(f"what comes before strategy '{recipe.strategy.type}' diverged: {trained.diverged}")
            with assembled.group.alone(0 if single else number) as model:
                save_model(
                    assembled.strategy,
                    model,
                    session.data,
                    place.folder.model,
                    writes=runtime.accelerator.is_main_process,
                )
        runtime.accelerator.wait_for_everyone()
    return [load_file(place.folder.model / TRAINED_WEIGHTS) for place in places]


def judge(
    trained: Trained,
    scores: Scores,
    measured: Mapping[str, NDArray[np.float64]],
    data: TaskData,
    recipe: Recipe,
    untuned: Scores | None,
) -> tuple[str, str | None]:
    """Judge a run: status and reason. `diverged`; `degenerate`, when training has not beaten what needs none; or
    `finished`."""
    if trained.diverged:
        return "diverged", trained.diverged
    from finetune.stats import no_better  # takes a third of a second to import, which `check` need not wait for

    task = next(iter(data.held_out))
    trivial, own = data.trivial[task], measured[task]
    if trivial is not None and no_better(own, trivial.scores, trivial.higher_is_better):
        mean, others, higher = float(own.mean()), float(trivial.scores.mean()), trivial.higher_is_better
        ahead = mean > others if higher else mean < others
        shown = f", and so few examples do not show that it is {'more' if higher else 'less'}" if ahead else ""
        found = f"{trivial.measure} {_number(mean)} on '{task}'"
        return "degenerate", f"{found}; {trivial.said} gets {_number(others)}{shown}"
    headline = key_of(recipe.task.metrics[0])
    plain = trivial_score(data, task, headline)
    score = scores.get(f"{task}/{headline}")
    if plain is not None and score is not None and not _better(headline, score, plain):
        return "degenerate", f"{headline} {score:.4g} on '{task}'; answers that take no learning get {plain:.4g}"
    before = (untuned or {}).get(f"{task}/{headline}")
    if before is not None and score is not None and not _better(headline, score, before):
        return "degenerate", f"{headline} {score:.4g} on '{task}'; the untuned base model has {before:.4g}"
    return "finished", None


def _number(value: float) -> str:
    return f"{value:.3f}" if 0 <= value <= 1 else f"{value:.4g}"


def _better(metric: str, score: float, other: float) -> bool:
    return score > other if metrics.load(metric).higher_is_better else score < other


def trivial_score(data: TaskData, task: str, metric: str) -> float | None:
    """Compute the ``metric`` of answers to held-out set ``task`` that take no learning; None where there are none, or
    where the metric is not of answers."""
    examples = data.held_out[task].examples
    answers, known = data.task.trivial_answers(examples), metrics.load(metric)
    if answers is None or set(known.columns) != {"prediction", "reference"}:
        return None
    return known.value({"prediction": answers, "reference": [example.reference for example in examples], "labels": ()})


def opening(variant: Variant, seed: int | None, status: str, reason: str | None) -> dict[str, Any]:
    """Make the first keys of every `result.json`."""
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
    runtime: Runtime,
    folder: RunDir,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Save the model where wanted, drop the checkpoints that are no longer needed, and write the result, last."""
    if strategy is not None:
        save_model(strategy, model, data, folder.model, recipe, runtime.accelerator.is_main_process)
    if runtime.accelerator.is_main_process:
        if folder.metrics.exists():
            sync(folder.metrics)
        write_json(folder.result, result)
        for done in (folder.checkpoints, folder.before.checkpoints, folder.before.model):
            shutil.rmtree(done, ignore_errors=True)
    runtime.accelerator.wait_for_everyone()
    return result


def save_model(
    strategy: Strategy,
    model: torch.nn.Module,
    data: TaskData,
    folder: Path,
    recipe: Recipe | None = None,
    writes: bool = True,
) -> None:
    """Write what was trained, the tokenizer, and where there is a ``recipe`` what it takes to load the model again. The
    one process that ``writes`` does; all that have a part of the model have to ask."""
    everything = is_sharded(model) and strategy.library == "transformers"
    names = dict(model.named_parameters()) if everything else trained_parameters(model)
    with whole(model, names, writes):
        if writes:
            _write_model(strategy, model, data, folder, recipe)


def _write_model(
    strategy: Strategy, model: torch.nn.Module, data: TaskData, folder: Path, recipe: Recipe | None
) -> None:
    with phase("writing the model"), whole_folder(folder) as temporary:
        strategy.save(model, temporary)
        write_pooling(model, temporary)
        if (temporary / "config.json").exists():
            data.task.save_beside(temporary)
        if recipe is not None:
            write_description(recipe, data, temporary)
        write_base(model, temporary, folder)
        data.task.tokenizer.save_pretrained(temporary)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Within the context, give a folder that takes the place of ``folder`` when it ends: a crash leaves no half-written
    model there."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    yield temporary
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def score_untuned(variant: Variant, session: Session, folder: RunDir, known: Scores | None = None) -> dict[str, Any]:
    """Score the base model as it is, and write its `result.json`, with the scores that are ``known`` already.

    Means nothing when the model has a new head.
    """
    base, runtime = session.base, session.runtime
    phases = Phases(runtime.device, total=runtime.all_reduce_sum)
    group = group_of(base.view(Streams(0)).requires_grad_(False), runtime, base)
    phases.end("load")
    [(scores, _, latency, _)] = session.score(group, [folder])
    phases.end("evaluate")
    result = {
        **opening(variant, None, "finished", None),
        **phases.facts(),
        "latency": latency,
        "parameters": count_parameters(group.model),
        "scores": {**(known or {}), **scores},
        "training": None,
        "identity": None,
        "base": base.digest,
        "streams": None,
    }
    return finish(result, None, group.model, session.data, runtime, folder)
