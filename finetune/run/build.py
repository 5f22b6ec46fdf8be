"""From a recipe's options to the model that is trained: mitigations, strategy, device, and R runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetune import models
from finetune.core.errors import bad_input
from finetune.core.hooks import TrainingHook, TrainingHooks
from finetune.core.progress import phase
from finetune.core.randomness import Streams
from finetune.core.registry import MITIGATIONS, STRATEGIES
from finetune.core.runtime import Runtime
from finetune.mitigations.base import Mitigation
from finetune.models.pooled import pooled_in, read_pooling
from finetune.replicas.group import Member, ReplicaGroup
from finetune.replicas.prefix import Activations, CannotRemember, Prefix, bottom_digest, find_prefix
from finetune.replicas.stacked import Weights
from finetune.run.resources import TaskData
from finetune.run.side_by_side import check_group, remembers_rightly
from finetune.strategies.base import Strategy, set_training_mode, trained_parameters
from finetune.train.batching import steps_of
from finetune.train.identity import check_distinct, identity
from finetune.train.optimizer import check_optimizer
from finetune.train.solving import settle_pooling

if TYPE_CHECKING:
    from finetune.recipe import Recipe


def assemble(
    recipe: Recipe,
    base: models.BaseModel,
    data: TaskData,
    members: Sequence[Member],
    runtime: Runtime,
    other_seeds: dict[int, dict[str, Any]],
    begun: Sequence[Weights] = (),
) -> tuple[ReplicaGroup, Strategy, list[dict[str, Any]]]:
    """The members' runs as one model, the strategy that saves it, and each run's identity.

    ``other_seeds`` are results of the variant's other seeds; a member that would repeat one is refused. ``begun``: for
    each member, weights that were trained before, to start from.
    """
    starts: list[dict[str, Any]] = []
    weights = []
    for member in reversed(members):  # the first member's model is the one that stays
        with phase("preparing the model"):
            built = build(recipe, base, data, member.streams, runtime)
        model = built.model
        start = identity(model, data.train.examples, recipe.train, member.streams)
        others = {
            other.streams.seed: {"identity": known} for other, known in zip(reversed(members), starts, strict=False)
        }
        if not built.strategy.solves:  # what is solved is the same, from wherever it starts
            check_distinct(start, {**other_seeds, **others})
        starts.append(start)
        split = member.streams
        settle_pooling(model, base, data.task, data.train.examples, recipe.scoring.batch_size, split, runtime)
        with torch.no_grad():
            for name, value in (begun[len(members) - len(starts)] if begun else {}).items():
                model.get_parameter(name).copy_(value)
        weights.append({name: value.detach() for name, value in trained_parameters(model).items()})
    # What changes weights in ways of its own may change those too that no example uses.
    plain = built.strategy.optimizer_only and recipe.train.optimizer == "adamw" and not treated(recipe)
    group = ReplicaGroup.stack(model, weights[::-1], _seen(data, base.model.config) if plain else None)
    group.hooks, group.fresh = built.hooks, built.fresh
    if group.count > 1:
        check_group(group, data.task, data.train.examples, runtime)
        set_training_mode(group.model)
    return group, built.strategy, starts[::-1]


@dataclass(frozen=True)
class Built:
    """A run's model as training starts from it."""

    model: torch.nn.Module
    strategy: Strategy
    hooks: TrainingHooks
    """The strategy and the mitigations."""
    fresh: frozenset[str]
    """Names of trained parameters without a pretrained value."""

    def restore(self, folder: Path) -> None:
        """Put in what a run has saved in ``folder``: the weights that it trained, and how it pools."""
        self.strategy.restore(self.model, folder)
        pooled, pooling = pooled_in(self.model), read_pooling(folder)
        if pooled and pooling:
            pooled.pooling = pooling


def _seen(data: TaskData, config: Any) -> torch.Tensor | None:
    """The tokens that training meets, sorted: those of the examples, padding, and what an encoder-decoder puts before
    a text. None: any, where words are replaced at random."""
    if data.task.dynamic:
        return None
    ids = [example.inputs["input_ids"] for example in data.train.examples]
    padding = data.task.tokenizer.pad_token_id
    own = [0 if padding is None else padding]
    if getattr(config, "is_encoder_decoder", False):
        names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
        own += [found for name in names if isinstance(found := getattr(config, name, None), int) and found >= 0]
    return torch.from_numpy(np.unique(np.concatenate([*ids, own])).astype(np.int64))


def build(recipe: Recipe, base: models.BaseModel, data: TaskData, streams: Streams, runtime: Runtime) -> Built:
    """The model as training starts from it, on its device."""
    built = build_on_cpu(recipe, base, data, streams)
    to_device(built.model, runtime)
    return built


def build_on_cpu(recipe: Recipe, base: models.BaseModel, data: TaskData, streams: Streams) -> Built:
    """The model in float32 on the CPU: new parameters drawn, mitigations applied, what learns marked."""
    fresh = base.copy(streams)
    with streams.globally("init", 1):
        return prepare(recipe, fresh, data, base.new)


def to_device(model: torch.nn.Module, runtime: Runtime) -> torch.nn.Module:
    """Move the model to its device, frozen weights in the compute dtype.

    Weights that learn need float32's small steps; frozen ones are only multiplied with, but for normalisations', which
    have to be of one type, and may meet what a part that learns has made in float32. Buffers stay as they are: rotary
    frequencies lose far positions in bfloat16.
    """
    for module in model.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter.is_floating_point()]
        mixed = isinstance(module, torch.nn.LayerNorm) or any(parameter.requires_grad for parameter in own)
        for parameter in own:  # and none that is packed into a few bits
            precise = parameter.requires_grad or (mixed and parameter.ndim < 2)
            parameter.data = parameter.data.to(torch.float32 if precise else runtime.dtype)
    return model.to(runtime.device)


