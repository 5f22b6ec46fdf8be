"""Splits of examples into test, validation and train: seeded, with exact sizes, stratified, and by cluster.

The parts are a function of the examples' order and the split's seed alone. Test is carved first, then validation,
then train, each with random draws of its own: asking for a validation part, or another size of it, leaves the test
part as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from finetune.core.errors import bad_input
from finetune.data.columns import refuse_missing
from finetune.data.draws import TEST, TRAIN, VALIDATION, random_keys
from finetune.data.nested import is_nested
from finetune.data.options import Split
from finetune.data.sources import as_table

if TYPE_CHECKING:
    from datasets import Dataset

AT = "data.split"


@dataclass(frozen=True)
class Parts:
    """Row numbers of each part, ascending, int64. ``validation`` and ``test`` are empty when not asked for."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def divide(dataset: Dataset, split: Split, seed: int) -> Parts:
    """Divide ``dataset`` into the parts that ``split`` asks for.

    With ``stratify``, each part has its share of every class, to within one example. With ``group``, sizes are as
    near as whole clusters allow; with both, the class proportions are too.

    Raises:
        InputError: under ``data.split``, for a missing column, or more examples asked for than there are.
    """
    total = dataset.num_rows
    sizes = {part: _amount(getattr(split, part), total, f"{AT}.{part}") for part in ("test", "validation")}
    if sum(sizes.values()) >= total:
        asked = " and ".join(f"{size} for {part}" for part, size in sizes.items() if size)
        raise bad_input(AT, f"{asked} of {total} examples leaves none for training", "make a part smaller")
    wanted = _training_amount(split, total, total - sum(sizes.values()))
    strata = _codes(dataset, split.stratify, f"{AT}.stratify")
    clusters = None if split.group is None else _codes(dataset, split.group, f"{AT}.group")

    test, rest = _carve(np.arange(total), sizes["test"], strata, clusters, seed, TEST)
    validation, rest = _carve(rest, sizes["validation"], strata, clusters, seed, VALIDATION)
    train, _ = _carve(rest, min(wanted, len(rest)), strata, clusters, seed, TRAIN)
    for part, rows in (("test", test), ("validation", validation), ("train", train)):
        if not len(rows) and (part == "train" or sizes[part]):
            raise bad_input(f"{AT}.{part}", f"no whole group of '{split.group}' fits", "the groups are too large")
    return Parts(train, validation, test)


def _amount(value: float, total: int, path: str) -> int:
    """A share below 1, or a whole number of examples, as a number of examples."""
    size = round(value * total) if value < 1 else int(value)
    if value and not size:
        raise bad_input(path, f"a share of {value:g} of {total} examples is none", "give a number of examples instead")
    return size


def _training_amount(split: Split, total: int, left: int) -> int:
    """Count the examples to train on, of ``left``; shares that add up to 1 are not refused for being rounded."""
    if split.train is None:
        return total
    size = _amount(split.train, total, f"{AT}.train")
    shares = (split.train, split.validation, split.test)
    rounded = all(share < 1 for share in shares) and sum(shares) <= 1 + 1e-9
    if size > left and not rounded:
        advice = f"ask for at most {left}, or leave it out to train on all of them"
        raise bad_input(f"{AT}.train", f"{size} examples are asked for, and {left} are left for training", advice)
    return size


def _codes(dataset: Dataset, column: str | None, path: str) -> np.ndarray:
    """Number each row's value in order of first appearance, ``(examples,)``; zeros without a column."""
    if column is None:
        return np.zeros(dataset.num_rows, dtype=np.int64)
    refuse_missing(dataset, column, "data.train", path)
    values = as_table(dataset.select_columns([column]))[column]
    if path == f"{AT}.stratify" and pa.types.is_list(values.type) and not is_nested(values.type.value_type):
        return _rarest(values.to_pylist())
    if is_nested(values.type):
        raise bad_input(path, f"column '{column}' of data.train holds lists or objects, not plain values")
    return values.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _rarest(sets: Sequence[Sequence[Any]]) -> np.ndarray:
    """Number the rarest value of each of ``sets``, ``(examples,)``, of equally rare ones the first to appear; an empty
    one has a number of its own. In the order of Sechidis et al. 2011 ("On the Stratification of Multi-Label Data",
    section 3), which looks at the rarest label first."""
    counts = Counter(value for values in sets for value in set(values))
    places = {value: place for place, value in enumerate(counts, start=1)}
    return np.array(
        [min((counts[value], places[value]) for value in values)[1] if values else 0 for values in sets], dtype=np.int64
    )


def _carve(
    pool: np.ndarray, size: int, strata: np.ndarray, clusters: np.ndarray | None, seed: int, purpose: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``size`` rows of ``pool``, and give the rows that are left; both ascending. Codes are of all examples."""
    if size in (0, len(pool)):
        return pool[:size], pool[size:]
    keys = random_keys(len(pool), seed, purpose)
    _, strata = np.unique(strata[pool], return_inverse=True)
    targets = _proportional(np.bincount(strata), size, keys)
    if clusters is None:
        chosen = _first_of_each(strata, targets, keys)
    else:
        _, members = np.unique(clusters[pool], return_inverse=True)
        counts = np.zeros((members.max() + 1, len(targets)), dtype=np.int64)
        np.add.at(counts, (members, strata), 1)
        order = np.argsort(random_keys(len(counts), seed, purpose), kind="stable")
        chosen = _whole_clusters(counts, targets, order)[members]
    return pool[chosen], pool[~chosen]


def _proportional(counts: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Compute how many to take of each class, ``(classes,)``: largest remainders, adding up to ``size``.

    Equal remainders are decided by chance, so that the same classes do not gain in every part.
    """
    taken, remainders = np.divmod(counts * size, counts.sum())
    ranking = np.lexsort((keys[: len(counts)], -remainders))
    taken[ranking[: size - taken.sum()]] += 1
    return taken


def _first_of_each(strata: np.ndarray, targets: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Choose the first ``targets[k]`` rows of each stratum ``k`` in random order: ``(rows,)`` bool."""
    order = np.lexsort((keys, strata))
    starts = np.concatenate([[0], np.cumsum(np.bincount(strata))[:-1]])
    rank = np.arange(len(strata)) - starts[strata[order]]
    chosen = np.zeros(len(strata), dtype=bool)
    chosen[order] = rank < targets[strata[order]]
    return chosen


def _whole_clusters(counts: np.ndarray, targets: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Choose clusters whose ``(clusters, strata)`` counts add up to about ``targets``: ``(clusters,)`` bool.

    First, in random order, every cluster that fits into what is still wanted of each stratum; then, smallest first,
    every cluster that brings the sum nearer although it overshoots. With one stratum no more than half of a cluster is
    then missing or too much.
    """
    wanted = targets.copy()
    chosen = np.zeros(len(counts), dtype=bool)
    for cluster in order:
        if (counts[cluster] <= wanted).all():
            chosen[cluster] = True
            wanted -= counts[cluster]
    left = order[~chosen[order]]
    for cluster in left[np.argsort(counts[left].sum(axis=1), kind="stable")]:
        if np.abs(wanted - counts[cluster]).sum() < np.abs(wanted).sum():
            chosen[cluster] = True
            wanted -= counts[cluster]
    return chosen
