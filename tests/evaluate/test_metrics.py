"""Metrics: values worked out by hand, agreement with the libraries called directly, and what a person may get wrong."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.core.errors import FinetuneError, InputError
from finetune.core.registry import METRICS
from finetune.evaluate import metrics
from finetune.evaluate.metrics import check, load, scores_of
from finetune.evaluate.store import Predictions

LABELS = ("a", "b", "c")


def predictions(pairs, labels=(), probabilities=None, extracted=None, **numbers):
    """Predictions from (prediction, reference) pairs, with these columns of ``numbers``."""
    n = len(pairs)
    return Predictions(
        example=np.arange(n),
        prediction=[pair[0] for pair in pairs],
        reference=[pair[1] for pair in pairs],
        score=np.zeros(n),
        **{name: np.array(values, float) for name, values in numbers.items()},
        extracted=[pair[0] for pair in pairs] if extracted else None,
        extracted_reference=[pair[1] for pair in pairs] if extracted else None,
        probabilities=np.zeros((n, len(labels)), np.float32) if labels and probabilities is None else probabilities,
        labels=tuple(labels),
    )


def score(name, pairs, **columns):
    return metrics.score(predictions(pairs, **columns), [name])[name]


# Confusion: a->a twice, a->b once, b->b once, b->a once.
BINARY = [("a", "a"), ("a", "a"), ("b", "a"), ("b", "b"), ("a", "b")]
SENTENCES = [
    ("The cat sat on the mat.", "A cat sat on a mat."),
    ("stocks rise", "Stocks fall sharply as banks warn"),
    ("", "England win the Ashes"),
    ("Blair wins third term", "Blair wins third term"),
]


DIGITS = [("1", "1"), ("2", "2"), ("3", "1"), ("1", "3")]
"""Texts, labels and numbers at once, so that every metric can read them."""


def whole(pairs=DIGITS, extracted=True):
    """A store in which every column is there."""
    numbers = {"loss": [0.1, 0.5, 1.0, 3.0], "weight": [1, 2, 3, 4]}
    numbers |= {"margin": [-1.0, 0.0, 1.0, 2.0], "reward": [-0.5, 0.0, 0.5, 1.0]}
    numbers |= {"bytes": [9, 30, 20, 21], "margin_norm": [-0.1, 0.0, 0.2, 0.3]}
    more = {"labels": ["1", "2", "3", "4"], "probabilities": np.full((4, 4), 0.25, np.float32)}
    return predictions(pairs, **numbers, **more, extracted=extracted)


def test_all_scores_are_computed_together_in_the_order_asked_for():
    store, wanted = whole(), list(METRICS.all())[::-1]
    found = metrics.score(store, wanted)
    assert list(found) == wanted and {type(each) for each in found.values()} == {float}
    assert found == {name: load(name).value(store.columns()) for name in wanted}
    assert all(metrics.score(store, [name]) == {name: found[name]} for name in wanted), "alone as together"


def test_metrics_of_answers_read_what_was_found_in_texts():
    store = replace(whole(SENTENCES), extracted=["4", "", "x", "7"], extracted_reference=["4", "5", "y", "7"])
    found = metrics.score(store, ["exact_match", "accuracy", "rouge_l"])
    assert (found["exact_match"], found["accuracy"]) == (0.5, 0.5)
    assert found["rouge_l"] == score("rouge_l", SENTENCES) and score("exact_match", SENTENCES) == 0.25


def test_it_is_evaluate_that_combines_them(monkeypatch):
    """One table of all columns that are wanted, of which each metric reads its own."""
    import evaluate

    asked, combine = [], evaluate.combine
    monkeypatch.setattr(evaluate, "combine", lambda modules: asked.append(modules) or combine(modules))
    assert metrics.score(whole(extracted=False), ["loss", "accuracy"]) == {
        "loss": pytest.approx(4.6 / 10),
        "accuracy": 0.5,
    }
    [modules] = asked
    assert [list(module.features) for module in modules] == [["loss", "weight"], ["predictions", "references"]]


@pytest.mark.parametrize("name", ["accuracy", "exact_match", "rouge_l"])
def test_scores_of_examples_average_to_the_metric(name):
    written, wanted = map(list, zip(*SENTENCES, strict=True))
    per_example = scores_of(name, written, wanted)
    assert per_example.shape == (4,) and per_example.dtype == np.float64
    assert per_example.mean() == pytest.approx(score(name, SENTENCES))


@pytest.mark.parametrize("name", METRICS.all())
def test_metrics_are_evaluate_metrics_made_quickly(name):
    import evaluate

    from finetune.evaluate.metric import StoreMetric

    start = time.perf_counter()
    module = StoreMetric(load(name))
    assert time.perf_counter() - start < 0.05
    assert isinstance(module, evaluate.Metric)


@pytest.mark.parametrize("name", METRICS.all())
def test_nothing_to_score_is_our_mistake(name):
    with pytest.raises(ValueError, match="at least one"):
        metrics.score(predictions([]), [name])


@pytest.mark.parametrize("name", ["nll", "loss"])
def test_a_loss_that_was_not_stored_is_our_mistake(name):
    with pytest.raises(ValueError, match="'loss'"):
        score(name, BINARY)


def test_what_can_be_computed_is_told_by_the_columns():
    names = ["accuracy", "nll", "loss", "macro_f1", "preference_accuracy"]
    pairs = [("a", "a"), ("b", "a")]
    assert metrics.computable(predictions(pairs), names) == ["accuracy", "macro_f1"]
    assert metrics.computable(predictions(pairs, loss=[1, 2], weight=[1, 1]), names) == [
        "accuracy",
        "nll",
        "loss",
        "macro_f1",
    ]
    assert metrics.computable(predictions(pairs, margin=[1, 2]), names[-1:]) == names[-1:]


def test_an_unknown_name_is_refused_with_advice():
    with pytest.raises(InputError, match=r"task\.metrics\.1: there is no metric called 'acuracy'") as caught:
        load("acuracy", at="task.metrics.1")
    assert "did you mean 'accuracy'?" in str(caught.value)
    with pytest.raises(InputError, match="no metric called 'hub:'"):
        check("hub:")


def test_names_are_checked_without_heavy_imports():
    program = (
        "import sys; from finetune.evaluate import metrics; metrics.load('mcc'); metrics.check('hub:bleu');"
        "print(sorted({'evaluate', 'sklearn', 'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_file_is_left_behind(tmp_path):
    program = (
        "import numpy as np; from finetune.evaluate.metrics import score; from finetune.core.registry import METRICS;"
        "from finetune.evaluate.store import Predictions;"
        "numbers = ('loss', 'weight', 'bytes', 'margin', 'margin_norm', 'reward');"
        "p = Predictions(np.arange(2), ['1', '2'], ['1', '1'], np.zeros(2), extracted=['1', '2'],"
        " extracted_reference=['1', '1'], probabilities=np.ones((2, 2)), labels=('1', '2'),"
        " **dict.fromkeys(numbers, np.ones(2)));"
        "score(p, list(METRICS.all()))"
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
        column = {column}
        features = datasets.Features({{"predictions": column, "{references}": column}})
        return evaluate.MetricInfo(description="A metric.\\nMore.", citation="", features=features)

    def _compute(self, predictions, **others):
        {body}
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Writes a metric script as a person would keep it, beside the recipe; gives its name in the recipe."""
    monkeypatch.chdir(tmp_path)

    def write(name, body, higher=True, dtype="string", references="references", column="datasets.Value('{}')"):
        (tmp_path / name).mkdir()
        kind, column = name.title().replace("_", ""), column.format(dtype)
        text = SCRIPT.format(kind=kind, body=body, higher=higher, column=column, references=references)
        Path(name, f"{name}.py").write_text(text)
        return f"hub:./{name}"

    return write


