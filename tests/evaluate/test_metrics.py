"""Metrics: values worked out by hand, agreement with the libraries called directly, and what a person may get wrong."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.errors import FinetuneError, InputError
from finetune.evaluate.metrics import NAMES, check, load, scores_of
from finetune.evaluate.store import Predictions

LABELS = ("a", "b", "c")


def predictions(pairs, loss=None, weight=None, labels=(), margin=None):
    """Predictions from (prediction, reference) pairs."""
    n = len(pairs)
    return Predictions(
        example=np.arange(n),
        prediction=[pair[0] for pair in pairs],
        reference=[pair[1] for pair in pairs],
        score=np.zeros(n),
        loss=None if loss is None else np.array(loss, float),
        weight=None if weight is None else np.array(weight, float),
        margin=None if margin is None else np.array(margin, float),
        probabilities=np.zeros((n, len(labels)), np.float32) if labels else None,
        labels=tuple(labels),
    )


def score(name, pairs, **columns):
    return load(name).compute(predictions(pairs, **columns))


# Confusion: a->a twice, a->b once, b->b once, b->a once.
BINARY = [("a", "a"), ("a", "a"), ("b", "a"), ("b", "b"), ("a", "b")]
SENTENCES = [
    ("The cat sat on the mat.", "A cat sat on a mat."),
    ("stocks rise", "Stocks fall sharply as banks warn"),
    ("", "England win the Ashes"),
    ("Blair wins third term", "Blair wins third term"),
]


def test_accuracy_by_hand():
    assert score("accuracy", BINARY) == pytest.approx(3 / 5)


def test_macro_f1_by_hand():
    # a: precision 2/3, recall 2/3, F1 2/3; b: precision 1/2, recall 1/2, F1 1/2.
    assert score("macro_f1", BINARY) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_macro_f1_is_over_the_labels_of_the_references():
    # a: precision 1, recall 1/2, F1 2/3; "never" is no reference and must not add a zero to the mean.
    assert score("macro_f1", [("a", "a"), ("never", "a"), ("b", "b")]) == pytest.approx((2 / 3 + 1) / 2)


def test_mcc_by_hand():
    # (tp tn - fp fn) / sqrt(...) = (2*1 - 1*1) / sqrt(3 * 3 * 2 * 2)
    assert score("mcc", BINARY) == pytest.approx(1 / 6)


@pytest.mark.parametrize("pairs", [[("a", "a"), ("a", "b")], [("a", "b"), ("b", "b")], [("a", "a")]])
def test_mcc_of_one_label_is_zero_without_a_warning(pairs, recwarn):
    assert score("mcc", pairs) == 0.0
    assert not recwarn.list


def test_nll_is_the_mean_over_examples():
    assert score("nll", BINARY[:2], loss=[1.0, 3.0], weight=[1, 1]) == pytest.approx(2.0)


def test_loss_is_the_mean_over_tokens():
    assert score("loss", SENTENCES[:2], loss=[1.0, 8.0], weight=[1, 5]) == pytest.approx(9 / 6)


def test_preference_accuracy_is_the_share_of_pairs_with_the_better_answer_ahead():
    assert score("preference_accuracy", SENTENCES, margin=[0.1, -3.0, 0.0, 7.0]) == 0.5


def test_rouge_l_by_hand():
    # Common subsequence "cat sat on mat" (4) of 6 and 6 words: precision = recall = 4/6.
    assert score("rouge_l", SENTENCES[:1]) == pytest.approx(4 / 6)
    # 1 of 2 and 1 of 6 words: F = 2 * 1/2 * 1/6 / (1/2 + 1/6) = 1/4, whatever the letter case.
    assert score("rouge_l", SENTENCES[1:2]) == pytest.approx(1 / 4)
    assert score("rouge_l", SENTENCES) == pytest.approx((4 / 6 + 1 / 4 + 0 + 1) / 4)


def test_exact_match_strips_and_minds_the_case():
    assert score("exact_match", [(" Yes\n", "Yes"), ("yes", "Yes"), ("Yes.", "Yes"), ("", " ")]) == 0.5


def test_agreement_with_the_libraries():
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import corpus_chrf
    from sklearn.metrics import f1_score, matthews_corrcoef

    random = np.random.default_rng(0)
    guessed, true = random.choice(LABELS, 60).tolist(), random.choice(LABELS, 60).tolist()
    pairs = list(zip(guessed, true, strict=True))
    assert score("macro_f1", pairs) == pytest.approx(f1_score(true, guessed, average="macro"))
    assert score("mcc", pairs) == pytest.approx(matthews_corrcoef(true, guessed))
    written, wanted = zip(*SENTENCES, strict=True)
    assert score("chrf", SENTENCES) == pytest.approx(corpus_chrf(list(written), [list(wanted)]).score)
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(w, p)["rougeL"].fmeasure for p, w in SENTENCES]
    assert score("rouge_l", SENTENCES) == pytest.approx(np.mean(rouge))


@pytest.mark.parametrize("name", ["accuracy", "exact_match", "rouge_l"])
def test_scores_of_examples_average_to_the_metric(name):
    written, wanted = map(list, zip(*SENTENCES, strict=True))
    per_example = scores_of(name, written, wanted)
    assert per_example.shape == (4,) and per_example.dtype == np.float64
    assert per_example.mean() == pytest.approx(score(name, SENTENCES))


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
    columns = {"loss": [row[2] for row in table], "weight": [row[3] for row in table]}
    return score(name, [row[:2] for row in table], **columns, margin=[1 - row[2] for row in table])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(rows, st.randoms())
def test_the_order_of_rows_does_not_matter(name, table, random):
    assert computed(name, random.sample(table, len(table))) == pytest.approx(computed(name, table))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(rows)
def test_a_perfect_prediction_scores_best_and_none_scores_beyond(name, table):
    metric = load(name)
    best = {"fraction": 1.0, "coefficient": 1.0, "points": 100.0, "nats": 0.0}[metric.unit]
    sign = 1 if metric.higher_is_better else -1
    assert sign * computed(name, table) <= sign * best + 1e-9
    # A second label, so that the Matthews correlation is defined.
    perfect = [(wanted, wanted, 0.0, weight) for _, wanted, _, weight in table] + [("zebra", "zebra", 0.0, 1)]
    assert computed(name, perfect) == pytest.approx(best)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_evaluate_metrics_made_quickly(name):
    import evaluate

    from finetune.evaluate.metric_modules import MODULES

    start = time.perf_counter()
    module = MODULES[name]()
    assert time.perf_counter() - start < 0.05
    assert isinstance(module, evaluate.Metric)


def test_the_scale_says_which_way_is_up():
    assert {name for name in NAMES if not load(name).higher_is_better} == {"nll", "loss"}
    assert {name for name in NAMES if load(name).unit == "nats"} == {"nll", "loss"}
    assert {name for name in NAMES if load(name).needs == "loss"} == {"nll", "loss"}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_score_is_our_mistake(name):
    with pytest.raises(ValueError, match="at least one"):
        load(name).compute(predictions([]))


@pytest.mark.parametrize("name", ["nll", "loss"])
def test_a_loss_that_was_not_stored_is_our_mistake(name):
    with pytest.raises(ValueError, match="'loss'"):
        score(name, BINARY)


def test_an_unknown_name_is_refused_with_advice():
    with pytest.raises(InputError, match=r"task\.metrics\.1: there is no metric called 'acuracy'") as caught:
        load("acuracy", at="task.metrics.1")
    assert "did you mean 'accuracy'?" in str(caught.value)
    with pytest.raises(InputError, match="no metric called 'hub:'"):
        check("hub:")


def test_names_are_checked_without_heavy_imports():
    program = (
        "import sys; from finetune.evaluate import metrics; metrics.load('mcc'); metrics.check('hub:bleu');"
        "print(sorted({'evaluate', 'sklearn', 'torch', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_file_is_left_behind(tmp_path):
    program = (
        "import numpy as np; from finetune.evaluate.metrics import NAMES, load;"
        "from finetune.evaluate.store import Predictions;"
        "p = Predictions(np.arange(2), ['a', 'b'], ['a', 'a'], np.zeros(2), np.ones(2), np.ones(2), margin=np.ones(2));"
        "[load(name).compute(p) for name in NAMES]"
    )
    home, scratch = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    scratch.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(scratch), "MPLCONFIGDIR": str(home)}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    subprocess.run([sys.executable, "-c", program], env=inherited | places, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


SCRIPT = """
import datasets
import evaluate


