"""Agreement of seeds, from stored predictions."""

import json

import numpy as np
import pytest

from finetune.results.agreement import agreement_of
from finetune.results.reading import read_study
from finetune.results.schema import Direction, EvaluationSet, to_json
from finetune.stats.agreement import agreement, churn, codes_of
from tests.results.stores import predict

LABELS = np.array(["tech", "sport", "politics"])


def set_of(metric="accuracy"):
    return EvaluationSet("test", "test", metric, True, 200, [Direction(metric, True)])


def of(made, metric="accuracy", clusters=None):
    return agreement_of(read_study(made.path).variants["lora"], set_of(metric), clusters=clusters)


def test_it_is_what_the_statistics_say_of_the_stored_predictions(alike):
    rng = np.random.default_rng(0)
    references = LABELS[rng.integers(3, size=40)]
    table = np.where(rng.random((3, 40)) < 0.7, references, LABELS[rng.integers(3, size=(3, 40))])
    for seed, row in zip((1, 2, 3), table, strict=True):
        order = rng.permutation(40)
        predict(alike, "lora", seed, row[order], references[order], examples=order)
    found = of(alike)
    codes = codes_of([*table, references])
    expected = agreement(np.stack(codes[:-1]), codes[-1])
    for name in ("runs", "examples", "disagreement", "kappa", "flipped", "contested", "dissenters"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.kappa_ci == pytest.approx(expected.kappa_ci) and 0 < found.kappa < 1
    differ = churn(np.stack(codes[:-1]))
    divided = [(row.example, row.churn) for row in found.most_divided]
    assert len(divided) == 5 and all(differ[example] == share for example, share in divided)
    assert [share for _, share in divided] == sorted(differ, reverse=True)[:5]
    json.dumps(to_json(found), allow_nan=False)


def test_texts_count_as_a_whole_and_stay_in_the_store(alike):
    for seed, text in zip((1, 2, 3), ("a <secret> answer", "a <secret> answer", "another"), strict=True):
        predict(alike, "lora", seed, [text, f"{text} of seed {seed}"], ["a", "b"])
    found = of(alike)
    assert found.disagreement == pytest.approx((2 / 3 + 1) / 2) and found.flipped == 2
    assert "secret" not in json.dumps(to_json(found))


def test_clusters_reach_the_intervals(alike):
    rng = np.random.default_rng(0)
    for seed in (1, 2, 3):
        predict(alike, "lora", seed, LABELS[rng.integers(3, size=30)], ["tech"] * 30)
    alone, clustered = (of(alike, clusters=clusters) for clusters in (None, np.arange(30) // 6))
    assert alone.kappa == clustered.kappa and alone.kappa_ci != clustered.kappa_ci


@pytest.mark.parametrize("why", ["nothing stored", "other examples", "other numbers", "no answers", "no score"])
def test_there_is_none_where_predictions_cannot_be_held_together(alike, why):
    for seed in (1, 2, 3):
        predict(alike, "lora", seed, [""] * 4 if why == "no answers" else ["tech"] * 4, ["tech"] * 4)
    if why == "nothing stored":
        (alike.path / "lora" / "seed-2" / "predictions" / "test.parquet").unlink()
    if why == "other examples":
        predict(alike, "lora", 2, ["tech"] * 5)
    if why == "other numbers":
        predict(alike, "lora", 2, ["tech"] * 4, examples=[0, 1, 2, 9])
    assert of(alike, "missing" if why == "no score" else "accuracy") is None


def test_a_run_that_was_never_scored_is_not_missed(alike):
    alike.run("lora", 3, None, "diverged", "loss is not finite")
    (alike.path / "lora" / "seed-3" / "predictions" / "test.parquet").unlink()
    assert of(alike).runs == 2


def test_bars_are_counts_of_dissenters(alike):
    rows = np.array([[0] * 12, [0] * 8 + [1] * 4, [0] * 6 + [1] * 2 + [2] * 4])
    for seed, row in zip((1, 2, 3), LABELS[rows], strict=True):
        predict(alike, "lora", seed, row)
    assert of(alike).dissenters == [6, 2, 4]