def hooks_of(recipe: Recipe) -> tuple[Strategy, list[Mitigation]]:
    """The recipe's strategy and its mitigations."""
    mitigations = [MITIGATIONS.get(options.type)(options) for options in recipe.mitigations]
    return STRATEGIES.get(recipe.strategy.type)(recipe.strategy), mitigations


def treated(recipe: Recipe) -> bool:
    """Whether a mitigation is at work while runs are trained, and not only on what has come out."""
    return any(mitigation.combines is None for mitigation in hooks_of(recipe)[1])


def prepare(recipe: Recipe, model: Any, data: TaskData, new: frozenset[str] = frozenset()) -> Built:
    """Apply the recipe's mitigations and strategy to a fresh model. Works on weightless models too."""
    data.task.check_model(model)
    if data.task.pooling:
        model.pooling = data.task.pooling
    strategy, mitigations = hooks_of(recipe)
    check_together(strategy, mitigations)
    head = models.head_parameters(model, new) if data.task.new_head else set(new)
    pretrained = {id(value) for name, value in model.named_parameters() if name not in head}
    changed: dict[str, torch.nn.Parameter] = {}
    for number, mitigation in enumerate(mitigations):
        names = mitigation.prepare(model, head, f"mitigations.{number}")
        own = {name: model.get_parameter(name) for name in names}
        changed |= own
        pretrained -= {id(value) for value in own.values()} if mitigation.redraws else set()
    strategy.changed = frozenset(changed)
    prepared = strategy.prepare(model, head)
    if frozen := [name for name, parameter in changed.items() if not parameter.requires_grad]:
        found = f"changes weights that strategy '{recipe.strategy.type}' leaves frozen, such as {frozen[0]}"
        raise bad_input("mitigations", found, "use strategy full, or a partial one that trains them")
    fresh = frozenset(name for name, value in trained_parameters(prepared).items() if id(value) not in pretrained)
    for number, mitigation in enumerate(mitigations):
        mitigation.check(prepared, fresh, f"mitigations.{number}")
    places: list[tuple[str, TrainingHook]] = [("strategy", each) for each in strategy.hooks]
    places += [(f"mitigations.{number}", each) for number, each in enumerate(mitigations)]
    check_optimizer(recipe.train, places, trained_parameters(prepared))
    return Built(prepared, strategy, TrainingHooks([each for _, each in places]), fresh)


def check_together(strategy: Strategy, mitigations: Sequence[Mitigation]) -> None:
    """Refuse mitigations that contradict each other or the strategy, and the same one twice."""
    for number, mitigation in enumerate(mitigations):
        if strategy.solves and mitigation.combines is None:
            found = f"'{mitigation.name}' is about training in steps, and a probe is solved"
            raise bad_input(f"mitigations.{number}", found, "leave it out, or write strategy.solver: steps")
        for other in (*strategy.hooks, *mitigations[:number]):
            reason = mitigation.contradicts.get(other.name)
            if isinstance(other, Strategy | Mitigation):
                reason = reason or other.contradicts.get(mitigation.name)
            if isinstance(other, Mitigation):
                reason = reason or ("it is there already" if other.name == mitigation.name else None)
            if reason:
                found = f"'{mitigation.name}' cannot stand beside '{other.name}': {reason}"
                raise bad_input(f"mitigations.{number}", found, "leave one of the two out")


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """How many there are, and how many learn."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"total": total, "trainable": sum(value.numel() for value in trained_parameters(model).values())}


def open_prefix(group: ReplicaGroup, recipe: Recipe, base: models.BaseModel, data: TaskData, runtime: Runtime) -> None:
    """Remember what the frozen bottom of the model makes of the examples, where there is one and it pays.

    Not used where it could change the result: where dropout is at work below, which one batch shows.
    """
    options, examples = recipe.train, data.train.examples
    each, steps = steps_of(examples, options)
    set_training_mode(group.model)
    can_cache_prefix = not data.task.dynamic and all(each.can_cache_prefix for each in group.hooks)
    names = find_prefix(group.model) if can_cache_prefix else []
    if not names or not options.prefix_cache or steps * group.count < each:
        return
    with runtime.autocast():
        data.task.way(group.model, group.count)  # which tries the model out, and would be mistaken for a batch
    with group.alone(0) as model:
        ways = [
            data.task.batching.name,
            str(getattr(data.task, "answering", None)),
            str(runtime.dtype),
            str(runtime.device),
        ]
        key = ("activations", *names, *ways, bottom_digest(model, names))
        prefix = Prefix(model, names, base.kept.setdefault(key, Activations(runtime.cache)))
        try:
            prefix.fill(model.eval(), data.task, examples, runtime, recipe.scoring.batch_size)
        except CannotRemember:
            prefix.close()
            return
        finally:
            set_training_mode(model)
        if not prefix.holds(model, data.task, examples[:2], runtime):
            prefix.close()
            runtime.progress.say("dropout is at work below what learns: its activations are not remembered")
            return
    group.prefix = prefix
    if not remembers_rightly(group, data.task, examples, runtime):
        group.prefix = None
        prefix.close()
        runtime.progress.say("from remembered activations outputs are others than from tokens: they are not remembered")
    set_training_mode(group.model)
