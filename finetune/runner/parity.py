"""Compares a model as we run it with the same model as a user of plain transformers runs it.

Before anything is trained a few of the study's own examples go through the untuned model alone, each on its tokens and
nothing else; then as training and scoring would have them, packed and padded. Where the two differ, examples share
less; where nothing helps, or an output depends on later tokens that it is to predict, the model is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetune import models
from finetune.core.errors import bad_input, message_of
from finetune.core.examples import Batch, Example, Outputs, lengths_of
from finetune.core.memory import out_of_memory
from finetune.core.progress import phase
from finetune.core.randomness import Streams
from finetune.core.runtime import Runtime
from finetune.runner.resources import Resources, TaskData
from finetune.tasks.base import Task
from finetune.tasks.batching import Batching, cut

if TYPE_CHECKING:
    from finetune.recipe import Recipe

EXAMPLES = 4
MOST_TOKENS = 48
"""Of the longest example; the others are shorter, so that there is padding. Longer ones lose their middle."""
SHORT = 4
"""Tokens of the shortest example, which depends most on the padding beside it, if it does."""
MOST_PROMPT = 24
MOST_CANDIDATES = 6
"""Candidates of an example that stay, of each group that has something in common: each is a pass by itself."""
STEPS = 8
"""New tokens of an answer."""
RELATIVE = 1e-4
"""By which losses may differ."""
OF_SPREAD = 1e-4
"""Share of the logits' spread (standard deviation over classes) by which each may differ: of a model as it is drawn,
whose losses hardly depend on its input yet, the logits tell more. Rounding is a tenth of it."""


@dataclass(frozen=True)
class Parity:
    """The sharing among examples under which a model gives the same outputs as for each example alone."""

    batching: Batching
    answering: Batching
    given_up: tuple[str, ...] = ()
    """What changed its outputs, and by how much, in words."""
    refused: str | None = None
    """Why it cannot be run at all, in words."""

    def padded(self) -> Parity:
        """Give the same with rows of one example at most: for kernels that do not read the masks of packed rows."""
        return replace(self, batching=max(self.batching, Batching.PADDED))

    def line(self, kind: str) -> str | None:
        """Say in words what had to be given up; None where nothing had to be."""
        if not self.given_up:
            return None
        answers = f", prompts {self.answering}" if self.answering > Batching.PADDED else ""
        return f"{kind}: {'; '.join(self.given_up)}. Goes on with {self.batching}{answers}"


def compared(resources: Resources, data: TaskData, base: models.BaseModel, runtime: Runtime) -> Callable[[Task], Task]:
    """Give a task what its examples may share in ``base``: found the first time, and said where it is less than usual.
    Raises InputError for a model that cannot be run as its authors run it."""
    key = ("parity", data.task.options.model_dump_json(), str(data.task.pooling), data.task.pairs)
    if key not in base.kept:
        found = _compare_untuned(data, base, runtime) if runtime.accelerator.is_main_process else None
        found = base.kept[key] = runtime.broadcast(found)
        if line := found.line(base.model.config.model_type):
            resources.once("said", [line], lambda: runtime.progress.say(line))
    return partial(applied, base.kept[key])


def applied(found: Parity, task: Task) -> Task:
    """Give the task with the sharing that was ``found``. Raises InputError where the model cannot be run."""
    if found.refused:
        raise bad_input("model.source", found.refused, "use another model, or another task type")
    return task.sharing(found.batching, found.answering)


def _compare_untuned(data: TaskData, base: models.BaseModel, runtime: Runtime) -> Parity:
    """Compare the untuned model in float32: on the device where there is room for it, else on the CPU; with weights
    that are stored in fewer bits brought to float32 one by one, or all at once where a model does not take that."""
    with runtime.progress.phase("comparing with plain transformers"):
        found = _compare_on(runtime.device, base.view(Streams(0)).requires_grad_(False), data)
        if found.refused and models.in_float32(base.view(Streams(0))):
            found = _compare_on(runtime.device, base.copy(Streams(0)).requires_grad_(False), data)
        return found.padded() if models.is_narrow(base.model) else found


def _compare_on(device: torch.device, model: Any, data: TaskData) -> Parity:
    models.in_float32(model)
    if models.is_narrow(model):  # whose kernels have no float32
        model.set_attn_implementation("sdpa")
    try:
        return compare(model.to(device), data.task, data.train.examples)
    except RuntimeError as error:
        if not out_of_memory(error) or device.type == "cpu":
            raise
    return compare(model.to("cpu"), data.task, data.train.examples)


def try_small(resources: Resources, recipe: Recipe, data: TaskData, config: Any) -> str | None:
    """Compare without the base's weights, on two blocks as its ``config`` draws them; give the line to show, if any."""

    def tried() -> Parity | None:
        with phase("comparing with plain transformers"):
            model = models.draw_small(recipe.model, data.task.architecture, config)
            return None if model is None else compare(model, data.task, data.train.examples)

    attention = recipe.compute.attention
    if attention in ("sdpa", "eager"):
        config = models.lay_over(config, models.attention_config(attention))
    about = [recipe.model, recipe.task, str(data.task.pooling), data.task.pairs, attention]
    found = resources.once("parity", about, tried)
    if found is None:
        return f"{config.model_type}: too large to be compared with plain transformers here; the run does it"
    applied(found, data.task)
    return found.line(config.model_type)


