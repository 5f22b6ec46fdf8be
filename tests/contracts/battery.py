"""Trains any combination of plug-ins on tiny models as a real run does, and shows what it did.

A new plug-in has its example beside its own test; what it then has to hold is in the test files beside this one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import recipe as recipes
from finetune.core.answers import DISTRIBUTED
from finetune.core.errors import Interrupted
from finetune.core.examples import Example
from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS, Registry, paragraphs, summary
from finetune.core.run_dir import RunDir
from finetune.core.runtime import Runtime, make_deterministic, open_runtime
from finetune.core.signals import StopRequest
from finetune.models import processor
from finetune.replicas.group import Replica, ReplicaGroup
from finetune.runner.build import Built
from finetune.runner.resources import Resources
from finetune.runner.session import Session
from finetune.strategies.base import trained_parameters
from finetune.train.loop import train
from finetune.train.meters import read_rows
from tests.examples import examples_beside, examples_of

STEPS = 16


def plugin_of(example: str) -> str:
    """The plug-in that an example is of."""
    return example.partition("/")[0]


def example_of(registry: Registry, example: str) -> Any:
    """An example by its name."""
    return examples_beside(registry, plugin_of(example))[example]


def said(registry: Registry, example: str) -> dict[str, Any]:
    """What a recipe says to have it."""
    return {"type": plugin_of(example), **example_of(registry, example).options}


def data_of(task: str, pairs: bool, folder: Path, count: int) -> tuple[dict[str, Any], Path]:
    """What a recipe says of an example of a task, learnt from ``pairs`` or not, and its data, written to ``folder``."""
    example = example_of(TASKS, task)
    rejected = {"rejected": "rejected"} if pairs else {}
    return {**said(TASKS, task), **rejected}, (example.pairs if pairs else example.data)(folder, count)


def training(strategy: str) -> dict[str, Any]:
    """What of training goes with an example of a strategy."""
    example = example_of(STRATEGIES, strategy)
    return {"learning_rate": example.rate, **example.train}


def plugin(registry: Registry, example: str) -> Any:
    """The plug-in of an example, with its options."""
    found = registry.get(plugin_of(example))
    return found(found.Options(**said(registry, example)))


def missing(registry: Registry) -> str:
    """What to do about plug-ins without an example; empty when there are none."""
    names = sorted(registry.all().keys() - set(map(plugin_of, examples_of(registry))))
    return names and f"give {registry.kind} {', '.join(names)} an entry of EXAMPLES in its test file"


SHARED = 3
"""Of so many tasks a further example of a plug-in meets one, and a mitigation as well."""


def combinations(registry: Registry) -> list[tuple[str, str, str, str | None]]:
    """(strategy, task, model, mitigation): every strategy with everything it may meet. Where a strategy has several
    further examples, these share the other tasks out between them, and so do mitigations: each meets classification
    and a third of the rest, and each task meets several."""
    tasks = examples_of(TASKS)
    # What combines finished runs does nothing while they are trained.
    working = [one for one in examples_of(MITIGATIONS) if MITIGATIONS.get(plugin_of(one)).combines is None]
    mitigations = working if registry.kind == "mitigation" else [None]
    strategies = list(examples_of(STRATEGIES)) if registry.kind == "strategy" else ["full"]
    return [
        (strategy, task, model, mitigation)
        for strategy in strategies
        for task in tasks
        for model in tasks[task].models
        for mitigation in mitigations
        if mitigation is None or model == tasks[task].models[0]
        # An encoder-decoder takes the longest.
        if not has_both(task, model) or plugin_of(strategy) == strategy
        if not tasks[task].alone or (strategy == "full" and mitigation is None)
        if _possible(strategy, task, mitigation)
        if _falls_to(strategy, task, mitigation)
    ]


def _falls_to(strategy: str, task: str, mitigation: str | None) -> bool:
    """Whether a further example of a strategy, or a mitigation, meets a task, of those that are shared out."""
    siblings = [one for one in examples_beside(STRATEGIES, plugin_of(strategy)) if one != plugin_of(one)]
    siblings, own = (list(examples_of(MITIGATIONS)), mitigation) if mitigation else (siblings, strategy)
    if own not in siblings or len(siblings) < SHARED:
        return True
    shared = [
        name
        for name, found in examples_of(TASKS).items()
        if name != QUICK_TASKS[0] and not found.alone and _possible(strategy, name, mitigation)
    ]
    return task not in shared or task in (shared[siblings.index(own) % SHARED :: SHARED] or shared)


def has_both(task: str, model: str) -> bool:
    """Whether that task's model has an encoder and a decoder."""
    return model == "encoder-decoder" or example_of(TASKS, task).both


