"""Combines a variant's finished runs: soups, which average weights, and ensembles of predictions."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from finetune.core.digests import text_digest
from finetune.core.errors import FinetuneError, InputError, Problem, StudyEnded, bad_input
from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir, StudyDir, atomic, write_json
from finetune.core.runtime import Runtime, make_deterministic
from finetune.evaluate import metrics, store
from finetune.evaluate.ensemble import ensemble
from finetune.mitigations.base import Mitigation
from finetune.runner.build import group_of, make_mitigations, make_strategy
from finetune.runner.resources import Resources, TaskData
from finetune.runner.result import failure
from finetune.runner.run import opening, save_model
from finetune.runner.scoring import Scores, scores_on
from finetune.runner.session import Session
from finetune.strategies.base import Strategy, set_trained, trained_parameters
from finetune.strategies.whole_model import WholeModel, merged
from finetune.train.checkpoint import told_when_full
from finetune.train.meters import Phases, finite

if TYPE_CHECKING:
    from finetune.recipe import Recipe, Variant


@dataclass(frozen=True)
class Combination:
    """One combination to make of a variant's runs."""

    number: int
    """The mitigation's place in the recipe."""
    kind: str
    inputs: dict[str, Any]
    """What it comes from, as `result.json` says it: made again only when that changes."""
    known: dict[str, float]
    """Scores of the same runs on held-out tasks that are not scored now."""


def combining(options: Sequence[Any]) -> Iterator[tuple[int, Mitigation]]:
    """Find the mitigations, of those with ``options``, that combine finished runs, with their places in the recipe."""
    return ((number, each) for number, each in enumerate(make_mitigations(options)) if each.combines)


def check_combining(recipe: Recipe, data: TaskData) -> None:
    """Raise InputError with every reason why the runs of ``recipe`` could not be combined as it asks."""
    problems = [
        Problem(found, f"{advice}, or leave {mitigation.name} out", f"mitigations.{number}")
        for number, mitigation in combining(recipe.mitigations)
        for found, advice in _objections(mitigation, recipe, data)
    ]
    if problems:
        raise InputError(problems)


def _objections(mitigation: Mitigation, recipe: Recipe, data: TaskData) -> Iterator[tuple[str, str]]:
    """List the objections to combining runs so, each with what to do about it."""
    if "split" in recipe.vary:
        found = "combines seeds that have splits of their own, and were trained on each other's test examples"
        yield found, "take split out of `vary`"
    if mitigation.combines == "weights" and not recipe.train.save_model:
        yield "averages the seeds' saved models, and there are none", "write train.save_model: true"
    if mitigation.combines == "weights" and any(each.quantizes for each in make_strategy(recipe.strategy).hooks):
        found = "averages weights, and quantised ones have too few bits for what adapters add to them"
        yield found, "use {type: ensemble} where there are labels, or a method that does not quantise"
    if mitigation.validates and data.validation is None:
        yield "chooses seeds by validation examples, and there are none", "give data.split.validation"
    elif mitigation.validates and not recipe.train.evaluations:
        yield "chooses seeds by validation, and train.evaluations is 0", "write train.evaluations: 1 or more"
    if mitigation.combines == "predictions" and "probabilities" not in data.task.fills:
        found = f"averages probabilities of labels, and the task '{recipe.task.type}' has none"
        yield found, "average weights instead with {type: soup}"


def pending(
    variant: Variant, results: dict[int, dict[str, Any]], folder: StudyDir, data: TaskData
) -> list[Combination]:
    """List the combinations still to be made of the variant's runs, whose ``results`` are given by seed; none when no
    run has finished.

    What was made of the same runs before, and is scored on every held-out task, stays.
    """
    recipe, found = variant.recipe, []
    seeds = {str(seed): _digest(result) for seed, result in sorted(finished(results).items())}
    tasks = {task: data.facts["splits"][task]["fingerprint"] for task in data.held_out}
    own = [task.options.identifying() for task in data.own.values()]
    scoring = text_digest(str([recipe.scoring.identifying(), recipe.task.identifying(), recipe.train.select, *own]))
    for number, mitigation in combining(recipe.mitigations) if seeds else ():
        for kind in mitigation.makes:
            former = folder.combined(variant.name, kind).read_result() or {}
            before = former.get("inputs") or {"seeds": None, "tasks": {}, "scoring": None}
            same = before["seeds"] == seeds
            if not same or before["scoring"] != scoring or not tasks.items() <= before["tasks"].items():
                inputs = {"seeds": seeds, "tasks": before["tasks"] | tasks if same else tasks, "scoring": scoring}
                found.append(Combination(number, kind, inputs, former["scores"] if same else {}))
    return found


