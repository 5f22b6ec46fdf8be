"""What every metric promises."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.registry import METRICS, summary
from finetune.metrics import contributions, find, unit
from tests.metrics.columns import columns, value, written

BEST = {
    "chrf": 100.0,
    "sacrebleu": 100.0,
    "preference_loss": math.log1p(math.exp(-1)),
    **dict.fromkeys(("nll", "loss", "brier", "ece", "hamming_loss", "rank_mae", "rmse", "mae", "bits_per_byte"), 0.0),
}
"""What a perfect prediction scores, where it is not 1."""

SECOND = "zebra on a hill"
LESS_IS_BETTER = {
    *("nll", "loss", "brier", "ece", "hamming_loss", "rank_mae", "rmse", "mae", "preference_loss"),
    *("perplexity", "bits_per_byte"),
}

words = st.sampled_from(["cat", "dog", "mat", "the"])
rows = st.lists(
    st.tuples(
        st.lists(words, max_size=3).map(" ".join),
        st.lists(words, min_size=1, max_size=3).map(" ".join),
        st.floats(0, 20),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=8,
)


def computed(name, table):
    numbers = {"loss": [row[2] for row in table], "weight": [row[3] for row in table]}
    numbers |= {"margin": [1 - row[2] for row in table], "reward": [1 - row[2] for row in table]}
    numbers["size"] = [4 * row[3] for row in table]
    return value(name, [row[:2] for row in table], **numbers, extracted=[row[0] for row in table])


@pytest.mark.parametrize("name", METRICS.all())
@settings(max_examples=25)
@given(rows, st.randoms())
def test_the_order_of_rows_does_not_matter(name, table, random):
    assert computed(name, random.sample(table, len(table))) == pytest.approx(computed(name, table))


@pytest.mark.parametrize("name", METRICS.all())
@settings(max_examples=25)
@given(rows)
def test_a_perfect_prediction_scores_best_and_none_scores_beyond(name, table):
    best, sign = BEST.get(name, 1.0), 1 if find(name).higher_is_better else -1
    assert sign * computed(name, table) <= sign * best + 1e-9
    # A second label, so that the Matthews correlation is defined; of four words, so that BLEU is.
    texts = [(f"{wanted} {wanted}", weight) for _, wanted, _, weight in table]  # of two words, so that ROUGE-2 is
    perfect = [(text, text, 0.0, weight) for text, weight in texts] + [(SECOND, SECOND, 0.0, 1)]
    assert computed(name, perfect) == pytest.approx(best)


@pytest.mark.parametrize("name", METRICS.all())
def test_it_says_what_it_is(name):
    metric = find(name)
    assert metric.name == name and summary(type(metric)).endswith(".") and metric.unit == unit(name)
    names = {"prediction", "reference", "loss", "weight", "margin", "reward", "extracted", "probabilities", "labels"}
    assert set(metric.columns) <= names | {"bytes", "margin_norm"}
    assert metric.unit.label and (metric.unit.is_share <= metric.higher_is_better)
    if metric.hub:
        assert metric.hub.keys() <= {"type", "args", "config"} and metric.hub["type"]
    if metric.right_or_wrong:
        numbers = {"loss": [0, 1], "weight": [1, 1], "margin": [1, -1], "score": [1, 0], "reward": [1, -1]}
        pairs = [("cat", "cat"), ("", "cat")]
        if metric.numeric:
            pairs = [(written(name, said), written(name, wanted)) for said, wanted in pairs]
        table = columns(pairs, **numbers, extracted=["a", ""])
        assert set(metric.contributions(table)) == {0.0, 1.0}


@pytest.mark.parametrize("name", METRICS.all())
def test_without_its_columns_it_is_our_mistake_and_has_no_contributions(name):
    metric = find(name)
    lacking = columns([("1", "1")]) | {column: None for column in metric.columns}
    with pytest.raises(ValueError, match=f"{name} needs the column '{metric.columns[0]}' of at least one"):
        metric.check(lacking)
    assert contributions(name, lacking) is None and contributions(name, columns([])) is None


def test_which_way_is_up_and_what_a_point_is():
    assert {name for name in METRICS.all() if not find(name).higher_is_better} == LESS_IS_BETTER
    assert {name for name in METRICS.all() if "loss" in find(name).columns} == {
        "nll",
        "loss",
        "perplexity",
        "bits_per_byte",
    }
    points = {name: unit(name).point for name in METRICS.all() if not unit(name).is_share}
    correlations = ("mcc", "pearson", "spearman", "cosine_spearman", "quadratic_kappa")
    without = dict.fromkeys({*LESS_IS_BETTER, "reward_margin"})
    assert points == {"chrf": 1.0, "sacrebleu": 1.0, **dict.fromkeys(correlations, 0.01), **without}
    assert {unit(name).point for name in METRICS.all() if unit(name).is_share} == {0.01}


@pytest.mark.parametrize("name", [name for name in METRICS.all() if find(name).by_equality])
@given(st.lists(st.tuples(*[st.sampled_from(["no", "yes", "yes "])] * 2), min_size=1))
def test_equal_numbers_may_stand_for_equal_texts(name, pairs):
    labels = ["no", "yes", "yes "]
    texts = columns(pairs)
    numbers = {key: np.array([labels.index(text) for text in texts[key]]) for key in ("prediction", "reference")}
    assert contributions(name, numbers) == pytest.approx(contributions(name, texts))


def test_a_metric_of_others_is_not_known_here():
    assert find("hub:wer") is None and contributions("hub:wer", columns([("a", "a")])) is None
    assert unit("hub:wer").label == "hub:wer" and unit("hub:wer").point is None