def compare(model: torch.nn.Module, task: Task, examples: Sequence[Example]) -> Parity:
    """Find out what ``examples`` may share in ``model``, a copy of one in float32. No random number is drawn."""
    _unlike_new(model)
    task = task.uncombined()
    chosen, kind = choose(task, examples), model.config.model_type  # type: ignore[union-attr]
    if task.pooling is not None:
        model.pooling = task.pooling  # type: ignore[assignment]
    model.eval()
    found = Parity(Batching.PACKED, Batching.PADDED)
    with torch.inference_mode():
        try:
            ahead = task.causal and looks_ahead(model, chosen[1])
            wanted = [task.plain(model, example) for example in chosen]
        except Exception as error:  # whatever it may be: the model is refused for it
            if out_of_memory(error):
                raise
            return replace(found, refused=f"plain transformers cannot run this {kind} model on the data: {error}")
        if ahead:
            return replace(found, refused=f"is a {kind} model that sees the words after the one that it is to predict")
        packs = task.sharing(Batching.PACKED, task.answering).packing
        for level in Batching if packs else list(Batching)[1:]:
            reason = _losses_differ(model, task.sharing(level, task.answering), chosen, wanted)
            if reason is None:
                break
            found = replace(found, given_up=(*found.given_up, reason))
        else:
            refused = f"gives other outputs than plain transformers, however it is run: {found.given_up[-1]}"
            return replace(found, refused=refused)
        found = replace(found, batching=level)
        return _answers(model, task, chosen, found)


def _unlike_new(model: torch.nn.Module) -> None:
    """Replace what a new model has alike everywhere, such as biases of zero, under which padding leaves no trace: after
    a few steps of training it would (RecurrentGemma's state goes through it)."""
    for parameter in model.parameters():
        if parameter.ndim == 1 and len(parameter) > 1 and bool((parameter == parameter[0]).all()):
            parameter.data = parameter.data + torch.linspace(-0.1, 0.1, len(parameter)).to(parameter)


