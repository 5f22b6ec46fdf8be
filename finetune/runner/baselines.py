"""Cheap baselines of a study: which there are, what they may ask of the untuned model, and their results on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune import models
from finetune.core.encoded import Examples
from finetune.core.errors import FinetuneError
from finetune.core.examples import Example, Prediction
from finetune.core.progress import phase
from finetune.core.randomness import Streams
from finetune.core.registry import summary
from finetune.core.run_dir import FORMAT, RunDir, write_json
from finetune.evaluate import metrics
from finetune.evaluate.predict import predictions_of, table_of
from finetune.models.pooled import HEAD
from finetune.models.pooling import POOLED
from finetune.replicas.group import ReplicaGroup
from finetune.runner.build import group_of
from finetune.runner.resources import TaskData
from finetune.runner.scoring import Scores, scores_on
from finetune.runner.session import Session
from finetune.tasks.baselines.base import Baseline, ExampleSet
from finetune.train.features import scaled
from finetune.train.meters import Phases
from finetune.train.probe import fit
from finetune.train.solving import features_of

if TYPE_CHECKING:
    from finetune.recipe import Recipe, Variant

WORDS = 10
"""How many times as many tokens those baselines may read that learn from words alone: they take no pass of a model."""

MODE = "mean"
"""How tokens' hidden states become features where sentence-transformers' files beside the model say nothing."""


@dataclass(frozen=True)
class Planned:
    """A baseline of a study, and the reason why it is not computed, if there is one."""

    baseline: Baseline
    left_out: str | None

    def facts(self) -> dict[str, Any]:
        """Give what `data.json` says of it."""
        return {"name": self.baseline.name, "about": summary(type(self.baseline)), "left_out": self.left_out}


def planned(recipe: Recipe, data: TaskData) -> list[Planned]:
    """List the baselines of the task, each with the reason why ``recipe`` leaves it out, if it does."""
    return [Planned(each, _left_out(each, recipe, data)) for each in data.task.baselines(recipe.baselines.shots)]


def _left_out(baseline: Baseline, recipe: Recipe, data: TaskData) -> str | None:
    """Say why a baseline is not computed; None: it is."""
    if not recipe.baselines.enabled:
        return "baselines.enabled is false"
    if "split" in recipe.vary:
        return "`vary` has split: each seed has training and held-out examples of its own, and a baseline has no seed"
    if baseline.repeats_inputs and not recipe.scoring.keep_texts:
        return "scoring.keep_texts is false, and its answers are texts of held-out examples"
    if baseline.uses in ("features", "words"):
        sets, limit = [data.train, *data.shared.values()], recipe.baselines.limit
        tokens = sum(int(each.examples.lengths.sum()) for each in sets)
        if baseline.uses == "features" and tokens > limit:
            return f"features of {tokens:,} tokens are more than baselines.limit, which is {limit:,}"
        if baseline.uses == "words" and tokens > WORDS * limit:
            times = f"{WORDS} times baselines.limit, which is {limit:,}"
            return f"words of {tokens:,} tokens are more than {times}"
    return None


def in_words(found: Iterable[Planned]) -> list[str]:
    """Write lines for a person: which baselines are computed, and which are not."""
    every = list(found)
    reasons: dict[str, list[str]] = {}
    for each in every:
        if each.left_out is not None:
            reasons.setdefault(each.left_out, []).append(each.baseline.name)
    computed = ", ".join(each.baseline.name for each in every if each.left_out is None)
    if not computed and len(reasons) < 2:
        return [" ".join(["baselines: none", *(f"({reason})" for reason in reasons)])]
    left_out = [f"left out: {', '.join(names)} ({reason})" for reason, names in reasons.items()]
    return [f"baselines: {'; '.join([computed or 'none', *left_out])}"]


@dataclass
class UntunedModel:
    """The base model of a study's first variant, as baselines ask it. It is loaded when it is first asked."""

    session: Session

    def features(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        base, model, mode = self._frozen
        task, size = self.session.data.task, self.session.recipe.scoring.batch_size
        found = features_of(model, HEAD, base, task, examples, (mode,), size, self.session.runtime)
        return scaled(found[mode], True).numpy()

    def probe(
        self, features: NDArray[np.float32], classes: Sequence[int], count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        runtime, found = self.session.runtime, None
        if runtime.accelerator.is_main_process:
            vectors = {"features": torch.from_numpy(features)}
            found = fit(vectors, True, classes, count, True, Streams(0, frozenset()), runtime)
        solved = runtime.broadcast(found)
        return solved.weights.numpy(), solved.biases.numpy()

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        task, size, runtime = self.session.data.task, self.session.recipe.scoring.batch_size, self.session.runtime
        limit, longest = models.positions_of(self.session.base.model), task.positions(Examples.of(examples)).max()
        if limit is not None and longest > limit:
            needed = f"a question with what is shown before it needs {longest} tokens"
            raise FinetuneError(f"{needed}, and the model has room for {limit}: ask for fewer baselines.shots")
        [found] = predictions_of(self._answering, task, examples, size, runtime, title=f"{runtime.title}: answering")
        return found

    @cached_property
    def _answering(self) -> ReplicaGroup:
        """The model with its own head."""
        model = self.session.base.copy(Streams(0)).requires_grad_(False)
        return group_of(model, self.session.runtime)

    @cached_property
    def _frozen(self) -> tuple[models.BaseModel, torch.nn.Module, str]:
        """The base model without a head of its own; the same on the device; and how it pools."""
        options, task = self.session.recipe.model, self.session.data.task
        said = models.declared(options)
        base, own = self.session.base, task.architecture == POOLED
        if not own:  # not kept for the study's runs, which have no use for it
            with phase(f"loading {options.source}"):
                base = models.load_base(options, POOLED, True, num_labels=1, pad_token_id=task.tokenizer.pad_token_id)
        model = (base.copy(Streams(0)) if own else base.model).requires_grad_(False)
        return base, group_of(model, self.session.runtime).model, said.mode if said else MODE


def score_baseline(
    baseline: Baseline, session: Session, untuned: UntunedModel, folder: RunDir, opening: Mapping[str, Any], alone: bool
) -> dict[str, Any]:
    """Fit a baseline and score it on every held-out set of its task, as a run is scored; write its `result.json`, last,
    and give it. Features are computed for the first that asks, and are in its seconds.

    ``opening``: its first keys; the scores in it are known already. ``alone``: other processes do not take part."""
    data, runtime = session.data, session.runtime
    phases = Phases(runtime.device, total=float if alone else runtime.all_reduce_sum)
    baseline.fit(ExampleSet("data.train", data.learnt["train"], data.train), untuned)
    phases.end("train")
    scores: Scores = {}
    further = {each.name for each in session.recipe.evaluate}
    for task, encoded in data.shared.items():
        at = f"evaluate.{task}.data" if task in further else "data.test"
        found = baseline.predict(ExampleSet(at, data.tables[task], encoded))
        names = session.recipe.task.metrics
        predictions = metrics.with_own(table_of(data.task, encoded.examples, found), names)
        if runtime.accelerator.is_main_process:
            predictions.write(folder.predictions(task))
        scores |= scores_on(task, predictions, metrics.computable(predictions, names))
    phases.end("evaluate")
    result = {**opening, **phases.facts(), "scores": {**opening["scores"], **scores}}
    if runtime.accelerator.is_main_process:
        write_json(folder.result, result)
    return result


def opening(baseline: Baseline, variant: Variant, base: str | None, inputs: Any, known: Scores) -> dict[str, Any]:
    """Make what stands in a baseline's `result.json` whatever comes of it: the keys of a run's, of which it has no
    more; what it is; and what it comes from (``inputs``). ``base`` is the digest of the weights that it uses, and
    ``known`` are scores on sets that are not scored now."""
    return {
        "format": FORMAT,
        "variant": baseline.name,
        "about": summary(type(baseline)),
        "uses": baseline.uses,
        "seed": None,
        "digest": variant.digest,
        "strategy": "none",
        "status": "finished",
        "reason": None,
        "seconds": None,
        "latency": {},
        "parameters": None,
        "scores": known,
        "training": None,
        "identity": None,
        "base": base,
        "streams": None,
        "inputs": inputs,
    }
