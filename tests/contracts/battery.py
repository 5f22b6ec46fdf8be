"""Trains any combination of plug-ins on tiny models as a real run does, and shows what it did.

A new plug-in needs one line in EXAMPLES; what it then has to hold is in the test files beside this one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from finetune import recipe as recipes
from finetune.core.errors import Interrupted
from finetune.core.examples import Example
from finetune.core.progress import Progress
from finetune.core.randomness import Streams
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS, Registry, paragraphs, summary
from finetune.core.run_dir import RunDir
from finetune.core.runtime import Runtime, make_deterministic, open_runtime
from finetune.core.signals import StopRequest
from finetune.models import processor
from finetune.replicas.group import Member, ReplicaGroup
from finetune.run.build import Built, build
from finetune.run.resources import Resources
from finetune.strategies.base import trained_parameters
from finetune.train.loop import train
from finetune.train.meters import read_rows
from tests import tiny

EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "strategy": {
        "adapter": {"rank": 4},
        "adapter/adalora": {"method": "adalora", "rank": 4},
        "adapter/ia3": {"method": "ia3", "dropout": 0.0},
        "adapter/ln-tuning": {"method": "ln-tuning", "dropout": 0.0},
        "adapter/prefix": {"method": "prefix", "dropout": 0.0, "options": {"num_virtual_tokens": 4}},
        "adapter/prompt": {"method": "prompt", "dropout": 0.0, "options": {"num_virtual_tokens": 4}},
        "adaptive": {"method": "layerwise"},
        "adaptive/groups": {"method": "groups", "groups": [{"pattern": "*embed*", "factor": 0.5}]},
        "adaptive/prodigy": {"method": "prodigy"},
        "adaptive/schedule-free": {"method": "schedule-free"},
        "full": {},
        "linear": {"solver": "steps"},
        "linear/linearised": {"mode": "linearised"},
        "partial": {"last": 1},
        "preference": {"of": {"type": "adapter", "rank": 4}},
        "partial/unfreeze": {"patterns": ["*"], "unfreeze": 0.6},
    },
    "mitigation": {
        "child-tuning": {"fisher_examples": 8},
        "child-tuning/free": {"mode": "F"},
        "ensemble": {},
        "ema": {},
        "l2-sp": {"strength": 0.1},
        "label-smoothing": {},
        "layerwise-decay": {"decay": 0.5},
        "mixout": {"p": 0.5},
        "neftune": {"alpha": 0.5},
        "noisytune": {"intensity": 0.5},
        "r3f": {"eps": 0.05},
        "r4f": {"eps": 0.05},
        "reinit": {"layers": 1},
        "soup": {},
        "smart": {"sigma": 0.01, "eta": 0.1, "epsilon": 0.05},
        "swa": {"start": 0.25},
    },
    "task": {
        "chat": {"prompt": "prompt", "completion": "completion", "max_length": 64},
        "classification": {"max_length": 32},
        "language": {"max_length": 16},
    },
}
"""Options of each plug-in that work on models of two blocks; several of one are told apart by `plug-in/word`."""

RATES = {
    "adapter/adalora": 0.1,
    "adapter/ia3": 0.1,
    "adapter/ln-tuning": 3e-2,
    "adapter/prefix": 3e-2,
    "adapter/prompt": 3e-2,
    "adaptive": 3e-3,
    "full": 3e-3,
    "linear": 3e-2,
}
"""Learning rates where 1e-2 is not the one."""

FALLS = {
    "adapter/adalora": 0.98,
    "adapter/ia3": 0.998,
    "adapter/ln-tuning": 0.998,
    "adapter/prefix": 0.98,
    "adapter/prompt": 0.999,
}
"""To what share of itself the loss falls at least, where 0.95 is too much to ask: few weights beside a frozen random
model can do little."""

TRAIN: dict[str, dict[str, Any]] = {"adaptive/prodigy": {"learning_rate": 1.0, "prodigy": {"d0": 3e-4}}}
"""Options of training that go with an example: Prodigy takes more than a few steps to find its rate."""

MODELS = {
    "classification": ["encoder", "decoder", "encoder-decoder"],
    "chat": ["decoder"],
    "language": ["encoder", "decoder"],
}
"""Which tiny models a task runs on; a new task runs on the decoder. The encoder-decoder takes the longest: of
a strategy's examples only the one of its own name runs on it, and no mitigation; on language modelling, full alone.
A mitigation meets nothing in a decoder that classifies which an encoder or a decoder that chats does not show it."""

STEPS = 16


def plugin_of(example: str) -> str:
    """The plug-in that an example is of."""
    return example.partition("/")[0]


def said(kind: str, example: str) -> dict[str, Any]:
    """What a recipe says to have it."""
    return {"type": plugin_of(example), **EXAMPLES[kind][example]}


def plugin(registry: Registry, example: str) -> Any:
    """The plug-in of an example, with its options."""
    found = registry.get(plugin_of(example))
    return found(found.Options(**said(registry.kind, example)))


def missing(registry: Registry) -> str:
    """What to do about plug-ins without an example; empty when there are none."""
    names = sorted(registry.all().keys() - set(map(plugin_of, EXAMPLES[registry.kind])))
    return names and f"give {registry.kind} {', '.join(names)} a line of options in {__name__}.EXAMPLES"


def combinations(registry: Registry) -> list[tuple[str, str, str, str | None]]:
    """(strategy, task, model, mitigation): every plug-in of ``registry`` with everything it may meet."""
    known = {kind: list(examples) for kind, examples in EXAMPLES.items()}
    # What combines finished runs does nothing while they are trained.
    known["mitigation"] = [one for one in known["mitigation"] if MITIGATIONS.get(plugin_of(one)).combines is None]
    mitigations = known["mitigation"] if registry.kind == "mitigation" else [None]
    strategies = known["strategy"] if registry.kind == "strategy" else ["full"]
    return [
        (strategy, task, model, mitigation)
        for strategy in strategies
        for task in known["task"]
        for model in MODELS.get(task, ["decoder"])
        for mitigation in mitigations
        if mitigation is None or (task, model) != ("classification", "decoder")
        if model != "encoder-decoder" or (mitigation is None and plugin_of(strategy) == strategy)
        if task != "language" or (strategy == "full" and mitigation is None)
        if TASKS.get(task).new_head or not plugin(STRATEGIES, strategy).needs_head
        if task == "chat" or not plugin(STRATEGIES, strategy).pairs
        if TASKS.get(task).new_head or mitigation is None or not plugin(MITIGATIONS, mitigation).needs_head
    ]


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
        pairs = STRATEGIES.get(plugin_of(self.strategy)).pairs
        if self.task == "chat":
            data = (tiny.write_pairs if pairs else tiny.write_chats)(self.folder / "data.jsonl", 44)
        else:
            data = tiny.write_csv(self.folder / "data.csv", tiny.sentences(44))
        content = {
            "model": {"source": str(self.model_folder), "dtype": "float32", "device": "cpu", "new": ["cls"]},
            "data": {"train": {"path": str(data)}, "split": {"test": 12}},
            "task": {**said("task", self.task), **({"rejected": "rejected"} if pairs else {})},
            "strategy": said("strategy", self.strategy),
            "train": {
                "max_steps": STEPS,
                "min_steps": STEPS,
                "batch_size": 8,
                "learning_rate": RATES.get(self.strategy, 1e-2),
                **TRAIN.get(self.strategy, {}),
            },
        }
        if self.mitigation:
            content["mitigations"] = [said("mitigation", self.mitigation)]
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

    def fresh(self, seed: int, dtype: torch.dtype = torch.float32) -> Built:
        """Model and techniques as a run starts from them."""
        runtime = self.runtime(dtype)
        base = self.resources.base(self.recipe, self.data.task)
        return build(self.recipe, base, self.data, Streams(seed), runtime)

    def run(self, seed: int, name: str, stop_at: int | None = None, dtype: torch.dtype = torch.float32) -> Outcome:
        """Train, in that arithmetic; a run that was stopped under the same name goes on where it was."""
        make_deterministic(True)
        stop = StopRequest()
        runtime = open_runtime(*processor(self.recipe.model), StopAt(stop, stop_at), stop, self.folder)
        runtime, member = runtime.at(name, dtype), Member(Streams(seed), RunDir(self.folder / name))
        built = self.fresh(seed, dtype)
        model, group = built.model, ReplicaGroup(built.model)
        group.hooks, group.fresh = built.hooks, built.fresh
        initial = {name: value.detach().clone() for name, value in model.named_parameters()}
        task, examples = self.data.task, self.data.train.examples
        batch = task.collate(self.seen)

        def mean_loss() -> float:
            with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                return float(task.losses(model.eval(), batch).mean())

        first = mean_loss()
        try:
            train(group, task, examples, self.recipe.train, [member], runtime, None)
        except Interrupted:
            assert stop_at is not None
        losses = [row["loss"] for row in read_rows(member.folder.metrics)]
        return Outcome(model, built.strategy, initial, losses, first, mean_loss())

    def losses(self, model: torch.nn.Module) -> torch.Tensor:
        """Losses of the training examples, which every output that matters goes into."""
        with torch.no_grad():
            return self.data.task.losses(model.eval(), self.data.task.collate(self.seen))