def choose(task: Task, examples: Sequence[Example]) -> list[Example]:
    """Choose four examples, the longest first, cut so that there is padding and that two are equally long."""
    order = np.argsort(lengths_of(examples), kind="stable")
    every = [examples[order[round(share * (len(order) - 1))]] for share in np.linspace(1, 0, EXAMPLES)]
    first = min(every[0].length, MOST_TOKENS)
    second = min(every[2].length, max(2 * first // 3, 2))
    lengths = [first, second, second, min(every[3].length, SHORT)]
    return [
        task.resample(shortened(example, most), number)
        for number, (example, most) in enumerate(zip(every, lengths, strict=True))
    ]


def shortened(example: Example, most: int) -> Example:
    """Take out an example's middle: at most ``most`` tokens stay (of a pair, in each half; of several candidates, in
    each of them and in what they have in common), the prompt at its end."""
    example = _with_few_candidates(example)
    parts = example.parts(np.arange(example.length))
    kept = [part if len(part) <= most else np.r_[part[: most // 2], part[-(most - most // 2) :]] for part in parts]
    places, target = np.concatenate(kept), example.target
    if isinstance(target, np.ndarray) and len(target) == example.length:
        target = target[places]
    elif isinstance(target, np.ndarray) and len(target) > most:  # what an encoder-decoder answers
        target = np.r_[target[: most // 2], target[-(most - most // 2) :]]
    return replace(
        example,
        inputs={name: value[places] for name, value in example.inputs.items()},
        target=target,
        prompt=None if example.prompt is None else example.prompt[-max(MOST_PROMPT * most // MOST_TOKENS, 1) :],
        rejected=None if example.rejected is None else len(kept[0]),
        branch=None if example.branch is None else example.branch[places],
        origin=None,
    )


def _with_few_candidates(example: Example) -> Example:
    """Take candidates out of an example that has many."""
    if example.branch is None:
        return example
    kept, branch, number, beside = list[np.ndarray](), list[np.ndarray](), 0, 0
    for part, which in zip(example.parts(np.arange(example.length)), example.parts(example.branch), strict=True):
        beside = beside + 1 if which[0] else 0
        if beside <= MOST_CANDIDATES:
            number += bool(which[0])
            kept.append(part)
            branch.append(np.full_like(which, number if which[0] else 0))
    places = np.concatenate(kept)
    return replace(
        example,
        inputs={name: value[places] for name, value in example.inputs.items()},
        target=example.target % min(number, MOST_CANDIDATES),
        branch=np.concatenate(branch),
        sizes=None,
        origin=None,
    )


def looks_ahead(model: torch.nn.Module, example: Example) -> bool:
    """Tell whether changing the later half of a text changes the model's outputs for the earlier one."""
    [ids, *_] = example.parts(example.inputs["input_ids"])
    half, device = len(ids) // 2, next(model.parameters()).device
    if half == 0:
        return False
    other = np.unique(ids)[[0, -1]] if len(np.unique(ids)) > 1 else [0, 1]
    changed = np.concatenate([ids[:half], np.where(ids[half:] == other[1], other[0], other[1])])
    before, after = (
        model(input_ids=torch.tensor(text).long()[None].to(device)).logits[0, :half].float() for text in (ids, changed)
    )
    return farthest(after, before) > OF_SPREAD


def _losses_differ(
    model: torch.nn.Module, task: Task, examples: Sequence[Example], wanted: Sequence[Outputs]
) -> str | None:
    """Say how outputs differ from those ``wanted`` where examples share what ``task`` lets them; None: they agree."""
    try:
        for batch, places in _batches(model, task, examples):
            if task.packing and not task.packs(model):
                return "its outputs change in packed rows"
            found = task.outputs(model, batch)
            losses, among = found.losses(), among_of(task, wanted)
            for number, place in enumerate(places):
                own = found.owners == number
                plain, loss, labels = wanted[place].losses()[0], losses[number], int(own.sum())
                off = farthest(found.logits[own], wanted[place].logits, among) if labels else 0.0
                if off > OF_SPREAD or abs(loss - plain) > RELATIVE * abs(plain) + 1e-5 * labels:
                    return f"its outputs change in {_with(task.batching)} (loss {loss:.4f} for {plain:.4f})"
    except Exception as error:  # the next level may do; where none does, the last reason refuses the model
        if out_of_memory(error):
            raise
        return f"it fails in {_with(task.batching)} ({message_of(error)})"
    return None


def _batches(model: torch.nn.Module, task: Task, examples: Sequence[Example]) -> Iterator[tuple[Batch, list[int]]]:
    """Give the examples in batches, as the model gets them, and their places."""
    lengths = [example.length for example in examples]
    for places in cut(np.argsort(lengths, kind="stable"), lengths, len(examples), task.batching):
        device = next(model.parameters()).device
        yield task.batch_for(model, [examples[place] for place in places], device), places.tolist()


def _answers(model: torch.nn.Module, task: Task, examples: Sequence[Example], found: Parity) -> Parity:
    """Add what prompts may share while they are answered, for tasks that generate."""
    from finetune.tasks.causal.generation import continued

    prompts = [example.prompt for example in examples[1:] if example.prompt is not None]
    if not prompts:
        return found
    filler = task.tokenizer.pad_token_id
    assert isinstance(filler, int)
    wanted = continued(model, prompts, filler, STEPS, Batching.SINGLE)
    for level in (Batching.PADDED, Batching.SAME_LENGTH):
        if not _answers_differ(continued(model, prompts, filler, STEPS, level), wanted):
            return replace(found, answering=level)
        found = replace(found, given_up=(*found.given_up, f"its answers change in {_with(level)}"))
    return replace(found, answering=Batching.SINGLE)


def _answers_differ(found: tuple[torch.Tensor, torch.Tensor], wanted: tuple[torch.Tensor, torch.Tensor]) -> bool:
    """Tell whether logits differ where the tokens before them are still the same. Later logits are not compared: of two
    tokens that are all but equally likely either may be chosen, and what follows them has nothing in common."""
    same = (found[0] == wanted[0]).cumprod(1).roll(1, 1)
    same[:, 0] = 1
    return farthest(found[1][same.bool()], wanted[1][same.bool()]) > OF_SPREAD


def among_of(task: Task, outputs: Sequence[Outputs]) -> torch.Tensor | None:
    """Give all values (labels, 1) of a task with one output, which may be read once for each choice; None: it has
    several."""
    if task.answer != "choice" and outputs[0].logits.shape[-1] != 1:
        return None
    present = [each.logits if each.absent is None else each.logits[~each.absent] for each in outputs]
    return torch.cat([each.reshape(-1, 1) for each in present])


def farthest(found: torch.Tensor, wanted: torch.Tensor, among: torch.Tensor | None = None) -> float:
    """Compute the largest distance of logits (L, C) from those ``wanted``, as a share of their spread; a shift that all
    classes have in common does not count. Infinite where one is no number and the other is.

    Where there is one output only, C = 1 or the same one for each class, a shift is all that there is, and the spread
    is that of several examples' outputs, ``among`` (all labels, 1), of which a tenth of their size is added: untuned,
    they hardly differ."""
    if wanted.shape[-1] == 1 or among is not None:
        every = wanted if among is None else among
        spread = every.std(correction=0) + 0.1 * every.abs().max() + 1e-9
        return float(((found - wanted).abs() / spread).nan_to_num(nan=torch.inf).max())
    off = ((found - found.mean(-1, keepdim=True)) - (wanted - wanted.mean(-1, keepdim=True))).abs()
    spread = wanted.std(-1, correction=0).max() + 1e-3 * wanted.abs().max() + 1e-9
    return float((off / spread).nan_to_num(nan=torch.inf).max())


def _with(batching: Batching) -> str:
    return (
        "packed rows",
        "batches that are padded to one length",
        "batches of one length",
        "our batches of one example",
    )[batching]
