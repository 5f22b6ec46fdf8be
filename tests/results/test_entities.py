"""Scores by type of entity, from prediction stores whose answers are known."""

import pytest

from finetune.results.entities import entities_of
from tests.results.stores import answer, keep, read

WANTED = ["B-a O", "B-b I-b", "O B-a", "O O"] * 10


def told(made):
    data = made.data()
    data["tasks"][0] |= {"answer": "tags"}
    made.json("data.json", data)
    study, results = read(made)
    return entities_of(study, results.tasks[0])


def tag(made, seed, said):
    answer(made, "full", seed, list(zip(said, WANTED, strict=True)), labels=())


@pytest.fixture
def made(fabricator):
    made = fabricator([1, 2, 3], {"full": "full"}, labels=(), examples=40)
    for seed in made.seeds:
        said = list(WANTED)
        said[: 4 * seed] = ["O O"] * (4 * seed)  # seed 1 misses 3 of 30 entities, seed 2 six, seed 3 nine
        tag(made, seed, said)
    return made


def test_types_stand_by_how_many_are_wanted(made):
    found = told(made)
    assert [(each.variant, each.kind, each.support) for each in found] == [
        ("full", "", 30),
        ("full", "a", 20),
        ("full", "b", 10),
    ]


def test_means_are_over_seeds_and_intervals_hold_them(made):
    every, *_ = told(made)
    assert every.recall.mean == pytest.approx((0.9 + 0.8 + 0.7) / 3) and every.precision.mean == 1
    assert every.f1.mean == pytest.approx(sum(2 * hits / (30 + hits) for hits in (27, 24, 21)) / 3)
    assert every.precision.ci is None, "without a mistake nothing tells how many there might be"
    low, high = every.f1.ci
    assert 0 <= low < every.f1.mean < high <= 1 and every.f1.n == 3
    assert "new examples" in every.f1.method


def test_groups_of_examples_are_drawn_together(made):
    alone = told(made)[0].recall.ci
    keep(made, ["a b"] * 40, clusters=[str(number // 4) for number in range(40)])
    together = told(made)[0].recall.ci
    assert together != alone


def test_runs_that_failed_are_left_out(made):
    made.run("full", 3, 0.1, "degenerate")
    assert told(made)[0].recall.n == 2


def test_what_is_said_and_never_wanted_is_listed(made):
    tag(made, 1, ["B-new O"] * 40)
    new = told(made)[-1]
    assert (new.kind, new.support, new.precision.mean, new.recall.mean) == ("new", 0, 0, 0)
