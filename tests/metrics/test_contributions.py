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

TEXTS = st.text(alphabet="ab ?\t🙂É", max_size=12)
LABELS = st.sampled_from(["no", "yes", "yes ", "maybe"])
LOSSES = st.floats(0, 50)


def stored(prediction, reference, loss=None, weight=None, margin=None, score=None):
    """A prediction store's columns, and the store itself."""
    zeros = np.zeros(len(prediction))
    numbers = {"loss": loss, "weight": weight, "margin": margin, "margin_norm": margin}
    columns = {
        "prediction": prediction,
        "reference": reference,
        "score": zeros if score is None else score,
        **{name: value and np.array(value) for name, value in numbers.items()},
    }
    return columns, Predictions(example=np.arange(len(prediction)), **columns)


@st.composite
def stores(draw, texts):
    n = draw(st.integers(1, 25))

    def column(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    prediction, reference = column(texts), column(texts)
    score = scores_of("rouge_l", prediction, reference)
    return stored(prediction, reference, column(LOSSES), column(st.integers(1, 9)), column(st.floats(-9, 9)), score)


@pytest.mark.parametrize("name", METRICS.all())
@pytest.mark.parametrize("texts", [TEXTS, LABELS], ids=["texts", "labels"])
def test_the_mean_is_the_metric(name, texts):
    @settings(max_examples=20)  # `evaluate` takes its time
    @given(stores(texts))
    def check(store):
        columns, predictions = store
        found = contributions(name, columns)
        assert found.shape == (len(predictions),) and found.dtype == float
        value = find(name).value(columns)
        assert found.mean() == pytest.approx(value, abs=1e-9)
        assert score_by_evaluate(predictions, [name]) == {name: value}, "evaluate's and ours are one"

    check()


def weighted_metric(name, columns, weights):
    """The metric of a store in which example i stands ``weights[i]`` times."""
    repeated = {
        key: None
        if value is None
        else [entry for entry, times in zip(value, weights, strict=True) for _ in range(times)]
        for key, value in columns.items()
    }
    return contributions(name, repeated).mean()


@pytest.mark.parametrize("name", ["macro_f1", "mcc", "chrf", "loss"])
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
