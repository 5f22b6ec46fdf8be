"""Contributions: their mean is the metric that a run reports, and their spread what resampling examples finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.registry import METRICS
from finetune.evaluate.metrics import score as score_by_evaluate
from finetune.evaluate.metrics import scores_of
from finetune.evaluate.store import Predictions
from finetune.metrics import contributions, find
from finetune.stats import spread
from tests.metrics.columns import believed

TEXTS = st.text(alphabet="ab ?\t🙂É", max_size=12)
LABELS = st.sampled_from(["no", "yes", "yes ", "maybe"])
LANGUAGE = ["perplexity", "bits_per_byte"]
SETS = ["micro_f1", "label_macro_f1", "subset_accuracy", "hamming_loss"]
TAGS = st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), min_size=1, max_size=5).map(" ".join)
LOSSES = st.floats(0, 50)


def stored(prediction, reference, loss=None, weight=None, margin=None, score=None, reward=None):
    """A prediction store's columns, and the store itself."""
    zeros, numbers = np.zeros(len(prediction)), {"loss": loss, "weight": weight, "margin": margin, "reward": reward}
    numbers["margin_norm"] = margin
    probabilities, labels = believed(prediction, 0.7)
    columns = {
        "probabilities": probabilities,
        "labels": labels,
        "prediction": prediction,
        "reference": reference,
        "score": zeros if score is None else score,
        **{name: value and np.array(value) for name, value in numbers.items()},
        "extracted": prediction,
        "extracted_reference": reference,
        "bytes": weight and 4.0 * np.array(weight),
    }
    return columns, Predictions(example=np.arange(len(prediction)), **columns)


@st.composite
def stores(draw, texts):
    n = draw(st.integers(1, 25))

    def column(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    prediction, reference = column(texts), column(texts)
    score = scores_of("rouge_l", prediction, reference)
    margins, rewards = column(st.floats(-9, 9)), column(st.floats(-9, 9))
    return stored(prediction, reference, column(LOSSES), column(st.integers(1, 9)), margins, score, rewards)


NUMBERS = st.floats(-1e6, 1e6).map(repr) | st.sampled_from(["0", "1", "2.5", "-3"])
"""With ties among them."""

KINDS = [
    pytest.param(name, texts, id=f"{name}-{kind}")
    for name in METRICS.all()
    for kind, texts in (("texts", TEXTS), ("labels", LABELS), ("tags", TAGS), ("numbers", NUMBERS))
    if find(name).numeric == (kind == "numbers")
]


@pytest.mark.parametrize(("name", "texts"), KINDS)
def test_the_mean_is_the_metric(name, texts):
    @settings(max_examples=20)  # `evaluate` takes its time
    @given(stores(texts))
    def check(store):
        columns, predictions = store
        found = contributions(name, columns)
        assert found.shape == (len(predictions),) and found.dtype == float
        value = find(name).value(columns)
        assert found.mean() == pytest.approx(value, abs=1e-9, rel=1e-6)
        assert score_by_evaluate(predictions, [name]) == {name: value}, "evaluate's and ours are one"

    check()


def weighted_metric(name, columns, weights):
    """The metric of a store in which example i stands ``weights[i]`` times."""
    repeated = {
        key: None
        if value is None
        else value
        if key == "labels"
        else [entry for entry, times in zip(value, weights, strict=True) for _ in range(times)]
        for key, value in columns.items()
    }
    return contributions(name, repeated).mean()


@pytest.mark.parametrize(
    "name",
    ["macro_f1", "mcc", "chrf", "loss", "nll", "brier", "ece", *SETS, "quadratic_kappa", "rank_mae", *LANGUAGE],
)
def test_they_are_the_derivatives_by_an_examples_weight(name):
    """Central differences: every example 200 times, one of them once more or less."""
    rng = np.random.default_rng(1)
    reference = ["ab cab", "bca", "ab cab", "cc", "bca", "bca"]
    prediction = ["ab cab", "bcca", "bca", "abcabcab", "ab cab", "bca"]
    columns, _ = stored(prediction, reference, loss=list(rng.random(6)), weight=list(rng.integers(1, 9, 6)))
    found, value, times = contributions(name, columns), contributions(name, columns).mean(), 200
    for example in range(6):
        more, less = (np.full(6, times) for _ in range(2))
        more[example] += 1
        less[example] -= 1
        slope = (weighted_metric(name, columns, more) - weighted_metric(name, columns, less)) / (2 / times)
        assert found[example] == pytest.approx(value + 6 * slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["entity_f1", "sentence_f1", "token_accuracy"])
@settings(max_examples=20)
@given(st.lists(st.tuples(TAGS, TAGS), min_size=2, max_size=6))
def test_those_of_tags_are_the_derivatives_too(name, pairs):
    columns = {"prediction": [pair[0] for pair in pairs], "reference": [pair[1] for pair in pairs]}
    n, times, value = len(pairs), 200, find(name).value(columns)
    found = contributions(name, columns)
    for example in range(n):
        more, less = (np.full(n, times) for _ in range(2))
        more[example] += 1
        less[example] -= 1
        slope = (weighted_metric(name, columns, more) - weighted_metric(name, columns, less)) / (2 / times)
        assert found[example] == pytest.approx(value + n * slope, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["pearson", "spearman", "rmse", "mae"])
@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
def test_of_numbers_too_they_are_the_derivatives(name, ties):
    """Of Spearman's correlation also by the ranks of others, which an example's weight moves."""
    rng = np.random.default_rng(2)
    wanted = rng.normal(size=8)
    said = wanted + rng.normal(size=8)
    said, wanted = (np.round(each) if ties else each for each in (said, wanted))
    assert len(set(said)) == 8 or ties
    columns, _ = stored(list(map(repr, said.tolist())), list(map(repr, wanted.tolist())))
    found, value, times = contributions(name, columns), find(name).value(columns), 200
    for example in range(8):
        more, less = (np.full(8, times) for _ in range(2))
        more[example] += 1
        less[example] -= 1
        slope = (weighted_metric(name, columns, more) - weighted_metric(name, columns, less)) / (2 / times)
        assert found[example] == pytest.approx(value + 8 * slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["pearson", "spearman", "rmse"])
def test_the_spread_that_they_give_is_that_of_resampling_numbers(name):
    """The bootstrap's standard error of one run's score on 400 examples, a third of them tied."""
    rng = np.random.default_rng(5)
    wanted = np.where(rng.random(400) < 0.3, 2.0, rng.normal(2, 1.5, 400))
    said = np.round(0.7 * wanted + rng.normal(0, 0.8, 400), 1)

    def columns(rows):
        return {"prediction": said[rows].tolist(), "reference": wanted[rows].tolist()}

    by_contributions = contributions(name, columns(np.arange(400))).std() / 400**0.5
    resampled = np.std([find(name).value(columns(rng.integers(400, size=400))) for _ in range(1500)])
    assert by_contributions == pytest.approx(resampled, rel=0.1)


@pytest.mark.parametrize("name", ["macro_f1", "mcc"])
@given(data=st.data())
def test_names_of_labels_do_not_matter(name, data):
    (columns, _), names = data.draw(stores(LABELS)), ["no", "yes", "yes ", "maybe"]
    new = dict(zip(names, data.draw(st.permutations(names)), strict=True))
    renamed = {key: [new[label] for label in columns[key]] for key in ("prediction", "reference")}
    assert contributions(name, renamed) == pytest.approx(contributions(name, columns))


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("hub:bleu", {"prediction": ["a"], "reference": ["a"]}),
        ("preference_accuracy", {"prediction": ["a"], "reference": ["a"], "margin": None}),
        ("loss", {"loss": np.ones(3)}),
        ("accuracy", {"prediction": [], "reference": []}),
    ],
)
def test_what_is_not_there_has_no_contributions(name, columns):
    assert contributions(name, columns) is None


