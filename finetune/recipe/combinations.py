"""Options that are fine on their own and impossible together."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from finetune.core.answers import DISTRIBUTED
from finetune.core.errors import did_you_mean
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
from finetune.data.options import DataOptions
from finetune.evaluate.options import BaselineOptions
from finetune.recipe import evaluation, metric_choices
from finetune.recipe.explain import Mistake
from finetune.train.options import Plateau, Prodigy, TrainOptions

OWN_PARTS = ("train", "validation")
"""Names that held-out tasks cannot have."""

SPLIT_TEST = "test"
"""Name of the held-out task made of the recipe's own test examples."""


def impossible(sections: dict[str, Any]) -> list[Mistake]:
    """The mistakes among those sections that are valid on their own; a check waits until all of its own are."""
    mistakes: list[Mistake] = []
    for check in CHECKS:
        needs = inspect.signature(check).parameters
        if all(name in sections for name in needs):
            found = check(**{name: sections[name] for name in needs})
            mistakes += [replace(mistake, curable=True) for mistake in found]
    return mistakes


def _head(task: Any, strategy: Any) -> Iterator[Mistake]:
    if STRATEGIES.get(strategy.type)(strategy).needs_head and not TASKS.get(task.type)(task).new_head:
        yield Mistake(
            ("strategy", "type"),
            f"is '{strategy.type}', which trains only a new head, and the task {task.type} has none",
            "write strategy type adapter or partial",
        )


def _normalise(task: Any, strategy: Any) -> Iterator[Mistake]:
    if getattr(task, "normalise", None) is None:
        return
    if (task.pooling or STRATEGIES.get(strategy.type)(strategy).pooling) == "model":
        found = "is about a vector pooled for a head of our own, and transformers' own class pools here"
        yield Mistake(("task", "normalise"), found, "write task.pooling: auto or mean, or leave it out")


def _pairs(task: Any, strategy: Any) -> Iterator[Mistake]:
    """Pairs of answers, where something is to learn from them or to compare them."""
    if getattr(task, "rejected", None):
        return
    advice = "name the column of worse answers in task.rejected"
    if "rejected" not in type(task).model_fields:
        comparing = [name for name, known in TASKS.all().items() if "rejected" in known.Options.model_fields]
        advice = f"write task type {' or '.join(comparing)}"
    if STRATEGIES.get(strategy.type).pairs:
        found = f"is '{strategy.type}', which learns from a better and a worse answer to the same prompt, and"
        yield Mistake(("strategy", "type"), f"{found} this task has no rejected answers", advice)
    yield from metric_choices.margins(task, advice)


def _last_answers(task: Any, strategy: Any) -> Iterator[Mistake]:
    """Conversations of several answers, where the loss is about the last one."""
    whole = getattr(task, "learn", None) == "all" and task.prompt is None and task.rejected is not None
    if whole and STRATEGIES.get(strategy.type)(strategy).last_answers:
        found = f"is 'all', and {strategy.type} by {strategy.method} compares the last answers of conversations alone"
        yield Mistake(("task", "learn"), found, "write last")


def _solved(task: Any, strategy: Any) -> Iterator[Mistake]:
    """A probe is solved for as logistic regression of a label, or least squares of a number."""
    asked: Any = STRATEGIES.get(strategy.type)(strategy)
    first = asked.before()
    solves = asked.solves or (first is not None and STRATEGIES.get(first[0].type)(first[0]).solves)
    learnt: Any = TASKS.get(task.type)(task)
    if solves and learnt.new_head and not learnt.solvable:
        why = "the labels here are ordinal" if learnt.answer == "label" else f"task {task.type} has another loss"
        found = f"is {strategy.solver}, which solves for one label of several or for least squares, and {why}"
        yield Mistake(("strategy", "solver"), found, "write steps")


def _distributed(task: Any, mitigations: list[Any]) -> Iterator[Mistake]:
    """Refuse what softens targets or compares distributions, where answers have none."""
    known = TASKS.get(task.type)
    for number, options in enumerate(mitigations if known.answer not in DISTRIBUTED else []):
        if MITIGATIONS.get(options.type).shapes_losses:
            found = f"is '{options.type}', about a softmax over classes or tokens, and task {task.type} has none"
            yield Mistake(("mitigations", number, "type"), found, "leave it out")


