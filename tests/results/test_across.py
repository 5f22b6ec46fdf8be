"""One number for all evaluation sets: what the statistics say of the runs' scores, and what is left out of it."""

import json

import numpy as np
import pytest

from finetune.results.across import across_of
from finetune.results.reading import read_study
from finetune.results.schema import Direction, EvaluationSet, LeftOut, to_json
from finetune.stats.across import aggregate, improvement_across, interquartile_mean
from tests.results.stores import TASKS


def sets_of(metrics=("accuracy", "accuracy", "accuracy"), higher=True):
    return [
        EvaluationSet(name, name, metric, higher, 200, [Direction(metric, higher)])
        for name, metric in zip(TASKS, metrics, strict=True)
    ]


def across(made, sets=None, seed=0):
    study = read_study(made.path)
    return study, across_of(study, sets_of() if sets is None else sets, np.random.default_rng(seed))


def table_of(study, variant):
    return np.array([[run.scores[f"{task}/accuracy"] for task in TASKS] for run in study.variants[variant]])


def test_it_is_what_the_statistics_say_of_the_runs_scores(three_sets):
    study, found = across(three_sets)
    linear, full, base = found.variants
    for row in (linear, full):
        expected = aggregate(table_of(study, row.name), interquartile_mean)
        assert (row.iqm.value, row.iqm.ci) == (expected.value, expected.ci) and row.runs == 6
        assert row.optimality_gap.value == pytest.approx(1 - row.mean.value)
    assert base.name == "base" and base.runs == 1 and base.iqm.ci is None and base.iqm.reason
    [pair] = found.pairs
    expected = improvement_across(table_of(study, "linear"), table_of(study, "full"))
    assert (pair.left, pair.right) == ("linear", "full")
    assert pair.probability_of_improvement.value == expected.value == 0
    assert {task: order.epsilon_min for task, order in pair.order.left.items()} == dict.fromkeys(TASKS, 1.0)
    assert {task: order.epsilon_min for task, order in pair.order.right.items()} == dict.fromkeys(TASKS, 0.0)
    assert pair.order_alpha == pytest.approx(0.05 / 6), "two ways on three tasks"
    share = full.profile.share
    assert len(found.taus) == len(share) == 102 and share[0] == base.profile.share[0] == 1 and share[-1] == 0
    json.dumps(to_json(found), allow_nan=False)


def test_the_level_of_each_order_is_shared_by_all_pairs_both_ways_and_tasks(fabricator):
    made = fabricator([1, 2], {"linear": "linear", "lora": "adapter", "full": "full"}, tasks=TASKS)
    for seed in made.seeds:
        for variant in made.variants:
            made.run(variant, seed, 0.8)
    _, found = across(made)
    assert [(pair.left, pair.right) for pair in found.pairs] == [
        ("linear", "lora"),
        ("linear", "full"),
        ("lora", "full"),
    ]
    assert all(pair.order_alpha == pytest.approx(0.05 / 18) for pair in found.pairs)
    assert all(order.reason for pair in found.pairs for order in pair.order.left.values()), "two seeds"


def test_the_generator_decides(three_sets):
    for seed in three_sets.seeds:
        three_sets.run("linear", seed, 0.88)
    assert across(three_sets, seed=1)[1] == across(three_sets, seed=1)[1] != across(three_sets, seed=2)[1]


def test_one_task_has_nothing_across(three_sets):
    assert across(three_sets, sets_of()[:1])[1] is None


def test_metrics_on_other_scales_are_left_out_with_the_reason(three_sets):
    _, found = across(three_sets, sets_of(("accuracy", "mcc", "macro_f1")))
    assert [(row.task, row.metric) for row in found.tasks] == [("test", "accuracy"), ("mails", "macro_f1")]
    assert found.left_out == [LeftOut("tweets", "mcc", "MCC is no share between 0 and 1 of which more is better")]


@pytest.mark.parametrize(
    "sets",
    [sets_of(("accuracy", "nll", "chrf")), sets_of(higher=False), sets_of(("hub:f1", "loss", "exact_match"))],
)
def test_fewer_than_two_tasks_on_one_scale_are_told(three_sets, sets):
    _, found = across(three_sets, sets)
    assert found.variants == [] and found.pairs == [] and "fewer than two tasks" in found.reason


def test_runs_that_failed_are_counted_out(three_sets):
    three_sets.run("full", 2, None, "diverged", "loss is not finite")
    three_sets.run("full", 3, 0.2, "degenerate", "at the majority")
    full = across(three_sets)[1].variants[1]
    assert (full.runs, full.runs_left_out) == (4, 2)
    assert full.mean.value > 0.85, "the mean is of the runs that work"


def test_a_variant_without_any_score_has_nothing(three_sets):
    for seed in three_sets.seeds:
        three_sets.run("linear", seed, None, "diverged", "loss is not finite")
    _, found = across(three_sets)
    assert found.variants[0].iqm is None and found.pairs == []


def test_one_run_against_others_has_no_interval(fabricator):
    made = fabricator([1, 2, 3], {"linear": "linear", "full": "full"}, tasks=TASKS)
    for seed in made.seeds:
        made.run("linear", seed, 0.8)
    made.run("full", 1, 0.8)
    chance = across(made)[1].pairs[0].probability_of_improvement
    assert chance.ci is None and "at least two" in chance.reason


def test_a_single_variant_has_no_pair(fabricator):
    made = fabricator([1, 2], {"full": "full"}, tasks=TASKS)
    for seed in (1, 2):
        made.run("full", seed, 1.0)
    assert across(made)[1].pairs == []
