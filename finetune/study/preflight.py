"""A dry run: everything that can be found wrong with a study before any of it is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from finetune import models
from finetune.core.env_vars import check_settings
from finetune.core.errors import InputError, Problem, bad_input
from finetune.core.progress import phase, track
from finetune.core.runtime import asked_of
from finetune.core.tracking import missing
from finetune.data.rows import places_of
from finetune.evaluate import metrics
from finetune.runner.arithmetic import check_arithmetic, left_out
from finetune.runner.baselines import Planned, in_words, planned
from finetune.runner.build import count_parameters, prepare
from finetune.runner.fitting import shortage
from finetune.runner.parity import try_small
from finetune.runner.resources import Resources, TaskData
from finetune.study.combine import check_combining
from finetune.study.functions import refuse_failing
from finetune.study.stages import chain, recipe_of, split_of, whose, within

if TYPE_CHECKING:
    import numpy as np

    from finetune.core.examples import Example
    from finetune.recipe import Recipe, ResolvedRecipe, Variant

T = TypeVar("T")


@dataclass(frozen=True)
class Preflight:
    """The findings of a dry run about each variant, by its name."""

    data: dict[str, TaskData]
    parameters: dict[str, dict[str, int]]
    told: dict[str, tuple[str, ...]]
    """What is drawn afresh and what is left out of the base model, and what examples may not share in it."""
    baselines: list[Planned] = field(default_factory=list)
    """The study's cheap baselines, which are those of its first variant."""

    def lines(self) -> list[str]:
        """Describe data and parameters, in lines for a person."""
        lines = []
        for name, split in next(iter(self.data.values())).facts["splits"].items():
            tokens, cut = split["facts"]["tokens"]["mean"], split["facts"]["cut"]
            lines.append(f"{name}: {split['examples']:,} examples, {tokens:g} tokens on average, {cut:,} cut")
        for name, count in self.parameters.items():
            share = count["trainable"] / count["total"]
            lines.append(f"{name}: {count['trainable']:,} of {count['total']:,} parameters learn ({share:.2%})")
        told = dict.fromkeys(f"base model: {line}" for found in self.told.values() for line in found)
        return [*lines, *in_words(self.baselines), *told, *self.notes()]

    def notes(self) -> list[str]:
        """List what a person has to know about how the data were read, each line once."""
        every = [[data.train, data.validation, *data.held_out.values()] for data in self.data.values()]
        return list(dict.fromkeys(note for parts in every for encoded in parts if encoded for note in encoded.notes))


def preflight(recipe: ResolvedRecipe, resources: Resources | None = None, compared: bool = False) -> Preflight:
    """Find everything wrong that can be found before training: data, model files, metrics, what strategies match.

    Loads the data into ``resources``, but no weights. ``compared``: with plain transformers too, on small models that
    are drawn. Raises InputError with the mistakes of all variants.
    """
    resources = resources or Resources()
    problems: list[Problem] = []
    found = Preflight({}, {}, {})
    for variant in track(recipe.variants, "checking data and models"):
        try:
            how = (variant.recipe.train.compile, variant.recipe.compute.tf32)
            check_settings(asked_of(*models.processor(variant.recipe.model), *how))
            models.check_files(variant.recipe.model)
            if variant.recipe.model.device != recipe.variants[0].recipe.model.device:
                found_device = f"is {variant.recipe.model.device}, unlike that of variant '{recipe.variants[0].name}'"
                raise bad_input("model.device", found_device, "a study runs on one device; set it for the whole recipe")
            splits = dict.fromkeys(split_seed(recipe, variant, seed) for seed in recipe.seeds)
            for number in chain(variant.recipe.stages):
                with within(number):
                    stage = recipe_of(variant.recipe, number, variant.recipe.model)
                    own = dict.fromkeys(split_of(variant.recipe.stages[number], split) for split in splits)
                    dry_run(stage, list(own), resources, compared, whose(variant.recipe, number))
            data, parameters, told = dry_run(variant.recipe, list(splits), resources, compared)
            check_combining(variant.recipe, data)
        except InputError as error:
            here = error.located(partial(recipe.locate, variant=variant.name)).problems
            problems += [problem for problem in here if problem not in problems]
        else:
            found.data[variant.name] = data
            found.parameters[variant.name] = parameters
            found.told[variant.name] = told
    for each in missing(recipe.variants[0].recipe.tracking):
        problems += InputError([each]).located(recipe.locate).problems
    if problems:
        raise InputError(problems)
    same_held_out(recipe, found)
    first = recipe.variants[0]
    found.baselines.extend(planned(first.recipe, found.data[first.name]))
    return found


