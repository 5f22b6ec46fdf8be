"""Agreement of seeds, for results.json and on the page."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

from finetune.evaluate.store import Predictions
from finetune.report.blocks import Fold, Panels, Table
from finetune.report.reading import read_study
from finetune.report.sections.agreement import agreement_of, sections
from finetune.stats.agreement import agreement, churn, codes_of

LABELS = np.array(["tech", "sport", "politics"])


@pytest.fixture
def made(fabricator):
    """Three seeds of two variants on two tasks, with the fabricator's predictions, which are all alike."""
    found = fabricator([1, 2, 3], {"lora": "adapter", "full": "full"}, tasks=("test", "tweets"))
    for variant in found.variants:
        for seed in found.seeds:
            found.run(variant, seed, 0.9)
    return found


def predict(made, variant, seed, predictions, references=None, task="test", examples=None):
    """Other predictions for a run, in any order of examples."""
    n = len(predictions)
    predictions, references = list(predictions), list(predictions if references is None else references)
    store = Predictions(
        example=np.arange(n) if examples is None else np.asarray(examples),
        prediction=predictions,
        reference=references,
        score=np.array([p == r for p, r in zip(predictions, references, strict=True)], dtype=float),
    )
    path = made.path / variant / f"seed-{seed}" / "predictions" / f"{task}.parquet"
    store.write(path)
    pq.write_table(pq.ParquetFile(path).read().take(np.random.default_rng(seed).permutation(n)), path)


def task_of(name="test"):
    return {"name": name, "metric": "accuracy"}


def results_of(made, tasks=("test", "tweets")):
    """As much of results.json as the section reads."""
    study = read_study(made.path)
    variants = [
        {"name": name, "agreement": {task: agreement_of(runs, task_of(task)) for task in tasks}}
        for name, runs in study.variants.items()
    ]
    base = {"name": "base", "agreement": {}}
    return study, {"tasks": [task_of(task) for task in tasks], "variants": [*variants, base]}


def test_it_is_what_the_statistics_say_of_the_stored_predictions(made):
    rng = np.random.default_rng(0)
    references = LABELS[rng.integers(3, size=40)]
    table = np.where(rng.random((3, 40)) < 0.7, references, LABELS[rng.integers(3, size=(3, 40))])
    for seed, row in zip((1, 2, 3), table, strict=True):
        order = rng.permutation(40)
        predict(made, "lora", seed, row[order], references[order], examples=order)
    found = agreement_of(read_study(made.path).variants["lora"], task_of())
    codes = codes_of([*table, references])
    expected = agreement(np.stack(codes[:-1]), codes[-1])
    for name in ("runs", "examples", "disagreement", "kappa", "flipped", "contested", "dissenters"):
        assert found[name] == getattr(expected, name)
    assert found["kappa_ci"] == pytest.approx(expected.kappa_ci) and 0 < found["kappa"] < 1
    differ = churn(np.stack(codes[:-1]))
    divided = [(row["example"], row["churn"]) for row in found["most_divided"]]
    assert len(divided) == 5 and all(differ[example] == share for example, share in divided)
    assert [share for _, share in divided] == sorted(differ, reverse=True)[:5]
    json.dumps(found, allow_nan=False)


def test_texts_count_as_a_whole_and_stay_in_the_store(made):
    for seed, text in zip((1, 2, 3), ("a <secret> answer", "a <secret> answer", "another"), strict=True):
        predict(made, "lora", seed, [text, f"{text} of seed {seed}"], ["a", "b"])
    study, results = results_of(made, ["test"])
    found = results["variants"][0]["agreement"]["test"]
    assert found["disagreement"] == pytest.approx((2 / 3 + 1) / 2) and found["flipped"] == 2
    assert "secret" not in json.dumps(found) and "secret" not in str(sections(study, results))