def _held_out(data: DataOptions, evaluate: list[Any]) -> Iterator[Mistake]:
    if data.test is None and not data.split.test and not evaluate:
        yield Mistake(("data",), "nothing is held out to score", "give data.split.test, data.test or evaluate")


def _names(data: DataOptions, evaluate: list[Any], lm_eval: list[Any]) -> Iterator[Mistake]:
    has_test = data.test is not None or bool(data.split.test)
    seen = Counter([SPLIT_TEST] if has_test else [])
    listed = {("evaluate", index): each for index, each in enumerate(evaluate)}
    listed |= {("lm_eval", index): each for index, each in enumerate(lm_eval)}
    for keys, task in listed.items():
        if task.name in OWN_PARTS:
            found = f"'{task.name}' is the name of the recipe's own {task.name} examples"
            yield Mistake((*keys, "name"), found, "choose another name")
        elif seen[task.name]:
            taken = "is the name of the recipe's own test examples" if task.name == SPLIT_TEST else "is given twice"
            yield Mistake((*keys, "name"), f"'{task.name}' {taken}", "choose another name")
        seen[task.name] += 1


def _group(task: Any, vary: list[str]) -> Iterator[Mistake]:
    """Groups are of held-out examples that all runs have in common."""
    group = getattr(task, "group", None)
    if group is not None and "split" in vary:
        found = f"is '{group}', for errors over the same examples in all runs, and `vary` gives each seed a split"
        yield Mistake(("task", "group"), found, "take split out of `vary`; or write data.split.group alone")


def _select(task: Any, train: TrainOptions) -> Iterator[Mistake]:
    choices = list(dict.fromkeys(["loss", *task.metrics]))
    if train.select not in choices:
        found = f"is '{train.select}', which is neither `loss` nor a metric of the task"
        yield Mistake(("train", "select"), found, f"choose from: {', '.join(choices)}; or add it to task.metrics")


def _shots(task: Any, baselines: BaselineOptions) -> Iterator[Mistake]:
    """Examples before a question, where no question is answered in words."""
    if not baselines.shots:
        return
    known = TASKS.get(task.type)(task)
    if known.answer != "text" or not known.causal:
        why = "generates no answer" if known.answer != "text" else "has a model that continues no text"
        found = f"is {baselines.shots}, examples to be shown before a question, and task {task.type} {why}"
        yield Mistake(("baselines", "shots"), found, "leave it out")


def _early_stopping(data: DataOptions, train: TrainOptions) -> Iterator[Mistake]:
    if train.early_stopping is None:
        return
    if data.validation is None and not data.split.validation:
        advice = "give data.split.validation or data.validation, or leave early stopping out"
        yield Mistake(("train", "early_stopping"), "there are no validation examples to stop by", advice)
    elif not train.evaluations:
        found = "never stops, because train.evaluations is 0"
        yield Mistake(("train", "early_stopping"), found, "raise train.evaluations, or leave early stopping out")


def _method(strategy: Any, train: TrainOptions) -> Iterator[Mistake]:
    """What the strategy's method wants of training, and the recipe says otherwise; what it leaves out is filled in."""
    for key, wanted in STRATEGIES.get(strategy.type)(strategy).training.items():
        said = getattr(train, key)
        if key in train.model_fields_set and said != wanted:
            found = f"is '{said}', and this {strategy.type} strategy is training with '{wanted}'"
            yield Mistake(("train", key), found, f"leave it out, or write {wanted}; or use another method")


