"""The overfitting gap by hand."""

import json

import pytest

from finetune.results.overfitting import gap_of, overfitting_of
from finetune.results.reading import read_study
from finetune.results.schema import to_json
from tests.results.stores import lose


def runs(made, variant="full"):
    return read_study(made.path).variants[variant]


def test_the_gap_by_hand(trained):
    lose(trained, "full", 1, [2.0, 1.0, 0.6, 0.4, 0.2, 0.1], [1.3, 0.9, 1.2], best_step=4, stopped_early=True)
    gap = gap_of(runs(trained)[0])
    assert (gap.train, gap.validation) == (pytest.approx(0.15), 1.2)  # (.2 + .1) / 2
    assert gap.end == pytest.approx(1.05) and gap.kept == pytest.approx(0.4)  # 0.9 - (.6 + .4) / 2
    assert gap.rise == pytest.approx(0.3) and (gap.kept_step, gap.last_step, gap.stopped_early) == (4, 6, True)


def test_where_the_last_weights_are_kept_both_gaps_are_one(trained):
    lose(trained, "full", 1, [2.0, 1.0, 0.6, 0.4], [1.3, 1.5])
    gap = gap_of(runs(trained)[0])
    assert gap.kept == gap.end == pytest.approx(1.0) and gap.kept_step == gap.last_step == 4


def test_a_validation_within_an_epoch_looks_one_epoch_back(trained):
    lose(trained, "full", 1, [8.0, 4.0, 2.0], [1.0])
    path = trained.path / "full/seed-1/metrics.jsonl"
    evaluation = {"kind": "evaluation", "step": 3, "epoch": 1.5, "scores": {"loss": 5.0}, "seconds": 1.0}
    with open(path, "a", encoding="utf-8") as log:
        log.write(json.dumps(evaluation) + "\n")
    assert gap_of(runs(trained)[0]).train == pytest.approx(3.0)  # steps 2 and 3, after epoch 0.5


@pytest.mark.parametrize("status", ["diverged", "error", "interrupted"])
def test_runs_that_came_to_no_end_have_no_gap(trained, status):
    lose(trained, "full", 1, [2.0, 1.0], [1.3], status=status)
    assert gap_of(runs(trained)[0]) is None


def test_without_validation_there_is_no_gap(trained):
    lose(trained, "full", 1, [2.0, 1.0], [])
    assert gap_of(runs(trained)[0]) is None and overfitting_of(runs(trained), 0.95) is None


def test_validation_losses_that_are_not_finite_do_not_count(trained):
    lose(trained, "full", 1, [2.0, 1.0, 0.5, 0.5], [1.3, None])
    assert gap_of(runs(trained)[0]).validation == 1.3


def test_over_seeds_it_is_an_estimate(trained):
    for seed, last in ((1, 1.0), (2, 1.5), (3, 2.0)):
        lose(trained, "full", seed, [1.0, 1.0], [last], best_step=2, stopped_early=seed == 1)
    found = overfitting_of(runs(trained), 0.95)
    # gaps 0, .5 and 1: mean .5, SD .5, t(0.975, 2) = 4.302653, half width 4.302653 * .5 / sqrt(3)
    assert found.end.mean == pytest.approx(0.5)
    assert found.end.ci == pytest.approx((0.5 - 1.242069, 0.5 + 1.242069), abs=1e-6)
    assert (found.n, found.stopped_early, found.kept_step) == (3, 1, 2)
    json.dumps(to_json(found), allow_nan=False)