def finished(results: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Keep those of some runs' results, by seed, that did not fail."""
    return {seed: result for seed, result in results.items() if result["status"] == "finished"}


def _digest(result: dict[str, Any]) -> str:
    """Compute a digest that tells a run from another of the same seed; scoring it again does not change it."""
    return text_digest(json.dumps({name: value for name, value in result.items() if name != "scores"}, sort_keys=True))


def combine(
    variant: Variant,
    results: dict[int, dict[str, Any]],
    folder: StudyDir,
    resources: Resources,
    runtime: Runtime,
    staged: Callable[[Variant], Variant],
) -> Iterator[dict[str, Any]]:
    """Make of a variant's runs, whose ``results`` are given by seed, what its mitigations combine them into.

    Yields the result of each, also where it could not be made; what is there already stays. ``staged`` gives the
    variant as its runs have started, after its stages.
    """
    if not any(combining(variant.recipe.mitigations)):
        return
    data = resources.data(variant.recipe, variant.recipe.data.split.seed)
    wanted = runtime.broadcast(pending(variant, results, folder, data))
    if not wanted:
        return
    make_deterministic(variant.recipe.train.deterministic)
    variant = staged(variant)
    session = Session.open(resources, variant.recipe, variant.recipe.data.split.seed, runtime)
    runs = FinishedRuns(variant, results, folder, session)
    for each in wanted:
        try:
            with told_when_full(folder.path):
                result = runs.combine(each)
        except StudyEnded:
            raise
        except Exception as error:
            if runtime.accelerator.num_processes > 1:
                raise  # the others may be waiting for this one
            runtime.accelerator.free_memory()
            result = runs.failed(each, error)
        yield result


@dataclass
class FinishedRuns:
    """A variant's finished runs, and what is made of them."""

    variant: Variant
    results: dict[int, dict[str, Any]]
    """By seed, of all runs."""
    folder: StudyDir
    session: Session
    _validated: dict[tuple[int, ...], float] = field(default_factory=dict)
    """By seeds: scores of their mean on the validation split, in the metric's own unit."""

    @property
    def seeds(self) -> list[int]:
        return sorted(finished(self.results))

    def combine(self, wanted: Combination) -> dict[str, Any]:
        """Make one combination, score it on every held-out task, and write and return its `result.json`."""
        phases, self._validated = Phases(self.session.runtime.device), {}
        mitigation = make_mitigations(self.variant.recipe.mitigations)[wanted.number]
        place, weights = self.folder.combined(self.variant.name, wanted.kind), mitigation.combines == "weights"
        if weights:
            self._check_models(f"mitigations.{wanted.number}")
        seeds = sorted(mitigation.choose(wanted.kind, self))
        self._tell(wanted.kind, seeds, weights)
        phases.end("choose")
        scores = self._soup(seeds, place) if weights else self._ensemble(seeds, place)
        phases.end("evaluate")
        validated = [{"seeds": some, "score": finite(value)} for some, value in self._validated.items()]
        result = {**self._opening(wanted, seeds), **phases.facts(), "validated": validated}
        return self._write({**result, "scores": {**wanted.known, **scores}, "inputs": wanted.inputs}, place)

    def failed(self, wanted: Combination, error: Exception) -> dict[str, Any]:
        """Make the result of what could not be made: written like any other, and tried again the next time."""
        result = {**failure(self._opening(wanted, []), error), "validated": [], "inputs": None}
        return self._write(result, self.folder.combined(self.variant.name, wanted.kind))

    def validated(self, seeds: Sequence[int]) -> float:
        key, recipe = tuple(sorted(seeds)), self.variant.recipe
        if key not in self._validated:
            _, model = self.mean(key)
            validation = self.session.validation(group_of(model, self.session.runtime))
            assert validation is not None, "check_combining refuses recipes without"
            [found] = validation.score()
            self._validated[key] = found[recipe.train.select]
        score, higher = self._validated[key], metrics.load(recipe.train.select).higher_is_better
        return -math.inf if math.isnan(score) else score if higher else -score

    def mean(self, seeds: Sequence[int]) -> tuple[Strategy, torch.nn.Module]:
        """Average the weights of some runs: a model in float32 on the CPU, and the strategy that saves it.

        Adapters are merged first: what they amount to is averaged, never their factors. One run alone stays as it is.
        """
        recipe, mean = self.variant.recipe, dict[str, torch.Tensor]()
        for number, seed in enumerate(self.session.runtime.track(sorted(seeds), "averaging weights"), start=1):
            built = self.session.build_on_cpu(Streams(seed, frozenset(recipe.vary)))
            built.restore(self._run(seed).model)
            model = built.model if len(seeds) == 1 else merged(built.model)
            for name, value in trained_parameters(model).items():
                # A running mean, in which equal weights stay what they are, to the bit.
                mean[name] = mean[name].lerp(value.detach(), 1 / number) if number > 1 else value.detach().clone()
        set_trained(model, mean)
        return built.strategy if model is built.model else WholeModel(None), model

    def _check_models(self, at: str) -> None:
        """Refuse runs that started from different pretrained weights, or whose model is gone."""
        bases: dict[str, list[int]] = {}
        for seed in self.seeds:
            bases.setdefault(self.results[seed].get("base", self.session.base.digest), []).append(seed)
            if not self._run(seed).model.exists():
                raise FinetuneError(f"the model of seed {seed}, {self._run(seed).model}, is gone")
        if bases.keys() != {self.session.base.digest}:
            each = "; ".join(f"{_named(seeds)} from {digest[:8]}" for digest, seeds in bases.items())
            raise bad_input(
                at,
                f"averages weights, and the runs of '{self.variant.name}' have started from other pretrained weights "
                f"than each other, or than model.source has now ({self.session.base.digest[:8]}): {each}",
                "restore the model they started from, or move the runs of the others away",
            )

    def _tell(self, kind: str, seeds: Sequence[int], weights: bool) -> None:
        """Tell a person which seeds are combined, before the score is there."""
        progress, title = self.session.runtime.progress, f"{self.session.runtime.title}, {kind}"
        left = sorted(self.results.keys() - finished(self.results).keys())
        said = f"of {_named(seeds)}"
        said += f", chosen from {_named(self.seeds)}" if len(seeds) < len(self.seeds) else ""
        said += f"; left out, because failed: {_named(left)}" if left else ""
        progress.say(f"{title} · {said}")
        if weights and len(self.seeds) > 1 and self.session.base.new and "init" in self.variant.recipe.vary:
            advice = "a soup wants one start (leave init out of `vary`)"
            progress.say(f"{title} · every seed has drawn a head of its own: {advice}")

    def _soup(self, seeds: Sequence[int], place: RunDir) -> Scores:
        """Save and score the mean of some runs' weights."""
        strategy, model = self.mean(seeds)
        runtime = self.session.runtime
        save_model(
            strategy, model, self.session.data, place.model, self.variant.recipe, runtime.accelerator.is_main_process
        )
        if runtime.accelerator.is_main_process:
            for task in self.session.data.held_out if len(seeds) == 1 else ():
                # The same weights say the same: what is stored is found again by its key.
                known = self._run(seeds[0]).predictions(task)
                if known.exists():
                    with atomic(place.predictions(task)) as temporary:
                        shutil.copyfile(known, temporary)
        runtime.accelerator.wait_for_everyone()
        [(scores, *_)] = self.session.score(group_of(model, runtime), [place])
        return scores

    def _ensemble(self, seeds: Sequence[int], place: RunDir) -> Scores:
        """Store and score the mean of some runs' predictions, on each task of which all of them have some."""
        scores: Scores = {}
        for task in self.session.data.held_out:
            paths = [self._run(seed).predictions(task) for seed in seeds]
            asked = self.session.data.task_of(task)
            if all(path.exists() for path in paths) and "probabilities" in asked.fills:
                stored = [store.read(path) for path in self.session.runtime.track(paths, "reading predictions")]
                together = metrics.with_own(ensemble(stored, asked.example_score, asked.choose), asked.metrics)
                if self.session.runtime.accelerator.is_main_process:
                    together.write(place.predictions(task))
                scores |= scores_on(task, together, asked.metrics)
        return scores

    def _run(self, seed: int) -> RunDir:
        return self.folder.run(self.variant.name, seed)

    def _opening(self, wanted: Combination, seeds: Sequence[int]) -> dict[str, Any]:
        """Make the first keys of a combination's `result.json`: `seeds` are in it, chosen from those `of` which it
        is."""
        strategy = self.variant.recipe.strategy.type
        about = {"strategy": strategy, "kind": wanted.kind, "seeds": list(seeds), "of": self.seeds}
        return {**opening(self.variant, None, "finished", None), **about}

    def _write(self, result: dict[str, Any], place: RunDir) -> dict[str, Any]:
        if self.session.runtime.accelerator.is_main_process:
            write_json(place.result, result)
        self.session.runtime.accelerator.wait_for_everyone()
        return result


def _named(seeds: Sequence[int]) -> str:
    """Name some seeds, in words."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