class {kind}(evaluate.Metric):
    higher_is_better = {higher}

    def _info(self):
        column = datasets.Value("{dtype}")
        features = datasets.Features({{"predictions": column, "{references}": column}})
        return evaluate.MetricInfo(description="A metric.\\nMore.", citation="", features=features)

    def _compute(self, predictions, **others):
        {body}
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Writes a metric script as a person would keep it, beside the recipe; gives its name in the recipe."""
    monkeypatch.chdir(tmp_path)

    def write(name, body, higher=True, dtype="string", references="references"):
        (tmp_path / name).mkdir()
        kind = name.title().replace("_", "")
        text = SCRIPT.format(kind=kind, body=body, higher=higher, dtype=dtype, references=references)
        Path(name, f"{name}.py").write_text(text)
        return f"hub:./{name}"

    return write


def test_a_local_script_scores(script):
    body = 'return {"words": [1, 2], "excess": len("".join(predictions)) - len("".join(others["references"]))}'
    metric = load(script("length_error", body, higher=False))
    assert metric.name == "hub:./length_error" and not metric.higher_is_better and metric.description == "A metric."
    assert metric.compute(predictions([("abc", "a"), ("ab", "a")])) == 3.0
    assert metric.compute(predictions([("abc", "a")])) == 2.0


def test_a_script_that_wants_numbers_gets_label_numbers(script):
    body = 'return {"seen": float(predictions[0] * 100 + predictions[1] * 10 + others["references"][0])}'
    metric = load(script("numbers", body, dtype="int32"))
    assert metric.compute(predictions([("c", "b"), ("b", "c")], labels=LABELS)) == 211.0


def test_a_script_that_fails_says_which(script):
    metric = load(script("broken_sum", 'raise KeyError("no such thing")'))
    with pytest.raises(FinetuneError, match=r"hub:\./broken_sum failed on the predictions: 'no such thing'"):
        metric.compute(predictions(BINARY))
    metric = load(script("wordy", 'return {"words": "many"}'))
    with pytest.raises(FinetuneError, match="returned no number"):
        metric.compute(predictions(BINARY))


def test_a_failure_leaves_nothing_for_the_next_time(script):
    name = script("counting", 'return {"rows": len(predictions)}', dtype="float64")
    with pytest.raises(FinetuneError, match="failed on the predictions"):
        load(name).compute(predictions([("1", "1"), ("a", "b")]))
    assert load(name) is load(name)
    assert load(name).compute(predictions([("1", "2")])) == 1.0


def test_a_script_with_other_columns_is_refused(script):
    with pytest.raises(InputError, match="columns that no task here has: sources"):
        load(script("sourced", "return {}", references="sources"))


@pytest.mark.tries_network
@pytest.mark.parametrize("name", ["hub:rouge", "hub:someone/metric", "hub:./nowhere/at/all"])
def test_a_metric_that_cannot_be_fetched_is_refused(name):
    start = time.perf_counter()
    with pytest.raises(InputError, match=rf"evaluate\.metrics: {name} cannot be loaded: .+"):
        load(name, at="evaluate.metrics")
    assert time.perf_counter() - start < 20