def dry_run(
    recipe: Recipe, splits: Sequence[int], resources: Resources, compared: bool = False, of: Recipe | None = None
) -> tuple[TaskData, dict[str, int], tuple[str, ...]]:
    """Do all of a run that needs no weights: its data, under every split, how many parameters learn, how the base
    model's checkpoint fits and, where it is ``compared``, how it is run. ``of``: see :meth:`Resources.data`."""
    asked = {"task": recipe.task} | {f"evaluate.{each.name}.task": each.task for each in recipe.evaluate if each.task}
    for at, options in asked.items():
        for number, name in enumerate(options.metrics):
            metrics.load(name, f"{at}.metrics.{number}")
    metrics.load(recipe.train.select, "train.select")
    data, *others = [resources.data(recipe, seed, of) for seed in splits]
    refuse_failing(asked, data)
    if others:  # where each seed is scored on other rows, the mean over them
        every = {task: [each.majority[task] for each in (data, *others)] for task in data.majority}
        mean = {task: None if None in some else sum(filter(None, some)) / len(some) for task, some in every.items()}
        data = replace(data, majority=mean)
    with phase("reading the model's configuration and the names of its weights"):
        at = "model.tokenizer" if recipe.model.tokenizer else "model.source"
        check_tokens(data, models.rows_said(data.task.config()), at)  # first: no table can have its padding outside
        empty = models.skeleton(recipe.model, data.task.architecture, **data.task.model_config())
        check_tokens(data, models.rows_of(empty), at)
        data.task.check_model(empty)  # before its weights are held against a model that is of no use
        base = models.weightless_base(recipe.model, empty, data.task.new_head)
        config = copy.deepcopy(empty.config)  # which a strategy may change
        hooks = (recipe.strategy, recipe.mitigations, recipe.train.optimizer)
        built = prepare(base.model, data.task, *hooks, base.new)
        device, dtype = models.processor(recipe.model)
        check_arithmetic(recipe, built, device, dtype)
        short = shortage(recipe, built, device, dtype)
        if short and not (compared and device.type == "cpu"):  # a recipe may be checked where it is not to run
            raise InputError(short)
    model = built.model
    check_lengths(model, data)
    line = try_small(resources, recipe, data, config) if compared else None
    lines = [*left_out(recipe, config), line, f"it {short.found}; {short.advice}" if short else None]
    return data, count_parameters(model), (*base.told, *filter(None, lines))


def same_held_out(recipe: ResolvedRecipe, found: Preflight) -> None:
    """Refuse variants that would be scored on different examples under one name: they could not be compared."""
    first = recipe.variants[0].name
    for name, data in found.data.items():
        for task in data.held_out:
            here, there = data.facts["splits"][task], found.data[first].facts["splits"].get(task)
            if there and here["fingerprint"] != there["fingerprint"]:
                raise InputError(
                    Problem(
                        f"variant '{name}' would score '{task}' on other examples than variant '{first}'",
                        "variants are compared on the same held-out examples; change only data.split.train, or use "
                        "another name for the task",
                        "variants." + name,
                        recipe.locate("data", name),
                    )
                )


