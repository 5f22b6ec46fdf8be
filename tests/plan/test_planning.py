"""What a study needs and costs."""

from __future__ import annotations

import json
import math

import pytest

from finetune import recipe
from finetune.core.errors import InputError
from finetune.plan.pilot import Cost, Pair
from finetune.plan.planning import SUPPOSED, Stated, alike, comparisons_of, needed, plan, total
from finetune.results.reading import read_study
from finetune.stats.power import Noise, alpha_of, examples_needed, power, seeds_needed
from tests.fabricated import topics as fabricated
from tests.plan.test_pilot import RECIPE

POINT = 0.01


@pytest.fixture
def load(tmp_path):
    """load('seeds=3') -> a recipe of three variants."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return lambda *overrides: recipe.load(tmp_path / "recipe.yaml", overrides)


def test_comparisons_are_those_of_the_report(load):
    assert comparisons_of(load()) == 3
    # Another evaluation set is another question.
    assert comparisons_of(load("evaluate=[{name: a, data: {path: a.csv}}]")) == 3


def test_a_baseline_is_what_others_are_compared_with(load, tmp_path):
    made = plan(load("scoring.baseline=full"), 10 * POINT, POINT, read_study(fabricated(tmp_path / "pilot").path))
    assert made.comparisons == 2
    assert [pair.pair for pair in made.pairs] == ["linear - full", "lora - full"]


def test_the_untuned_base_is_compared_where_it_is_scored(tmp_path):
    text = RECIPE.replace("task: {type: classification}", "task: {type: chat, prompt: p, completion: c}")
    (tmp_path / "chat.yaml").write_text(text.replace("linear: {strategy: {type: linear}}, ", ""))
    assert comparisons_of(recipe.load(tmp_path / "chat.yaml")) == 2
    assert comparisons_of(recipe.load(tmp_path / "chat.yaml", ["scoring.base=false"])) == 1


def test_one_variant_alone_is_one_comparison(tmp_path):
    (tmp_path / "one.yaml").write_text(RECIPE.partition("variants")[0])
    assert comparisons_of(recipe.load(tmp_path / "one.yaml")) == 1


def test_a_stated_sd(load):
    made = plan(load(), POINT, POINT, Stated(0.01))
    [pair] = made.pairs
    assert made.seeds == pair.seeds == seeds_needed(0.01, Noise.of_sd(0.01), alpha=0.05 / 3)
    assert (pair.sd, pair.example_sd, pair.seeds_range) == (pytest.approx(2**0.5 * 0.01), None, None)
    assert pair.examples == 40 and pair.examples_needed is None
    assert made.costs == made.totals == []


def test_a_stated_churn_says_how_many_examples_it_takes(load):
    made = plan(load(), POINT, POINT, Stated(0.01, churn=0.08))
    [pair] = made.pairs
    assert pair.too_small and made.seeds is None
    noise = Noise.of_sd(0.01, math.sqrt(0.08))
    assert pair.examples_needed == examples_needed(0.01, noise, alpha=alpha_of(3))
    assert made.enlarged["examples"] == 2 * pair.examples_needed
    assert power(0.01, noise, made.enlarged["seeds"], 2 * pair.examples_needed, alpha=alpha_of(3)) >= 0.8
    assert pair.seeds_on_these_examples == seeds_needed(0.01, Noise.of_sd(0.01), alpha=alpha_of(3))
    many = plan(load(), POINT, POINT, Stated(0.01, churn=0.08), examples=2 * pair.examples_needed)
    assert many.seeds == made.enlarged["seeds"] and many.enlarged is None


def test_churn_without_a_number_of_examples_is_refused(load):
    with pytest.raises(InputError, match="needs the number of held-out examples"):
        plan(load("data.split.test=0.3"), POINT, POINT, Stated(0.01, churn=0.08))
    assert plan(load("data.split.test=0.3"), POINT, POINT, Stated(0.01, churn=0.08), 500).pairs[0].examples == 500


def test_from_nothing_comes_a_range_and_no_answer(load):
    made = plan(load(), POINT, POINT)
    assert [pair.sd / 2**0.5 / POINT for pair in made.pairs] == pytest.approx(SUPPOSED)
    assert made.seeds is None and made.source == "nothing"
    seeds = [pair.seeds for pair in made.pairs]
    assert seeds == sorted(seeds)


def test_the_range_of_seeds_is_that_of_the_sd(load):
    pair = Pair("a - b", Noise(0.01, both=0.1), 400, False, 5)
    found = needed(pair, POINT, 0.05, 5)
    raw = math.sqrt(0.01**2 + 0.1**2 / 400)
    assert found.sd == pytest.approx(raw) and found.sd_corrected == 0.01
    # From five runs an SD may be 0.599 to 2.874 times as large; the test set's part of it is known.
    top = math.sqrt((2.874 * raw) ** 2 - 0.1**2 / 400)
    assert found.seeds_range[1] == pytest.approx(seeds_needed(POINT, Noise(top, both=0.1), 400), rel=0.01)
    assert found.seeds_range[0] < found.seeds < found.seeds_range[1]


def test_clusters_are_told_in_examples():
    noise = Noise(0.01, 0.2)
    found = needed(Pair("a - b", noise, 100, True, 5, size=4.0), POINT, 0.05, 5)
    assert found.examples == 400
    assert found.examples_needed == 4 * examples_needed(POINT, noise)


def test_a_pilot_gives_every_pair_and_the_cost(load, tmp_path):
    made = plan(load("seeds=3"), 10 * POINT, POINT, read_study(fabricated(tmp_path / "pilot").path))
    assert [pair.pair for pair in made.pairs] == ["linear - lora", "linear - full", "lora - full"]
    assert all(pair.runs == 5 and pair.examples == 200 and pair.example_sd is not None for pair in made.pairs)
    assert made.seeds == max(pair.seeds for pair in made.pairs)
    assert [each["seeds"] for each in made.totals] == sorted({3, made.seeds})
    assert made.totals[0]["seconds"] == pytest.approx(3 * sum(cost.seconds for cost in made.costs))
    assert json.loads(json.dumps(made.content()))["seeds"] == made.seeds


def test_a_larger_test_set_serves_every_pair(load, tmp_path):
    made = plan(load(), POINT, POINT, read_study(fabricated(tmp_path / "pilot").path))
    assert made.seeds is None and any(pair.too_small for pair in made.pairs)
    assert made.enlarged["examples"] == 2 * max(pair.examples_needed for pair in made.pairs)
    there = plan(load(), POINT, POINT, read_study(tmp_path / "pilot"), examples=made.enlarged["examples"])
    assert there.seeds == made.enlarged["seeds"]


def test_a_rule_counts_with_its_fewest_and_most_seeds(load):
    made = plan(load("seeds={until: {ci_width: 2}, at_least: 6, at_most: 20}"), POINT, POINT, Stated(0.01))
    assert made.recipe_seeds == (6, 20)
    noise = Noise.of_sd(0.01)
    assert power(made.pairs[0].detectable, noise, 6, alpha=alpha_of(3)) == pytest.approx(0.8, abs=1e-3)


def test_a_pilot_of_another_metric_is_refused(load, tmp_path):
    study = read_study(fabricated(tmp_path / "pilot").path)
    with pytest.raises(InputError, match="begins with 'macro_f1', and that of the pilot with 'accuracy'"):
        plan(load("task.metrics=[macro_f1]"), POINT, POINT, study)


def test_totals_are_unknown_where_a_variant_is():
    costs = [Cost("a", 10.0, 5, 100, True), Cost("b", 20.0, 7, 300, True)]
    found = {"seeds": 4, "runs": 8, "seconds": 120.0, "peak_memory_bytes": 7, "disk_bytes": 1600}
    assert total(costs, 4) == found
    unknown = total([*costs, Cost("c", None, None, None, False)], 4)
    assert (unknown["runs"], unknown["seconds"], unknown["disk_bytes"], unknown["peak_memory_bytes"]) == (
        12,
        None,
        None,
        None,
    )


def test_two_alike_are_apart_by_the_root_of_two():
    assert alike(0.02).noise.seeds == pytest.approx(0.02 * 2**0.5)
    assert alike(0.02, 100, 0.09).noise.examples == pytest.approx(0.3)