def test_a_local_script_scores(script):
    body = 'return {"words": [1, 2], "excess": len("".join(predictions)) - len("".join(others["references"]))}'
    metric = load(script("length_error", body, higher=False))
    assert metric.name == "hub:./length_error" and not metric.higher_is_better
    assert metrics.score(predictions([("abc", "a"), ("ab", "a")]), [metric.name])[metric.name] == 3.0
    assert metrics.score(predictions([("abc", "a")]), [metric.name])[metric.name] == 2.0


def test_own_and_foreign_metrics_are_scored_together(script):
    name, store = script("counting_rows", 'return {"rows": len(predictions)}'), whole()
    nll = load("nll").value(store.columns())
    assert metrics.score(store, ["accuracy", name, "nll"]) == {"accuracy": 0.5, name: 4.0, "nll": nll}


def test_what_examples_add_to_a_foreign_metric_is_not_known(script):
    metric, columns = load(script("adding", 'return {"rows": len(predictions)}')), whole().columns()
    assert metric.per_example(columns) is None
    with pytest.raises(NotImplementedError, match="has no contributions"):
        metric.contributions(columns)


def test_a_script_that_wants_numbers_gets_label_numbers(script):
    body = 'return {"seen": float(predictions[0] * 100 + predictions[1] * 10 + others["references"][0])}'
    metric = load(script("numbers", body, dtype="int32"))
    assert metrics.score(predictions([("c", "b"), ("b", "c")], labels=LABELS), [metric.name])[metric.name] == 211.0