def check_lengths(model: Any, data: TaskData) -> None:
    """Refuse examples that are longer than the model's positions: it would fail on them, or worse, not fail."""
    limit = models.positions_of(model)
    limit = limit and limit - getattr(model, "virtual", 0)  # tokens that a strategy puts before every text
    for name, encoded in data.sets.items():
        needed = data.task_of(name).positions(encoded.examples)
        longest = int(needed.max(initial=0))
        if limit is not None and longest > limit:
            where = _place(data, name, int(needed.argmax()))
            raise bad_input(
                "task.max_length",
                f"{where} needs {longest} tokens, and the model has room for {limit}",
                f"write at most {limit} here for training examples; shorten held-out ones in data.columns, as in "
                "{body:.800}, or lower task.max_new_tokens where there is one",
            )


def _place(data: TaskData, name: str, example: int) -> str:
    """Say where an example of the set ``name`` stands in its source."""
    encoded, table = data.sets[name], {**data.learnt, **data.tables}[name]
    row = encoded.examples[example].number if encoded.rows is None else int(encoded.rows[example])
    return f"'{name}': {next(islice(places_of(table, data.at[name]), row, None))}"


def check_tokens(data: TaskData, rows: int | None, at: str) -> None:
    """Refuse tokens for which the model's table of so many ``rows`` has none: they would end a run."""
    tokenizer = data.task.tokenizer
    if rows is None or len(tokenizer) <= rows:
        return
    used = {"its padding": tokenizer.pad_token_id}
    for name, encoded in data.sets.items():
        texts = [ids for each in encoded.examples for ids in _tokens_of(each, data.task.answer == "text")]
        used[f"'{name}'"] = max((int(ids.max()) for ids in texts if len(ids)), default=0)
        # One that the data write, but that is read as plain text, is meant all the same.
        written = "\n".join(tokenizer.batch_decode([ids.tolist() for ids in texts]))
        meant = (number for token, number in tokenizer.get_added_vocab().items() if number >= rows and token in written)
        used[f"the text of '{name}'"] = max(meant, default=0)
    if data.task.dynamic and tokenizer.mask_token_id is not None:
        used["a hidden word"] = tokenizer.mask_token_id
    for where, number in used.items():
        if number >= rows:
            raise bad_input(
                at,
                f"its tokenizer has {len(tokenizer)} tokens and the model a table for {rows}: {where} has the token "
                f"'{tokenizer.convert_ids_to_tokens(number)}', number {number}, which the model does not know",
                "name the tokenizer that the model was trained with in model.tokenizer, or save the model after "
                f"model.resize_token_embeddings({len(tokenizer)})",
            )


def _tokens_of(example: Example, answered: bool) -> list[np.ndarray]:
    """List the tokens that a model is given of an example; where it is ``answered`` in words, an encoder-decoder is
    given these too."""
    answer = example.target[example.target >= 0] if answered else None
    return [ids for ids in (example.inputs["input_ids"], example.prompt, answer) if ids is not None]


def split_seed(recipe: ResolvedRecipe, variant: Variant, seed: int) -> int:
    """Give the seed of a run's split: the recipe's own, joined with the run's where `vary` has `split`."""
    own = variant.recipe.data.split.seed
    return recipe.streams(seed).seed_of("split", own) if "split" in recipe.vary else own


def start_alike(recipe: ResolvedRecipe, variant: Variant, seed: int, runs: Mapping[int, T]) -> list[tuple[int, T]]:
    """List those of a variant's ``runs``, by seed, that have to have started from what the one under ``seed`` does: all
    of them, unless a stage has learnt from each split's own examples."""
    own, split = any(stage.data is None for stage in variant.recipe.stages), split_seed(recipe, variant, seed)
    return [(other, run) for other, run in runs.items() if not own or split_seed(recipe, variant, other) == split]


@contextmanager
def located(recipe: ResolvedRecipe, variant: str | None = None) -> Iterator[None]:
    """Within the context, give every InputError the line of the recipe that it is about."""
    try:
        yield
    except InputError as error:
        raise error.located(partial(recipe.locate, variant=variant)) from error