def _possible(strategy: str, task: str, mitigation: str | None) -> bool:
    """Whether a recipe may ask for them together."""
    learnt, how = plugin(TASKS, task), plugin(STRATEGIES, strategy)
    if (how.pairs and "rejected" not in learnt.Options.model_fields) or (how.needs_head and not learnt.new_head):
        return False
    if solves(how) and learnt.new_head and learnt.answer != "label":
        return False
    cure = MITIGATIONS.get(plugin_of(mitigation)) if mitigation else None
    if cure is None:
        return True
    return (learnt.new_head or not cure.needs_head) and (learnt.answer in DISTRIBUTED or not cure.shapes_losses)


def solves(how: Any) -> bool:
    """Whether a strategy solves for a probe, at once or to begin with."""
    first = how.before()
    return bool(how.solves or (first is not None and STRATEGIES.get(first[0].type)(first[0]).solves))


QUICK_TASKS = ("classification", "chat", "language")
QUICK_STRATEGIES = ("full", "adapter", "linear")


def every(found: Sequence[tuple[str, str, str, str | None]]) -> Any:
    """Parametrises a test by combinations. The default suite has everything with classification on its first model, the
    plainest strategies with every task on its first model and with three tasks on all; the rest is for the slow one.

    All tests of a module that take one combination come one after another: what it trains is kept no longer."""

    def param(combination: tuple[str, str, str, str | None]) -> Any:
        strategy, task, model, mitigation = combination
        first = model == example_of(TASKS, task).models[0]
        plain = strategy in QUICK_STRATEGIES and mitigation is None and (first or task in QUICK_TASKS)
        marks = [] if (task == QUICK_TASKS[0] and first) or plain else [pytest.mark.slow]
        return pytest.param(combination, id="-".join(filter(None, combination)), marks=marks)

    return pytest.mark.parametrize("combination", list(map(param, found)), scope="module")


def once_each(registry: Registry) -> list[tuple[str, str, str, str | None]]:
    """One combination for every example of ``registry``."""
    of = ("strategy", "", "", "mitigation").index(registry.kind)
    return list({combination[of]: combination for combination in reversed(combinations(registry))}.values())


def well_documented(registry: Registry, name: str) -> None:
    """A plug-in can be listed, found, and every option of it is explained."""
    plugin = registry.get(name)
    assert registry.file(name).is_file() and registry.file(name).parent.name == registry.package.rpartition(".")[2]
    assert plugin.name == name and summary(plugin).endswith(".")
    for start in ("Source: ", "Not for: ") if registry.kind != "task" else ():
        assert any(text.startswith(start) for text in paragraphs(plugin)), f"a paragraph '{start}...' in its docstring"
    schema = plugin.Options.model_json_schema()
    assert schema.get("description"), "the options have a docstring"
    assert schema["properties"]["type"].get("const") == name
    silent = [key for key, entry in schema["properties"].items() if key != "type" and not entry.get("description")]
    assert silent == [], "every option has a docstring below it"


class StopAt(Progress):
    """Asks the run to stop once it has done so many steps."""

    def __init__(self, stop: StopRequest, at: int | None):
        super().__init__()
        self.stop, self.at = stop, at

    def step(self, done: int, note: str) -> None:
        self.stop.requested |= done == self.at


