"""The panels of what training recorded by step."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from finetune.report.drawing.curves import LOSS, NORM, RATE, step_panels
from finetune.report.drawing.panels import BOTTOM, TOP
from finetune.results.reading import read_study


def elements(drawing, name, class_):
    return [element for element in ElementTree.fromstring(drawing).iter(name) if element.get("class") == class_]


def heights(line):
    return [float(pair.split(",")[1]) for pair in line.get("points").split()]


@pytest.fixture
def seeds(fabricator):
    """seeds(n, diverged): a study of one variant whose last so many seeds diverged; its runs by variant."""

    def build(n, diverged=0):
        made = fabricator(list(range(n)), {"full": "full"})
        for seed in made.seeds:
            wild = seed >= n - diverged
            made.run("full", seed, None if wild else 0.9, *(["diverged", "the loss <exploded>"] if wild else []))
        return read_study(made.path).variants

    return build


def rewrite(run, change):
    """Records of a run, each as ``change`` leaves it."""
    rows = [json.loads(line) for line in run.folder.metrics.read_text(encoding="utf-8").splitlines()]
    run.metrics[:] = [row for row in map(change, rows) if row is not None]


def test_few_seeds_are_drawn_one_by_one(seeds):
    [panel] = step_panels(LOSS, seeds(10))
    assert len(elements(panel, "polyline", "curve")) == len(elements(panel, "polyline", "curve scored")) == 10
    assert len(elements(panel, "circle", "scored-dot")) == 10 * 5 and not elements(panel, "polygon", "band")
    assert "full, seed 3" in panel


def test_many_seeds_are_their_median_and_range(seeds):
    variants = seeds(11)
    [panel] = step_panels(LOSS, variants)
    [median], [band] = elements(panel, "polyline", "curve median"), elements(panel, "polygon", "band")
    assert not elements(panel, "polyline", "curve")
    assert len(elements(panel, "polyline", "curve scored")) == 1 and len(elements(panel, "line", "curve scored")) == 5
    losses = np.array([[row["loss"] for row in run.metrics if row["kind"] == "train"] for run in variants["full"]])
    scored = [row["scores"]["loss"] for run in variants["full"] for row in run.metrics if row["kind"] == "evaluation"]
    top = 1.05 * max(losses.max(), *scored)

    def pixels(values):
        return pytest.approx([BOTTOM - value / top * (BOTTOM - TOP) for value in values], abs=0.06)

    steps = losses.shape[1]
    assert heights(median) == pixels(np.median(losses, axis=0))
    assert heights(band)[:steps] == pixels(losses.max(axis=0))
    assert heights(band)[steps:] == pixels(losses.min(axis=0)[::-1])


def test_diverged_runs_are_marked_and_flatten_nothing(seeds):
    [panel] = step_panels(LOSS, seeds(4, diverged=1))
    lines, [cross] = elements(panel, "polyline", "curve"), elements(panel, "g", "failed")
    assert len(lines) == 4 and "the loss &lt;exploded&gt;" in panel and "seed 3 diverged" in cross.find("title").text
    assert all(np.ptp(heights(line)) > 60 for line in lines)  # pixels of the panel's 216


def test_among_many_seeds_the_diverged_stand_alone(seeds):
    [panel] = step_panels(LOSS, seeds(12, diverged=2))
    assert "median and range of 10 seeds" in panel
    assert len(elements(panel, "polyline", "curve")) == len(elements(panel, "g", "failed")) == 2
    [band] = elements(panel, "polygon", "band")
    assert min(heights(band)) > TOP, "the explosion is not in the range"


def test_only_diverged_runs_are_drawn_too(seeds):
    [panel] = step_panels(LOSS, seeds(2, diverged=2))
    assert len(elements(panel, "polyline", "curve")) == 2


def test_gradient_norms_that_span_decades_are_logarithmic(seeds):
    variants = seeds(3)
    for run in variants["full"]:
        rewrite(run, lambda row: {**row, "gradient_norm": 100 * 0.9 ** row["step"]} if row["kind"] == "train" else row)
    [panel] = step_panels(NORM, variants)
    assert "gradient norm, log scale" in panel
    steps = np.diff(heights(elements(panel, "polyline", "curve")[0]))
    assert np.ptp(steps) < 0.3, "a straight line"


def test_a_learning_rate_is_one_line_until_seeds_differ(seeds):
    variants = seeds(5)
    [panel] = step_panels(RATE, variants)
    assert len(elements(panel, "polyline", "curve median")) == 1 and not elements(panel, "polygon", "band")
    assert "learning rate, ×10⁻⁴" in panel
    rewrite(variants["full"][0], lambda row: {**row, "learning_rate": 5e-5} if row["kind"] == "train" else row)
    [panel] = step_panels(RATE, variants)
    assert len(elements(panel, "polygon", "band")) == 1


def test_losses_share_a_scale_and_learning_rates_do_not(fabricator):
    made = fabricator([1], {"linear": "linear", "full": "full"})
    for variant in made.variants:
        made.run(variant, 1, 0.9)
    variants = read_study(made.path).variants
    for [run], rate in zip(variants.values(), (1e-2, 1e-5), strict=True):
        new = {"learning_rate": rate, "loss": 100 * rate}
        rewrite(run, lambda row, new=new: row | new if row["kind"] == "train" else None)
    high, low = (heights(elements(panel, "polyline", "curve median")[0])[0] for panel in step_panels(RATE, variants))
    assert high == pytest.approx(low), "each fills its own panel"
    high, low = (heights(elements(panel, "polyline", "curve")[0])[0] for panel in step_panels(LOSS, variants))
    assert low - high > 100, "one is a thousand times the other"


def test_long_runs_are_thinned(fabricator):
    made = fabricator([1], {"full": "full"})
    made.run("full", 1, 0.9)
    made.metrics(made.path / "full/seed-1", np.random.default_rng(0), steps=2000)
    [panel] = step_panels(LOSS, read_study(made.path).variants)
    [line] = elements(panel, "polyline", "curve")
    assert 100 < len(heights(line)) <= 150 and len(panel) < 12_000


def test_a_variant_without_steps_says_so_beside_one_with(fabricator):
    made = fabricator([1], {"full": "full", "lora": "adapter"})
    made.run("full", 1, 0.9)
    (made.path / "lora/seed-1").mkdir(parents=True)
    full, lora = step_panels(LOSS, read_study(made.path).variants)
    assert "no training steps" in lora and "no training steps" not in full


def test_nothing_recorded_is_nothing_drawn(fabricator):
    made = fabricator([1], {"full": "full"})
    (made.path / "full/seed-1").mkdir(parents=True)
    assert step_panels(LOSS, read_study(made.path).variants) == []
