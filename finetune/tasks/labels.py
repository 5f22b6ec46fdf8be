"""Labels of a data set: how they are written, how often each is there, what each counts, which nobody could learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from finetune.core.errors import bad_input, did_you_mean
from finetune.data.labels import visible

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from finetune.data import Splits

IGNORED = -100
"""The target of a label that is no class of the training data: torch's, for what has no loss."""


def _as_texts(value: Any) -> Any:
    """Labels as the data have them: YAML reads numbers, `true` and `false` as such."""
    if isinstance(value, dict):
        return {_as_text(label): weight for label, weight in value.items()}
    return [_as_text(label) for label in value] if isinstance(value, list) else value


def _as_text(label: Any) -> Any:
    return str(label) if isinstance(label, bool | int) else label


PARTS = ("validation", "test")
"""What held-out parts of the recipe's own data are called; others are evaluation sets."""

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ClassWeights = Annotated[Literal["balanced"] | dict[str, Weight] | None, BeforeValidator(_as_texts)]
Order = Annotated[Literal[True] | list[str] | None, BeforeValidator(_as_texts)]
Unseen = Literal["refuse", "other"]


@dataclass
class Spelling:
    """How the training data write `true` and `false`, where those are classes: `true` in a csv file is the `True` that
    JSON and parquet files have, wherever training has only one of them."""

    written: dict[str, str] = field(default_factory=dict)
    """By the word in small letters."""

    @classmethod
    def of(cls, labels: Sequence[str]) -> Spelling:
        """Learn it from the ``labels`` of the training data."""
        spelt = [label for label in labels if label.lower() in ("true", "false")]
        if len({label.lower() for label in spelt}) < len(spelt):  # they are classes of their own, and shown
            return cls()
        return cls({label.lower(): label for label in spelt})

    def __call__(self, label: Any) -> str:
        """Write a label as the training data do."""
        return self.written.get(str(label).lower(), str(label)) if self.written else str(label)

    def counts(self, data: Dataset, column: str) -> Counter[str]:
        """Count the examples of each label in ``column``."""
        from finetune.data.sources import as_table

        found = Counter[str]()
        for each in as_table(data)[column].value_counts().to_pylist():
            found[self(each["values"])] += each["counts"]
        return found


def weights_of_classes(asked: Literal["balanced"] | Mapping[str, float] | None, counts: Mapping[str, int]) -> Any:
    """What an example of each class counts in the training loss, by label; empty where all count 1.

    ``balanced`` is scikit-learn's: examples / (classes * examples of the class), after King and Zeng 2001. ``counts``
    are those of the training examples. Raises InputError for labels that these do not have.
    """
    if asked is None:
        return {}
    if asked == "balanced":
        total = sum(counts.values())
        return {label: total / (len(counts) * count) for label, count in counts.items()}
    for label in asked:
        if label not in counts:
            found = f"no training example has the label '{visible(label)}'"
            raise bad_input("task.class_weights", found, did_you_mean(label, list(counts)))
    return {label: float(asked.get(label, 1.0)) for label in counts}


def refuse_unseen(
    splits: Splits, counts: Mapping[str, Mapping[str, int]], labels: Sequence[str], option: str, column: str
) -> None:
    """Refuse held-out sets, by name, whose ``counts`` have other labels than the training data's ``labels``, which are
    in ``column``, named by ``option``."""
    for name, found in counts.items():
        if not found.keys() <= set(labels):
            followed = splits.stratified.get(name, column) == column
            stratify = "" if followed else f", or set data.split.stratify: {column}"
            renamed = (
                "" if name in PARTS else ". What means the same as one of these gets its name in the set's `labels`"
            )
            _refuse(found, labels, option, f"'{name}'", stratify, renamed)


def refuse_unknown(counts: Mapping[str, int], labels: Sequence[str], option: str, column: str) -> None:
    """Refuse an evaluation set that is read in its own way, whose ``counts`` have other labels than the ``labels`` that
    were learnt; they are in ``column``, named by ``option``."""
    _refuse(
        counts, labels, option, f"column '{column}'", ", or give the labels of this set other names in its `labels`"
    )


def _refuse(
    counts: Mapping[str, int], labels: Sequence[str], option: str, what: str, advice: str, renamed: str = ""
) -> None:
    unseen = sorted(set(counts) - set(labels))
    if unseen:
        raise bad_input(
            option,
            f"{what} has labels that no training example has: {', '.join(map(visible, unseen[:5]))}",
            f"no model could learn them; training has {', '.join(map(visible, labels[:12]))}{renamed}. Correct "
            f"the labels, add training examples{advice}",
        )


def loss_of(log_likelihoods: np.ndarray, target: int) -> float:
    """Give the negative log-likelihood of the label whose number is ``target``; 0 where it is :data:`IGNORED`."""
    return 0.0 if target == IGNORED else float(-log_likelihoods[target])


def unseen_facts(
    counts: Mapping[str, int], labels: Sequence[str], rows: int, at: str
) -> tuple[dict[str, Any], list[str]]:
    """Describe ``rows`` examples of the set at ``at`` that have labels which are none of ``labels``: facts, and a line
    for a person."""
    unseen = {label: count for label, count in sorted(counts.items()) if label not in labels}
    if not unseen:
        return {}, []
    shown = ", ".join(f"{visible(label)} ({count:,})" for label, count in list(unseen.items())[:5])
    more = f" and {len(unseen) - 5:,} more" if len(unseen) > 5 else ""
    note = (
        f"{at}: {rows:,} examples have labels that no training example has: {shown}{more}. Every answer to them is "
        "counted as wrong (task.unseen: other)"
    )
    return {"unseen": {"examples": rows, "labels": unseen}}, [note]


def ordered(asked: Literal[True] | Sequence[str], counts: Mapping[str, int]) -> tuple[str, ...]:
    """Give the classes from the lowest to the highest, as the recipe says; ``True``: by their numbers.

    Raises InputError for a class that no training example has: no model could learn where it begins.
    """
    if asked is True:
        return tuple(sorted(counts, key=int))
    missing = [label for label in asked if label not in counts]
    if missing:
        found = f"no training example has {', '.join(map(visible, missing))}"
        raise bad_input("task.ordinal", found, "leave it out, add training examples, or set data.split.stratify")
    return tuple(asked)