@dataclass
class Outcome:
    """A model before and after training."""

    model: torch.nn.Module
    strategy: Any
    initial: dict[str, torch.Tensor]
    """Every parameter as training found it."""
    losses: list[float]
    """Of each step, as the log has them."""
    first: float
    """Mean loss of the training examples before training, without dropout."""
    last: float

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self.model.named_parameters()}

    @property
    def trained(self) -> set[str]:
        return set(trained_parameters(self.model))

    def changed(self) -> set[str]:
        """Names of the parameters that training changed, in any bit."""
        return {name for name, value in self.weights.items() if not torch.equal(value, self.initial[name])}


@dataclass
class Battery:
    """One combination of plug-ins, with its data and base model, loaded once."""

    folder: Path
    model_folder: Path
    strategy: str
    task: str
    mitigation: str | None = None
    resources: Resources = field(default_factory=Resources)

    @cached_property
    def recipe(self) -> Any:
        task, data = data_of(self.task, STRATEGIES.get(plugin_of(self.strategy)).pairs, self.folder, 44)
        content = {
            "model": {"source": str(self.model_folder), "dtype": "float32", "device": "cpu", "new": ["cls"]},
            "data": {"train": {"path": str(data)}, "split": {"test": 12}},
            "task": task,
            "strategy": said(STRATEGIES, self.strategy),
            "train": {
                "max_steps": STEPS,
                "min_steps": STEPS,
                "batch_size": 8,
                **training(self.strategy),
            },
        }
        if self.mitigation:
            content["mitigations"] = [said(MITIGATIONS, self.mitigation)]
        path = self.folder / "recipe.yaml"
        path.write_text(json.dumps(content))  # JSON is YAML too
        return recipes.load(path).variants[0].recipe

    @cached_property
    def data(self) -> Any:
        return self.resources.data(self.recipe, split_seed=0)

    @property
    def seen(self) -> list[Example]:
        """The training examples, as they are seen once."""
        return [self.data.task.resample(example, example.number) for example in self.data.train.examples]

    def runtime(self, dtype: torch.dtype = torch.float32) -> Runtime:
        """What a run runs in, in that arithmetic."""
        return open_runtime(*processor(self.recipe.model), Progress(), StopRequest(), self.folder).at("", dtype)

    def session(self, dtype: torch.dtype = torch.float32) -> Session:
        """What its runs stand on."""
        base = self.resources.base(self.recipe.model, self.data.task)
        return Session(self.recipe, base, self.data, self.runtime(dtype))

    def fresh(self, seed: int, dtype: torch.dtype = torch.float32) -> Built:
        """Model and hooks as a run starts from them."""
        return self.session(dtype).build(Streams(seed))

    def run(self, seed: int, name: str, stop_at: int | None = None, dtype: torch.dtype = torch.float32) -> Outcome:
        """Train, in that arithmetic; a run that was stopped under the same name goes on where it was."""
        make_deterministic(True)
        stop = StopRequest()
        runtime = open_runtime(*processor(self.recipe.model), StopAt(stop, stop_at), stop, self.folder)
        runtime, replica = runtime.at(name, dtype), Replica(Streams(seed), RunDir(self.folder / name))
        built = self.fresh(seed, dtype)
        model, group = built.model, ReplicaGroup(built.model, hooks=built.hooks, fresh=built.fresh)
        initial = {name: value.detach().clone() for name, value in model.named_parameters()}
        task, examples = self.data.task, self.data.train.examples
        batch = task.collate(self.seen)

        def mean_loss() -> float:
            with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                return float(task.losses(model.eval(), batch).mean())

        first = mean_loss()
        try:
            train(group, task, examples, self.recipe.train, [replica], runtime, None)
        except Interrupted:
            assert stop_at is not None
        losses = [row["loss"] for row in read_rows(replica.folder.metrics)]
        return Outcome(model, built.strategy, initial, losses, first, mean_loss())

    def losses(self, model: torch.nn.Module) -> torch.Tensor:
        """Losses of the training examples, which every output that matters goes into."""
        with torch.no_grad():
            return self.data.task.losses(model.eval(), self.data.task.collate(self.seen))
