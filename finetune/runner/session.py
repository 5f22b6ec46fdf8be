"""One recipe and all that its runs stand on: from here they are assembled, trained, validated and scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetune.core.progress import phase
from finetune.core.randomness import Streams
from finetune.core.run_dir import RunDir
from finetune.core.runtime import Runtime, allow_tf32
from finetune.data.mixture import codes
from finetune.metrics.base import Metric
from finetune.models import BaseModel
from finetune.replicas.group import Replica, ReplicaGroup
from finetune.replicas.prefix import Activations, CannotRemember, Prefix, bottom_digest, find_prefix
from finetune.replicas.stacked import Weights
from finetune.runner.build import Built, make_strategy, prepare, sharded, to_device, treated
from finetune.runner.fitting import tokens_that_fit
from finetune.runner.parity import compared
from finetune.runner.reference import Reference, needs_reference
from finetune.runner.resources import Resources, TaskData
from finetune.runner.scoring import Scored, score_held_out, validate_with
from finetune.runner.side_by_side import check_group, remembers_rightly
from finetune.strategies.base import Strategy, set_training_mode, trained_parameters
from finetune.train.batching import plan_batches, steps_of
from finetune.train.identity import check_distinct, identity
from finetune.train.loop import train
from finetune.train.portions import Portions
from finetune.train.solving import settle_pooling, solve_head
from finetune.train.state import Trained, Validation

if TYPE_CHECKING:
    from finetune.recipe import Recipe


@dataclass(frozen=True)
class Assembled:
    """Replicas as one model, as training starts from it, and as it leaves it."""

    replicas: Sequence[Replica]
    group: ReplicaGroup
    strategy: Strategy
    """Saves what is trained."""
    identities: list[dict[str, Any]]
    """Of each replica, what tells it from runs under other seeds."""


@dataclass(frozen=True)
class Session:
    """A recipe, the base model and the data that it names, and what its runs run in."""

    recipe: Recipe
    base: BaseModel
    data: TaskData
    runtime: Runtime

    @classmethod
    def open(
        cls, resources: Resources, recipe: Recipe, split_seed: int, runtime: Runtime, of: Recipe | None = None
    ) -> Session:
        """Load what ``recipe`` names, once for all sessions over ``resources``, and find out what examples may share.
        ``of``: see :meth:`Resources.data`.

        Raises InputError for data that cannot serve, and for a model that cannot be run as its authors run it.
        """
        allow_tf32(recipe.compute.tf32)
        runtime = runtime.sharding(recipe.compute.shard)
        data = resources.data(recipe, split_seed, of)
        base = resources.base(recipe.model, data.task, recipe.compute.attention)
        shared = compared(resources, data, base, runtime)
        most = tokens_that_fit(recipe, base.model.config, data.train.examples, runtime.dtype)
        runtime = replace(runtime, part_tokens=min(runtime.part_tokens, most))
        return cls(recipe, base, data.with_tasks(shared), runtime)

    @property
    def strategy(self) -> Strategy:
        """Make the recipe's strategy, which has prepared no model yet."""
        return make_strategy(self.recipe.strategy)

    def build_on_cpu(self, streams: Streams) -> Built:
        """Build a run's model in float32 on the CPU: new parameters drawn, mitigations applied, what learns marked."""
        return self._prepared(self.base.copy(streams), streams)

    def build(self, streams: Streams) -> Built:
        """Build a run's model as training starts from it, on its device. What does not learn it shares with other runs,
        unless something is to change it, or to compute with it in float32."""
        if self.strategy.reads_weights or treated(self.recipe.mitigations):
            built = self.build_on_cpu(streams)
        else:
            built = self._prepared(self.base.view(streams), streams)
            self.base.own(built.model)
        to_device(built.model, self.runtime, self.recipe.compute.weights, self.base)
        return built

    def _prepared(self, fresh: Any, streams: Streams) -> Built:
        said = self.recipe
        with streams.globally("init", 1):
            return prepare(fresh, self.data.task, said.strategy, said.mitigations, said.train.optimizer, self.base.new)

    @property
    def _familiar(self) -> bool:
        """Tell whether the base model has learnt from the run's own examples and their labels, in a stage before it."""
        return any(stage.data is None and stage.task.type != "language" for stage in self.recipe.stages)

    def assemble(
        self,
        replicas: Sequence[Replica],
        other_seeds: Mapping[int, Mapping[str, Any]] | None = None,
        begun: Sequence[Weights] = (),
    ) -> Assembled:
        """Put the replicas' runs together as one model.

        ``other_seeds`` are results of the variant's other seeds; a replica that would repeat one is refused. ``begun``:
        for each replica, weights that were trained before, to start from.
        """
        recipe, examples = self.recipe, self.data.train.examples
        identities: dict[int, dict[str, Any]] = {}
        weights: list[Weights] = []
        for number, replica in reversed(list(enumerate(replicas))):  # the first one's model is the one that stays
            with phase("preparing the model"):
                built = self.build(replica.streams)
            first = plan_batches(examples, recipe.train, replica.streams).batch(0)
            start = identity(built.model, [examples[index] for index in first], replica.streams)
            if not built.strategy.solves:  # what is solved is the same, from wherever it starts
                others = {replicas[other].streams.seed: {"identity": known} for other, known in identities.items()}
                check_distinct(start, {**(other_seeds or {}), **others})
            identities[number] = start
            size = recipe.scoring.batch_size
            about = (examples, size, replica.streams, self.runtime, self._familiar)
            settle_pooling(built.model, self.base, self.data.task, *about)
            with torch.no_grad():
                for name, value in (begun[number] if begun else {}).items():
                    built.model.get_parameter(name).copy_(value)
            weights.insert(0, {name: value.detach() for name, value in trained_parameters(built.model).items()})
        # What changes weights in ways of its own may change those too that no example uses; in few bits decay is
        # rounded.
        plain = built.strategy.optimizer_only and recipe.train.optimizer == "adamw" and not treated(recipe.mitigations)
        # What may be split over processes is kept whole by one alone, too, so that any number of them goes on with it.
        plain = plain and recipe.compute.weights == "float32" and not recipe.compute.shard
        seen = _seen(self.data, self.base.model.config) if plain else None
        group = ReplicaGroup.stack(built.model, weights, seen, built.hooks, built.fresh)
        if self.runtime.shards:
            weights.clear()  # or what is split would stay whole beside its parts
            sharded(group.model, self.runtime)
        if group.count > 1:
            check_group(group, self.data.task, examples, self.runtime)
            set_training_mode(group.model)
        return Assembled(replicas, group, built.strategy, [identities[number] for number in range(len(replicas))])

    def train(self, replicas: Sequence[Replica]) -> tuple[Assembled, list[Trained]]:
        """Assemble ``replicas`` and fit them; give each one's outcome."""
        assembled = self.assemble(replicas)
        return assembled, self.fit(assembled)

    def fit(self, assembled: Assembled, compiled: bool = False) -> list[Trained]:
        """Solve or train what learns; give each replica's outcome. ``compiled``: whether to compile the model.

        Raises Interrupted after saving when asked to stop.
        """
        group, replicas, task, examples = assembled.group, assembled.replicas, self.data.task, self.data.train.examples
        if assembled.strategy.solves:
            size, streams = self.recipe.scoring.batch_size, replicas[0].streams
            return [solve_head(group.model, self.base, task, examples, size, streams, self.runtime, self._familiar)]
        self.speed_up(group, compiled)
        options, validation = self.recipe.train, self.validation(group)
        about = (validation, self.portions(), self.recipe.compute)
        return train(group, task, examples, options, replicas, self.runtime, *about)

    def portions(self) -> Portions | None:
        """Say which source each training example is from; None where there is one source."""
        names = list(self.recipe.data.portions)
        if not names:
            return None
        of = codes(self.data.learnt["train"], names)
        rows = self.data.train.rows
        return Portions(names, of if rows is None else of[rows])

    def take_steps(self, assembled: Assembled, count: int, title: str | None = None) -> None:
        """Train for ``count`` steps and no more, without validation and checkpoints, to see what they do."""
        few = {"max_steps": count, "min_steps": count, "evaluations": 0, "checkpoint_seconds": math.inf}
        options = self.recipe.train.model_copy(update=few)
        runtime = self.runtime if title is None else self.runtime.at(title, self.runtime.dtype)
        about = (options, assembled.replicas, runtime, None, None, self.recipe.compute)
        train(assembled.group, self.data.task, self.data.train.examples, *about)

    def speed_up(self, group: ReplicaGroup, compiled: bool = False) -> None:
        """Make training ``group`` faster without changing any result: remember the prefix, compile what is above."""
        self._open_prefix(group)
        if compiled:
            group.compile()

    def validation(self, group: ReplicaGroup) -> Validation | None:
        """Describe the scoring of the validation split while ``group`` is trained; None where it is not scored."""
        if self.data.validation is None or self.recipe.train.evaluations == 0:
            return None
        examples, size = self.data.validation.examples, self.recipe.scoring.batch_size
        select = self.recipe.train.select
        return validate_with(group, self.data.task, examples, select, size, self.runtime, self._reference([select]))

    def score(
        self, group: ReplicaGroup, folders: Sequence[RunDir], known: Sequence[Mapping[str, float] | None] | None = None
    ) -> list[Scored]:
        """Score each run of ``group`` on every held-out task, and write its prediction store to its folder; ``known``:
        what the task had decided for each before."""
        metrics = [metric for task in (self.data.task, *self.data.own.values()) for metric in task.metrics]
        about = (self.runtime, folders, self.base.digest, known, self._reference(metrics))
        return score_held_out(group, self.data, self.recipe, *about)

    def _reference(self, metrics: Sequence[str | Metric]) -> Reference | None:
        """Give what rewards are measured from; None where none of ``metrics`` asks for them."""
        scale = self.strategy.reward_scale
        if scale is None or not needs_reference(metrics):
            return None
        return Reference(self.base, self.data.task, scale, self.recipe.scoring.batch_size, self.runtime)

    def _open_prefix(self, group: ReplicaGroup) -> None:
        """Remember the activations of the model's frozen bottom for the examples, where there is one and it pays.

        Not used where it could change the result: where dropout is at work below, which one batch shows.
        """
        task, examples, runtime = self.data.task, self.data.train.examples, self.runtime
        each, steps = steps_of(examples, self.recipe.train)
        set_training_mode(group.model)
        changing = task.dynamic or runtime.shards or self.recipe.compute.moe_auxiliary_loss  # routers have to run
        can_cache_prefix = not changing and all(each.can_cache_prefix for each in group.hooks)
        names = find_prefix(group.model) if can_cache_prefix else []
        if not names or not self.recipe.train.prefix_cache or steps * group.count < each:
            return
        with runtime.autocast():
            task.loss_path(group.model, group.count)  # which tries the model out, and would be mistaken for a batch
        with group.alone(0) as model:
            how = [task.batching.name, str(task.answering), str(runtime.dtype), str(runtime.device)]
            key = ("activations", *names, *how, bottom_digest(model, names))
            prefix = Prefix(model, names, self.base.kept.setdefault(key, Activations(runtime.cache)))
            try:
                prefix.fill(model.eval(), task, examples, runtime, self.recipe.scoring.batch_size)
            except CannotRemember:
                prefix.close()
                return
            finally:
                set_training_mode(model)
            if not prefix.holds(model, task, examples[:2], runtime):
                prefix.close()
                runtime.progress.say("dropout is at work below what learns: its activations are not remembered")
                return
        group.put_on(prefix)
        if not remembers_rightly(group, task, examples, runtime):
            group.take_off_prefix()
            found = "from remembered activations outputs are others than from tokens: they are not remembered"
            runtime.progress.say(found)
        set_training_mode(group.model)


def _seen(data: TaskData, config: Any) -> torch.Tensor | None:
    """List the tokens that training meets, sorted: those of the examples, padding, and what an encoder-decoder puts
    before a text. None: any, where words are replaced at random."""
    if data.task.dynamic:
        return None
    ids = [_distinct(tokens) for tokens in data.train.examples.tokens()]
    if getattr(config, "is_encoder_decoder", False):  # whose decoder is given the labels
        ids += [_distinct(labels[labels >= 0]) for labels in data.train.examples.labels()]
    padding = data.task.tokenizer.pad_token_id
    own = [0 if padding is None else padding]
    if getattr(config, "is_encoder_decoder", False):
        names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
        own += [found for name in names if isinstance(found := getattr(config, name, None), int) and found >= 0]
    return torch.from_numpy(np.unique(np.concatenate([*ids, own])).astype(np.int64))


def _distinct(tokens: np.ndarray) -> np.ndarray:
    """List the token numbers among ``tokens``, sorted: they are small, so that nothing need be sorted."""
    there = np.zeros(int(tokens.max(initial=-1)) + 1, bool)
    there[tokens] = True
    return np.flatnonzero(there)
