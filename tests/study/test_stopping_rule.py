"""The rule by which seeds are added: when they are enough, and how many there are after an interruption."""

from __future__ import annotations

import pytest

from finetune.core.registry import METRICS
from finetune.core.run_dir import StudyDir
from finetune.metrics import unit
from finetune.recipe import SeedsUntil
from finetune.stats.sequence import confidence_sequence
from finetune.study.stopping_rule import first_round, look

ACCURACY = {"name": "test", "headline": "accuracy"}
SCORES = [0.90, 0.91, 0.92, 0.91, 0.90, 0.92]


def rule(width=5.0, at_least=5, at_most=30):
    return SeedsUntil.model_validate({"until": {"ci_width": width}, "at_least": at_least, "at_most": at_most})


def results(*, task="test/accuracy", **variants):
    """Results by variant and seed; None: a run without a score."""
    return {
        (name, seed): {"status": "finished", "scores": {} if score is None else {task: score}}
        for name, scores in variants.items()
        for seed, score in enumerate(scores)
    }


def test_the_width_is_that_of_the_confidence_sequence_in_points():
    low, high = confidence_sequence(SCORES)
    found = look(rule(), range(6), results(full=SCORES), ACCURACY)
    assert found.widths == {"full": pytest.approx(100 * (high - low))}
    assert 3 < found.widths["full"] < 5 and found.enough


def test_every_variant_has_to_be_narrow():
    wild = [0.5, 0.9, 0.7, 0.8, 0.6, 0.7]
    found = look(rule(), range(6), results(full=SCORES, linear=wild), ACCURACY)
    assert found.wide == ["linear"] and not found.enough
    assert str(found).startswith("after 6 seeds, width of the interval in points: full ")
    assert str(found).endswith("; at most 5 is wanted, so seeds are added")


def test_it_ends_at_most_where_it_should():
    found = look(rule(1.0, at_most=6), range(6), results(full=SCORES), ACCURACY)
    assert found.wide == ["full"] and found.enough
    assert str(found).endswith("; at most 1 is wanted, and these are all seeds that may be")


def test_a_failed_run_asks_for_all_seeds_and_is_not_in_the_mean():
    """A confidence sequence is for scores without collapses; how often they come, so few seeds do not say."""
    made = results(full=[*SCORES, 0.33])
    made["full", 6]["status"] = "degenerate"
    found = look(rule(), range(7), made, ACCURACY)
    low, high = confidence_sequence(SCORES)
    assert found.widths == {"full": pytest.approx(100 * (high - low))} and found.wide == []
    assert found.failed == ["full"] and not found.enough
    assert "runs of full failed, and how often they do wants all seeds, so seeds are added" in str(found)
    assert look(rule(at_most=7), range(7), made, ACCURACY).enough
    assert look(rule(), range(6), made, ACCURACY).enough, "it had not failed yet"


def test_a_variant_without_any_score_is_not_waited_for():
    found = look(rule(), range(6), results(full=SCORES, broken=[None] * 6), ACCURACY)
    assert list(found.widths) == ["full"] and found.enough
    nothing = look(rule(), range(6), results(broken=[None] * 6), ACCURACY)
    assert nothing.enough and "no run has a score" in str(nothing)


@pytest.mark.parametrize("scores", [[0.9] * 6, [0.9, None, None, 0.8, None, None]])
def test_without_an_interval_it_goes_on(scores):
    found = look(rule(1000.0), range(6), results(full=scores), ACCURACY)
    assert found.widths == {"full": None} and not found.enough and "full none yet" in str(found)


def test_seeds_beyond_those_asked_about_do_not_count():
    made = results(full=[*SCORES, 0.1, 0.2])
    assert look(rule(), range(6), made, ACCURACY) == look(rule(), range(6), results(full=SCORES), ACCURACY)


def test_a_loss_has_no_points():
    loss = {"name": "test", "headline": "loss"}
    low, high = confidence_sequence(SCORES)
    found = look(rule(0.05), range(6), results(task="test/loss", full=SCORES), loss)
    assert found.widths == {"full": pytest.approx(high - low)}
    assert found.enough and "interval: full" in str(found) and str(found).endswith("wanted, so no seeds are added")


@pytest.mark.parametrize("name", METRICS.all())
def test_points_are_those_of_the_metric(name):
    low, high = confidence_sequence(SCORES)
    found = look(rule(), range(6), results(task=f"test/{name}", full=SCORES), {"name": "test", "headline": name})
    point = unit(name).point
    assert found.widths == {"full": pytest.approx((high - low) / (point or 1.0))}
    assert found.unit == ("" if point is None else "points")


def test_a_metric_of_others_has_its_own_unit():
    other = {"name": "test", "headline": "hub:wer"}
    found = look(rule(0.05), range(6), results(task="test/hub:wer", full=SCORES), other)
    assert found.unit == "" and unit("hub:wer").point is None


@pytest.mark.parametrize(
    "begun, step, seeds",
    [(0, 1, 5), (3, 4, 5), (5, 4, 5), (6, 4, 9), (9, 4, 9), (10, 4, 13), (7, 1, 7), (30, 4, 30), (40, 1, 30)],
)
def test_after_an_interruption_looks_come_after_the_same_seeds(begun, step, seeds):
    assert first_round(rule(), begun, step) == seeds


def test_seeds_have_begun_where_a_variant_has_a_folder(tmp_path):
    folder = StudyDir(tmp_path)
    assert folder.begun(["a", "b"]) == 0
    for name, seed in (("a", 0), ("b", 0), ("b", 1), ("a", 3)):
        folder.run(name, seed).path.mkdir(parents=True)
    assert folder.begun(["a", "b"]) == 2
    assert folder.begun(["a"]) == 1
