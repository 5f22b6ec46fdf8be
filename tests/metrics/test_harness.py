"""Metrics of the harness: what each document contributes has the harness's score as its mean."""

import math

import numpy as np
import pytest
from lm_eval.api.metrics import f1_score, matthews_corrcoef, mean, perplexity, weighted_perplexity

from finetune import metrics
from finetune.core.errors import FinetuneError
from finetune.metrics.harness import HarnessMetric

RNG = np.random.default_rng(0)
PAIRS = [(int(gold), int(gold if RNG.random() < 0.7 else 1 - gold)) for gold in RNG.integers(0, 2, 60)]
LIKELIHOODS = list(zip((-RNG.gamma(3, 4, 60)).tolist(), RNG.integers(2, 9, 60).tolist(), strict=True))


def made(aggregate, given, filter_name="none"):
    metric = HarnessMetric("own", filter_name, aggregate, True)
    return metric, metric.made_of([{} if each is None else {"own": each} for each in given])


def test_a_mean_is_of_the_documents_own_values():
    given = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert made(mean, given)[1].tolist() == given


@pytest.mark.parametrize(
    ("aggregate", "given"),
    [
        (f1_score, PAIRS),
        (matthews_corrcoef, PAIRS),
        (weighted_perplexity, LIKELIHOODS),
        (perplexity, [own for own, _ in LIKELIHOODS]),
        (max, [0.1, 0.4, 0.4, 0.2]),
    ],
)
def test_other_aggregations_get_the_jackknifes_contributions(aggregate, given):
    _, found = made(aggregate, given)
    assert found.mean() == pytest.approx(float(aggregate(given)))
    assert len(found) == len(given)


def test_the_spread_of_a_perplexitys_contributions_is_that_of_the_delta_method():
    _, found = made(weighted_perplexity, LIKELIHOODS)
    sums, words = np.array(LIKELIHOODS).T
    score = math.exp(-sums.sum() / words.sum())
    influence = score * (-sums + sums.sum() / words.sum() * words) / words.mean()
    assert found.std() == pytest.approx(influence.std(), rel=0.1)


def test_documents_without_the_metric_count_what_the_others_have():
    _, found = made(mean, [1.0, None, 0.0, 1.0])
    assert found[1] == pytest.approx(2 / 3) and found.mean() == pytest.approx(2 / 3)
    _, found = made(perplexity, [-1.0, None, -2.0, -3.0])
    assert found.mean() == pytest.approx(math.exp(2))
    with pytest.raises(FinetuneError, match="no document has got a value"):
        made(mean, [None, None])


@pytest.mark.parametrize(
    ("aggregate", "said"),
    [
        (lambda given: {"a": 1.0}, "gives no number"),
        (lambda given: None, "gives no number"),
        (lambda given: True, "gives no number"),
        (lambda given: given["x"], "cannot be computed"),
    ],
)
def test_what_gives_no_number_is_refused_by_name(aggregate, said):
    with pytest.raises(FinetuneError, match=rf"lm_eval\.own.*{said}"):
        made(aggregate, [1.0, 0.0])


def test_a_perplexity_beyond_all_numbers_is_infinite():
    metric, _ = made(mean, [1.0])
    metric.aggregate = perplexity
    assert metric.score_of([-1e6]) == math.inf


def test_names_and_units():
    assert made(mean, [1.0])[0].name == "lm_eval.own"
    assert made(mean, [1.0], "strict-match")[0].name == "lm_eval.own,strict-match"
    assert metrics.unit("lm_eval.exact_match,strict-match").point == 0.01
    assert metrics.unit("lm_eval.acc_norm").value(0.25).startswith("25.0")
    assert metrics.unit("lm_eval.word_perplexity").point is None
    assert metrics.unit("lm_eval.word_perplexity").bounds == metrics.unit("perplexity").bounds
    assert metrics.unit("lm_eval.bits_per_byte").bounds == (0.0, math.inf)
    assert metrics.unit("lm_eval.mcc").bounds is None
    assert metrics.find("lm_eval.exact_match") is None, "ours of that name is computed otherwise"


def test_its_value_is_what_is_stored():
    metric = HarnessMetric("acc", "none", mean, True)
    assert metric.value({"own": {"lm_eval.acc": np.array([1.0, 0.0, 1.0, 1.0])}}) == 0.75
