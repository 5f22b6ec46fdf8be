"""Forgetting is a test for non-inferiority against the untuned model."""

from dataclasses import replace

import pytest

from finetune.report.content import document
from finetune.report.html import render
from finetune.report.sections import forgetting as page
from finetune.results.compute import results_of
from finetune.results.domains import domains_of
from finetune.results.forgetting import forgetting_of
from finetune.results.remarks import forgetting_remarks
from finetune.results.schema import EvaluationSet, PairResult

KNOWN = EvaluationSet("known", "evaluate", "loss", False, 50, [], role="forgetting", margin=0.1)


def pair(difference, ci, metric="loss", task="known", right="base"):
    fields = {name: None for name in PairResult.__dataclass_fields__}
    fields |= {"difference": difference, "ci": ci, "task": task, "metric": metric, "left": "full", "right": right}
    return PairResult(**fields | {"reason": None if ci else "too few runs"})


@pytest.mark.parametrize(
    ("ci", "verdict"),
    [
        ((-0.05, 0.09), "kept"),  # a loss: upwards is worse
        ((0.02, 0.09), "kept"),  # worse, and not by more than what is accepted
        ((0.02, 0.11), "undecided"),
        ((0.11, 0.30), "lost"),
        (None, "undecided"),
    ],
)
def test_the_whole_interval_must_lie_on_one_side_of_the_margin(ci, verdict):
    difference = sum(ci) / 2 if ci else 0.03
    [found] = forgetting_of(["full"], [KNOWN], [pair(difference, ci)])
    assert found.verdict == verdict and found.change == pytest.approx(-difference)
    assert found.ci == (ci and (-ci[1], -ci[0]))
    assert (found.reason is None) == (ci is not None)


def test_more_is_better_for_other_metrics():
    task = replace(KNOWN, metric="accuracy", higher_is_better=True)
    [found] = forgetting_of(["full"], [task], [pair(-0.3, (-0.5, -0.2), "accuracy")])
    assert (found.verdict, found.change, found.ci) == ("lost", -0.3, (-0.5, -0.2))


def test_without_a_score_of_the_untuned_model_nothing_is_said():
    for others in ([], [pair(0.0, (-0.1, 0.1), right="lora")], [pair(0.0, (-0.1, 0.1), task="test")]):
        [found] = forgetting_of(["full"], [KNOWN], others)
        assert found.verdict == "undecided" and "no score" in found.reason


def test_only_sets_of_that_role_are_judged():
    assert forgetting_of(["full"], [replace(KNOWN, role="shifted")], [pair(0.5, (0.4, 0.6))]) == []


@pytest.fixture
def asked(shifted):
    """Accuracy .90 to .92 where it was trained, and .80, .71 and .62 on what the untuned model gets right by .75."""

    def build(margin):
        study, _ = shifted(base=(0.4, 0.75))
        study.data["tasks"][1] |= {"role": "forgetting", "margin": margin}
        return study, results_of(study)

    return build


def test_a_study_says_it_in_results_page_and_remark(asked):
    study, results = asked(0.5)
    [found] = results.forgetting
    assert (found.variant, found.task, found.margin) == ("full", "tweets", 0.5)
    assert found.change == pytest.approx((0.80 + 0.71 + 0.62) / 3 - 0.75)
    [section] = page.sections(study, results)
    table = section.blocks[1]
    assert [row[0].text for row in table.rows] == ["untuned model", "full"]
    assert table.rows[1][3].text == page.SAID[found.verdict]
    [remark] = forgetting_remarks(results)
    assert "tweets" in remark and "full" in remark and "50.0" in remark
    assert "What was kept of the untuned model" in render(document(study, results))


def test_what_was_known_is_not_among_shifted_sets(asked):
    _, results = asked(0.01)
    assert domains_of(results) == (None, [])
    assert [(left.task, left.reason) for left in results.across.left_out] == [
        ("tweets", "it is about what was known before")
    ]


def test_nothing_is_written_without_such_a_set(shifted):
    study, results = shifted()
    assert page.sections(study, results) == [] and forgetting_remarks(results) == []
