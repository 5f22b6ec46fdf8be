"""Seeded, stratified, grouped splits."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.options import Split
from finetune.data.sources import as_dataset
from finetune.data.splits import divide

SEEDS = st.integers(0, 2**63 - 1)


def examples(labels, clusters=None):
    columns = {"label": pa.array(labels)}
    return as_dataset(pa.table(columns if clusters is None else columns | {"group": pa.array(clusters)}))


def rows(parts):
    return {part: getattr(parts, part).tolist() for part in ("train", "validation", "test")}


@st.composite
def labelled(draw):
    labels = draw(st.lists(st.integers(0, 4), min_size=4, max_size=80))
    test = draw(st.integers(0, len(labels) - 2))
    validation = draw(st.integers(0, len(labels) - test - 1))
    train = draw(st.none() | st.integers(1, len(labels) - test - validation))
    return labels, test, validation, train


@settings(max_examples=60)
@given(labelled(), SEEDS, st.booleans())
def test_sizes_are_exact_and_parts_are_disjoint(case, seed, stratify):
    labels, test, validation, train = case
    split = Split(test=test, validation=validation, train=train, stratify="label" if stratify else None)
    parts = rows(divide(examples(labels), split, seed))
    assert (len(parts["test"]), len(parts["validation"])) == (test, validation)
    assert len(parts["train"]) == (len(labels) - test - validation if train is None else train)
    together = [row for part in parts.values() for row in part]
    assert len(set(together)) == len(together) and set(together) <= set(range(len(labels)))
    assert all(part == sorted(part) for part in parts.values())


@settings(max_examples=60)
@given(labelled(), SEEDS)
def test_stratified_parts_have_each_class_in_proportion_to_within_one(case, seed):
    labels, test, validation, train = case
    parts = divide(examples(labels), Split(test=test, validation=validation, train=train, stratify="label"), seed)
    pool = set(range(len(labels)))
    for part in (parts.test, parts.validation, parts.train):
        have, found = Counter(labels[row] for row in pool), Counter(labels[row] for row in part)
        for label, count in have.items():
            assert abs(found[label] - count * len(part) / len(pool)) < 1
        pool -= set(part.tolist())


@settings(max_examples=100)
@given(st.lists(st.integers(1, 4), min_size=16, max_size=50), st.data(), SEEDS)
def test_clusters_are_never_divided_and_sizes_are_near(cluster_sizes, data, seed):
    clusters = [cluster for cluster, size in enumerate(cluster_sizes) for _ in range(size)]
    clusters = data.draw(st.permutations(clusters))
    test = data.draw(st.integers(4, len(clusters) // 2))
    parts = divide(examples([0] * len(clusters), clusters), Split(test=test, validation=4, group="group"), seed)
    owners = [{clusters[row] for row in part} for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, owners)) == len(cluster_sizes)
    assert sum(map(len, (parts.train, parts.validation, parts.test))) == len(clusters)
    largest = max(cluster_sizes)
    assert abs(len(parts.test) - test) <= largest / 2 and abs(len(parts.validation) - 4) <= largest / 2


def test_clusters_of_one_class_each_keep_proportions():
    clusters = [cluster for cluster in range(60) for _ in range(1 + cluster % 4)]
    labels = [cluster % 3 for cluster in clusters]
    data = examples(labels, clusters)
    parts = divide(data, Split(test=0.3, validation=0.2, stratify="label", group="group"), 5)
    for part, share in ((parts.test, 0.3), (parts.validation, 0.2)):
        found = Counter(labels[row] for row in part)
        for label, count in Counter(labels).items():
            assert abs(found[label] - share * count) <= 2
    assert not {clusters[row] for row in parts.test} & {clusters[row] for row in parts.train}


def test_clusters_of_mixed_classes_keep_proportions():
    generator = np.random.default_rng(0)
    clusters = generator.integers(0, 40, 400).tolist()
    labels = generator.integers(0, 4, 400).tolist()
    parts = divide(examples(labels, clusters), Split(test=0.25, stratify="label", group="group"), 1)
    assert abs(len(parts.test) - 100) <= 6
    found, have = Counter(labels[row] for row in parts.test), Counter(labels)
    assert all(abs(found[label] - have[label] / 4) <= 5 for label in have)


def test_same_seed_same_parts_other_seed_other_parts():
    data = examples(list(range(100)))
    split = Split(test=30, validation=10, train=20)
    assert rows(divide(data, split, 1)) == rows(divide(data, split, 1))
    one, two = divide(data, split, 1), divide(data, split, 2)
    for part in ("test", "validation", "train"):
        assert getattr(one, part).tolist() != getattr(two, part).tolist()


def test_parts_are_the_same_on_every_machine():
    parts = rows(divide(examples([0, 1] * 10), Split(test=4, validation=2, train=3, stratify="label"), 0))
    assert parts == {"train": [12, 13, 19], "validation": [0, 17], "test": [7, 10, 11, 18]}


@pytest.mark.parametrize("extra", [{}, {"group": "group"}, {"stratify": "label"}])
def test_another_part_moves_no_earlier_one(extra):
    data = examples([row % 3 for row in range(90)], [row // 2 for row in range(90)])
    alone = divide(data, Split(test=20, **extra), 7)
    more = divide(data, Split(test=20, validation=10, **extra), 7)
    most = divide(data, Split(test=20, validation=10, train=5, **extra), 7)
    assert alone.test.tolist() == more.test.tolist() == most.test.tolist()
    assert more.validation.tolist() == most.validation.tolist()
    assert set(most.train) < set(more.train) < set(alone.train)


def test_shares_are_of_all_examples():
    parts = divide(examples([0] * 50), Split(test=0.3, validation=0.1, train=0.2), 0)
    assert (len(parts.test), len(parts.validation), len(parts.train)) == (15, 5, 10)


@pytest.mark.parametrize("total", range(10, 40))
def test_shares_that_add_up_to_one_are_not_refused_for_rounding(total):
    parts = divide(examples([0] * total), Split(test=0.1, validation=0.1, train=0.8), 0)
    assert len(parts.train) >= total - len(parts.test) - len(parts.validation) - 1


def test_nothing_asked_for_leaves_all_for_training():
    assert rows(divide(examples([0] * 5), Split(), 0)) == {"train": [0, 1, 2, 3, 4], "validation": [], "test": []}


@pytest.mark.parametrize("seed", range(5))
def test_rare_values_of_lists_come_into_every_part(seed):
    """Of three in a hundred with the rarest one, one in each part of a third, whatever else they have."""
    sets = [["often"] if number % 2 else ["often", "usual"] for number in range(90)] + [[]] * 9
    sets[4], sets[40], sets[80] = (["often", "rare"], ["rare"], ["usual", "rare", "often"])
    parts = divide(as_dataset(pa.table({"labels": sets})), Split(test=33, validation=33, stratify="labels"), seed)
    for part in rows(parts).values():
        assert sum("rare" in sets[row] for row in part) == 1 and sum(not sets[row] for row in part) == 3


@pytest.mark.parametrize(
    "split, path, text",
    [
        (Split(test=20), "data.split", "20 for test of 20 examples leaves none"),
        (Split(test=0.5, validation=0.5), "data.split", "10 for test and 10 for validation of 20 examples"),
        (Split(test=5, train=16), "data.split.train", "16 examples are asked for, and 15 are left"),
        (Split(test=0.5, train=0.8), "data.split.train", "16 examples are asked for, and 10 are left"),
        (Split(test=0.01), "data.split.test", "a share of 0.01 of 20 examples is none"),
        (Split(test=2, stratify="lable"), "data.split.stratify", "did you mean 'label'"),
        (Split(test=2, group="groop"), "data.split.group", "did you mean 'group'"),
        (Split(test=2, group="gaps"), "data.split.group", "has no value in row 4"),
        (Split(test=2, group="lists"), "data.split.group", "lists or objects"),
        (Split(test=2, stratify="objects"), "data.split.stratify", "lists or objects"),
        (Split(test=2, group="one"), "data.split.test", "no whole group of 'one' fits"),
        (Split(test=15, group="one"), "data.split.train", "no whole group of 'one' fits"),
    ],
)
def test_refused(refused, split, path, text):
    columns = {
        "label": list(range(20)),
        "group": list(range(20)),
        "gaps": ["a", "b", "c", None, *"abcdefghijklmnop"],
        "lists": [[1]] * 20,
        "objects": [{"a": 1}] * 20,
        "one": ["same"] * 20,
    }
    with refused(path, text):
        divide(as_dataset(pa.table(columns)), split, 0)
