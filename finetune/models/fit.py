"""The fit of a checkpoint to the model it is loaded into, from what transformers reports on loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from finetune.core.errors import bad_input
from finetune.models.base import head_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 3
"""How many names a message gives; it says how many there are."""


@dataclass(frozen=True)
class Fit:
    """Weights of a model that the checkpoint lacks, and weights of the checkpoint that the model has no place for."""

    new: frozenset[str]
    """Parameters that start without a pretrained value: a new head, a pooler, and what `model.new` names."""
    beside: frozenset[str] = frozenset()
    """Those of them that are no part of the task's head."""
    unused: tuple[str, ...] = ()
    """Weights of the checkpoint that this model has no place for and that are more than another task's head."""

    def lines(self) -> list[str]:
        """Describe it for a person; empty where the checkpoint has all that the model has but its head, and no more."""
        lines = []
        if self.beside:
            lines.append(f"drawn afresh in each run, beside the head: {listed(modules_of(self.beside))}")
        if self.unused:
            lines.append(f"this model has no place for the checkpoint's {listed(modules_of(self.unused))}")
        return lines


def fit_of(
    model: PreTrainedModel, report: Mapping[str, Any], wanted: Sequence[str], source: str, new_head: bool
) -> Fit:
    """Read transformers' ``report`` on loading a checkpoint into ``model``, whose weights may be absent.

    Weights of a new head and of a pooler may be missing, and those that ``wanted`` (`model.new`) names. Raises
    :class:`InputError` when others are missing or have another shape: they would be random numbers.
    """
    shapes = {name: (tuple(there), tuple(here)) for name, there, here in report["mismatched_keys"]}
    parameters = {name for name, _ in model.named_parameters()}
    counted = parameters | {name for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    lacking = {name for name in (*report["missing_keys"], *shapes) if name in counted}
    # What a language model ends with is pretrained, whatever a classifier ends with is not.
    head = head_parameters(model) if new_head or model.get_output_embeddings() is None else set()
    needed = {name for name in counted - head if not is_pooler(name)}
    foreign = sorted(name for name in lacking & needed if not is_named(name, wanted))
    unused = tuple(sorted(report["unexpected_keys"]))
    if foreign:
        elsewhere = _elsewhere(foreign, unused, model.base_model_prefix)
        found = _found(foreign, shapes, len(needed), elsewhere, source)
        raise bad_input("model.source", found, _advice(foreign, counted, elsewhere))
    new = frozenset(lacking & parameters)
    beside = frozenset(name for name in new if name not in head or is_pooler(name))
    return Fit(new | head if new_head else new, beside, tuple(name for name in unused if _matters(name, model)))


def is_pooler(name: str) -> bool:
    """Tell whether a weight belongs to a pooler, which most checkpoints lack and every head is trained with."""
    return any(part.startswith("pooler") for part in name.split("."))


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a pattern of `model.new` names this weight, or a module that holds it."""
    return any(fnmatchcase(f".{name}.", f"*.{pattern}.*") for pattern in patterns)


def _matters(name: str, model: PreTrainedModel) -> bool:
    """Tell whether a weight that ``model`` has no place for is more than a pooler, or the head of another task."""
    inner = name.removeprefix(f"{model.base_model_prefix}.")
    below = inner.partition(".")[0] in dict(model.base_model.named_children())
    return (below or model.get_output_embeddings() is not None) and not is_pooler(inner)


def modules_of(names: Iterable[str]) -> list[str]:
    """The modules that hold weights, in order, with `*` for numbers; those inside another one go without saying."""
    owners = {_starred(name.rpartition(".")[0] or name) for name in names}
    return sorted(owner for owner in owners if not any(owner.startswith(f"{other}.") for other in owners))


def _starred(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def listed(names: Sequence[str], shown: int = SHOWN) -> str:
    """A few names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _found(
    foreign: list[str],
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    needed: int,
    elsewhere: Mapping[str, str],
    source: str,
) -> str:
    """Say in words what does not fit: a few weights, and how many of how many."""
    said = []
    if missing := [name for name in foreign if name not in shapes]:
        shown = [f"{name} (there is {elsewhere[name]})" if name in elsewhere else name for name in missing]
        said.append(f"it lacks {len(missing)} of this model's {needed} weights, such as {listed(shown)}")
    if misshapen := [name for name in foreign if name in shapes]:
        shown = [f"{name} ({_shape(shapes[name][0])} for {_shape(shapes[name][1])})" for name in misshapen]
        said.append(f"{len(misshapen)} have another shape, such as {listed(shown)}")
    return f"the checkpoint in {source} does not fit its model: {'; '.join(said)}; they would start as random numbers"


def _advice(foreign: list[str], counted: set[str], elsewhere: Mapping[str, str]) -> str:
    """Advise to name weights in `model.new`, unless the checkpoint is of another model, or named otherwise."""
    if len(elsewhere) > len(foreign) / 2:
        return (
            "save the checkpoint under the names that transformers gives its weights (without what wrapped the model)"
        )
    if len(foreign) > len(counted) / 2:
        return "give the checkpoint that belongs to this config.json"
    return (
        "give a complete checkpoint that belongs to this config.json; to train them from random numbers all the same, "
        f"write model.new: [{', '.join(naming(foreign, counted - set(foreign)))}]"
    )


def _elsewhere(names: Iterable[str], unused: Iterable[str], base: str) -> dict[str, str]:
    """Find other names of weights in the checkpoint: the same with more or less before it, with or without
    the name of the ``base`` model inside."""
    ends = {end: key for key in unused for end in _endings(key)}
    keys = set(unused)
    found = {}
    for name in names:
        inner = name.removeprefix(f"{base}.")
        key = ends.get(name) or ends.get(inner) or next((end for end in _endings(name) if end in keys), None)
        if key is not None and "." in inner:
            found[name] = key
    return found


def _endings(name: str) -> list[str]:
    """A dotted name without its first parts, one by one: all that are left have a dot."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1)]


def naming(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The fewest patterns of `model.new` that name all of ``names`` and none of ``others``; words, where they do."""
    left, others, patterns = set(names), list(others), list[str]()
    while left:
        words = {part for name in left for part in name.split(".") if not part.isdecimal()}
        usual = words | {_starred(name.rpartition(".")[0]) for name in left} | {_starred(name) for name in left}
        apart = [word for word in usual if not any(is_named(other, [word]) for other in others)] or list(left)
        best = min(apart, key=lambda word: (-sum(is_named(name, [word]) for name in left), len(word), word))
        patterns.append(best)
        left = {name for name in left if not is_named(name, [best])}
    return patterns


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