def _optimizer(train: TrainOptions) -> Iterator[Mistake]:
    if train.optimizer == "schedule-free" and train.schedule != "constant":
        found = f"is '{train.schedule}', and Schedule-Free wants a rate that stays: it averages weights instead"
        yield Mistake(("train", "schedule"), found, "write constant, or leave it out")
    if train.optimizer == "schedule-free" and train.betas[0] <= 0:
        found = f"begins with {train.betas[0]:g}, and Schedule-Free takes gradients between its average and its steps"
        yield Mistake(("train", "betas"), found, "write [0.9, 0.999]")
    if train.optimizer == "prodigy" and not 0.1 <= train.learning_rate <= 10:
        found = f"is {train.learning_rate:g}, and Prodigy finds the rate itself: here it is a scale of what it finds"
        yield Mistake(("train", "learning_rate"), found, "write 1, or leave it out")
    if train.optimizer != "prodigy" and train.prodigy != Prodigy():
        found = f"says how Prodigy works, and the optimizer is {train.optimizer}"
        yield Mistake(("train", "prodigy"), found, "write train.optimizer: prodigy, or leave it out")


def _plateau(data: DataOptions, train: TrainOptions) -> Iterator[Mistake]:
    if train.schedule != "plateau":
        if train.plateau != Plateau():
            found = f"says how the rate falls on a plateau, and the schedule is {train.schedule}"
            yield Mistake(("train", "plateau"), found, "write train.schedule: plateau, or leave it out")
    elif data.validation is None and not data.split.validation:
        advice = "give data.split.validation or data.validation, or use another schedule"
        yield Mistake(("train", "schedule"), "there are no validation examples to tell a plateau by", advice)
    elif train.evaluations <= train.plateau.patience + 1:
        found = f"never falls, because train.evaluations is {train.evaluations}"
        yield Mistake(("train", "schedule"), found, "raise train.evaluations, or use another schedule")


def _batches(train: TrainOptions) -> Iterator[Mistake]:
    if train.micro_batch_size is not None and train.micro_batch_size > train.batch_size:
        found = f"is {train.micro_batch_size}, larger than the batch of {train.batch_size} it is a part of"
        yield Mistake(("train", "micro_batch_size"), found, "make it at most train.batch_size")


def _stages(stages: list[Any], data: DataOptions) -> Iterator[Mistake]:
    """Find what is impossible inside a stage, and stages that start from themselves, from nothing, or for nobody."""
    names, used = [stage.name for stage in stages], set[int]()
    for number, stage in enumerate(stages):
        sections = {name: getattr(stage, name) for name in ("task", "strategy", "train")}
        sections["data"] = stage.data or data
        for check in CHECKS:
            needs = inspect.signature(check).parameters
            for mistake in check(**{name: sections[name] for name in needs}) if needs.keys() <= sections.keys() else ():
                yield replace(mistake, keys=("stages", number, *mistake.keys))
        if STRATEGIES.get(stage.strategy.type)(stage.strategy).differentiates:
            found = "trains a tangent model, and nothing can start from it: its weights alone are another model"
            yield Mistake(("stages", number, "strategy"), found, "write strategy type full, partial or adapter")
        if names.index(stage.name) < number:
            yield Mistake(("stages", number, "name"), f"'{stage.name}' is given twice", "choose another name")
        if stage.after is not None and stage.after not in names:
            advice = did_you_mean(stage.after, names)
            yield Mistake(("stages", number, "after"), f"there is no stage called '{stage.after}'", advice)
        elif stage.after is not None and names.index(stage.after) >= number:
            found = f"'{stage.name}' starts from '{stage.after}', which starts from it or comes later: a cycle"
            yield Mistake(("stages", number, "after"), found, "let every stage start from one above it in the list")
        elif number:
            used.add(names.index(stage.after) if stage.after else number - 1)
    for number in set(range(len(stages) - 1)) - used:
        found = f"nothing starts from '{names[number]}'"
        yield Mistake(("stages", number, "name"), found, "leave it out, or name it in another stage's `after`")


CHECKS: tuple[Callable[..., Iterator[Mistake]], ...] = (
    _head,
    _normalise,
    _pairs,
    metric_choices.rewards,
    _last_answers,
    metric_choices.answers,
    metric_choices.columns,
    metric_choices.extracted,
    metric_choices.counted_bytes,
    _solved,
    _distributed,
    _held_out,
    _names,
    evaluation.sets,
    evaluation.harness_sets,
    _group,
    _select,
    _shots,
    _early_stopping,
    _batches,
    _method,
    _optimizer,
    _plateau,
    _stages,
)
"""Each names, by its parameters, the sections it needs."""