LIST = "datasets.Sequence(datasets.Value('{}'))"
TAGS = [("O B-PER I-PER", "O B-PER O"), ("O", "B-PER"), ("B-PER O", "B-PER O")]


def test_a_script_that_wants_lists_gets_the_tags_of_each_sentence(script):
    """As seqeval from the hub does, which takes a list for each sentence."""
    body = 'return {"right": sum(a == b for p, r in zip(predictions, others["references"]) for a, b in zip(p, r))}'
    labels = ("O", "B-PER", "I-PER")
    assert score(script("tags", body, column=LIST), TAGS, labels=labels) == 4.0
    assert score(script("numbered", body, dtype="int32", column=LIST), TAGS, labels=labels) == 4.0


@pytest.mark.parametrize("labels", [(), ("very bad", "very", "bad", "good"), ("a", "b")])
def test_a_script_that_wants_lists_gets_any_other_text_alone(script, labels):
    body = 'return {"longest": max(map(len, predictions))}'
    pairs = [("very bad", "good"), ("a, b", "a, b")]
    assert score(script("alone", body, column=LIST), pairs, labels=labels) == 1.0


def test_a_script_that_wants_a_text_beside_lists_gets_whole_references(script):
    body = 'return {"longest": max(map(len, others["references"]))}'
    name = script("alternatives", body)
    path = Path("alternatives", "alternatives.py")
    path.write_text(path.read_text().replace('"references": column', '"references": datasets.Sequence(column)'))
    assert score(name, TAGS, labels=("O", "B-PER", "I-PER")) == 1.0


@pytest.mark.parametrize("inner", ["{{'id': datasets.Value('{}')}}", "[{{'id': datasets.Value('{}')}}]"])
def test_a_script_that_wants_objects_is_refused(script, inner):
    """As squad from the hub does, which takes ids beside texts."""
    with pytest.raises(InputError, match="wants predictions and references of a type that no task here has"):
        load(script("objects", "return {}", column=inner))


def test_a_script_that_fails_says_which(script):
    metric = load(script("broken_sum", 'raise KeyError("no such thing")'))
    with pytest.raises(FinetuneError, match=r"hub:\./broken_sum failed on the predictions: 'no such thing'"):
        metrics.score(predictions(BINARY), [metric.name])[metric.name]
    metric = load(script("wordy", 'return {"words": "many"}'))
    with pytest.raises(FinetuneError, match="returned no number"):
        metrics.score(predictions(BINARY), [metric.name])[metric.name]


def test_a_failure_leaves_nothing_for_the_next_time(script):
    name = script("counting", 'return {"rows": len(predictions)}', dtype="float64")
    with pytest.raises(FinetuneError, match="failed on the predictions"):
        metrics.score(predictions([("1", "1"), ("a", "b")]), [name])[name]
    assert load(name) is load(name)
    assert metrics.score(predictions([("1", "2")]), [name])[name] == 1.0


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