def test_clusters_reach_the_intervals(made):
    rng = np.random.default_rng(0)
    for seed in (1, 2, 3):
        predict(made, "lora", seed, LABELS[rng.integers(3, size=30)], ["tech"] * 30)
    runs = read_study(made.path).variants["lora"]
    alone, clustered = (agreement_of(runs, task_of(), clusters=groups) for groups in (None, np.arange(30) // 6))
    assert alone["kappa"] == clustered["kappa"] and alone["kappa_ci"] != clustered["kappa_ci"]


@pytest.mark.parametrize("why", ["nothing stored", "other examples", "other numbers", "no answers", "no score"])
def test_there_is_none_where_predictions_cannot_be_held_together(made, why):
    for seed in (1, 2, 3):
        predict(made, "lora", seed, [""] * 4 if why == "no answers" else ["tech"] * 4, ["tech"] * 4)
    if why == "nothing stored":
        (made.path / "lora" / "seed-2" / "predictions" / "test.parquet").unlink()
    if why == "other examples":
        predict(made, "lora", 2, ["tech"] * 5)
    if why == "other numbers":
        predict(made, "lora", 2, ["tech"] * 4, examples=[0, 1, 2, 9])
    task = task_of() | ({"metric": "missing"} if why == "no score" else {})
    assert agreement_of(read_study(made.path).variants["lora"], task) is None


def test_a_run_that_was_never_scored_is_not_missed(made):
    made.run("lora", 3, None, "diverged", "loss is not finite")
    (made.path / "lora" / "seed-3" / "predictions" / "test.parquet").unlink()
    assert agreement_of(read_study(made.path).variants["lora"], task_of())["runs"] == 2


def test_the_section_shows_every_variant_and_task(made):
    for seed, row in zip((1, 2, 3), (["tech", "sport"], ["tech", "tech"], ["tech", "sport"]), strict=True):
        predict(made, "lora", seed, row * 2, ["tech"] * 4)
        predict(made, "lora", seed, row * 3, ["tech"] * 6, task="tweets")
    [section] = sections(*results_of(made))
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [(row[0].text, row[1].text) for row in table.rows] == [
        ("lora", "test"),
        ("full", "test"),
        ("lora", "tweets"),
        ("full", "tweets"),
    ]
    assert [cell.text for cell in table.rows[0]] == [
        "lora",
        "test",
        "33.3\u202f%",
        "0.250",  # of twelve votes 8 and 4, so P_e = 80 / 144; (2/3 - 5/9) / (4/9)
        "2 of 4",
        "2",
        "3",
        "1, 3",
    ]
    assert [cell.text for cell in table.rows[1]][2:5] == ["0.0\u202f%", "\N{EN DASH}", "0 of 200"]
    assert any(note.startswith("full on test, full on tweets: every seed predicts the same") for note in table.notes)
    panels = [block for block in section.blocks if isinstance(block, Panels)]
    folds = [block for block in section.blocks if isinstance(block, Fold)]
    assert len(panels) == 1 and len(panels[0].drawings) == 1, "full has no flip to draw"
    assert [fold.title for fold in folds] == ["Disagreement on tweets"]


def test_bars_are_as_high_as_their_counts(made):
    rows = np.array([[0] * 12, [0] * 8 + [1] * 4, [0] * 6 + [1] * 2 + [2] * 4])
    for seed, row in zip((1, 2, 3), LABELS[rows], strict=True):
        predict(made, "lora", seed, row)
    study, results = results_of(made, ["test"])
    assert results["variants"][0]["agreement"]["test"]["dissenters"] == [6, 2, 4]
    [section] = sections(study, results)
    panel = next(block for block in section.blocks if isinstance(block, Panels)).drawings[0]
    drawing = ElementTree.fromstring(panel)
    bars = [bar for bar in drawing.iter("rect") if bar.get("class") == "bar"]
    heights = [float(bar.get("height")) for bar in bars]
    assert len(bars) == 2 and heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert drawing.get("role") == "img" and "none on 6 of 12, 1 on 2 and 2 on 4" in drawing.get("aria-label")
    assert drawing.get("class") == "panel c0" and "none on 6 of 12" in "".join(drawing.itertext())


def test_names_are_escaped(fabricator):
    made = fabricator([1, 2], {"<b>&": "full"})
    for seed in (1, 2):
        made.run("<b>&", seed, 0.9)
        predict(made, "<b>&", seed, [f"tech {seed}", "tech"])
    [section] = sections(*results_of(made, ["test"]))
    drawing = next(block for block in section.blocks if isinstance(block, Panels)).drawings[0]
    assert "<b>" not in drawing and "&lt;b&gt;&amp;" in drawing


@pytest.mark.parametrize("seeds", [[1], []])
def test_no_section_without_two_seeds(fabricator, seeds):
    made = fabricator([1, 2], {"full": "full"})
    for seed in seeds:
        made.run("full", seed, 0.9)
    study, results = results_of(made, ["test"])
    assert sections(study, results) == []
    for variant in results["variants"]:
        variant.pop("agreement")
    assert sections(study, results) == []