def resampled_floor(metric, rng, resamples):
    """What Theorem 2 says of a mean, of any metric: E_b[Var_seed(metric of resample b)] - (1 - 1/n) Var_seed(metric).

    ``metric`` takes example numbers (n,) and gives the score of each seed. Returns the floor's variance and its
    standard error from drawing only so many resamples.
    """
    n = metric.examples
    drawn = np.array([metric(rng.integers(n, size=n)).var(ddof=1) for _ in range(resamples)])
    own = metric(np.arange(n)).var(ddof=1)
    return drawn.mean() - (1 - 1 / n) * own, drawn.std(ddof=1) / resamples**0.5


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "mcc", "chrf"])
def test_the_floor_is_that_of_resampled_examples(name):
    """Six seeds that differ by little but noise, four labels of which one is rare, 400 examples."""
    rng = np.random.default_rng(4)
    true = rng.choice(4, size=400, p=[0.4, 0.3, 0.25, 0.05])
    predicted = np.where(rng.random((6, 400)) < 0.8, true, rng.integers(4, size=(6, 400)))
    labels = np.array(["a hill", "a hall", "the hall", "snow"])

    def table(rows):
        reference = labels[true[rows]].tolist()
        stores = [{"prediction": labels[seed[rows]].tolist(), "reference": reference} for seed in predicted]
        return np.stack([contributions(name, store) for store in stores])

    def metric(rows):
        return table(rows).mean(axis=1)

    metric.examples = 400
    floor, error = resampled_floor(metric, rng, 500 if name != "chrf" else 150)
    assert error < 0.1 * floor  # or the comparison would say little
    assert spread(table(np.arange(400))).sd_floor ** 2 == pytest.approx(floor, abs=3 * error + 0.05 * floor)
