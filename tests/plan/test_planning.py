"""What a study needs and costs."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest

from finetune import recipe
from finetune.core.errors import InputError
from finetune.plan.pilot import Cost, Pair
from finetune.plan.pilot import pairs as pilot_pairs
from finetune.plan.planning import SUPPOSED, Stated, alike, judged_in, needed, plan, total
from finetune.results.reading import read_study
from finetune.stats import Compared, Comparison, family_of, judge, verdict
from finetune.stats.families import AllPairs, Sequential, Several
from finetune.stats.leading import Leader
from finetune.stats.multibootstrap import uncertainty_of_mean
from finetune.stats.power import Noise, examples_needed, power, seeds_needed
from tests.fabricated import topics as fabricated
from tests.plan.test_pilot import RECIPE

POINT = 0.01

UNTIL = "seeds={until: {ci_width: 2}, at_least: 6, at_most: 20}"


@pytest.fixture
def load(tmp_path):
    """load('seeds=3') -> a recipe of three variants."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return lambda *overrides: recipe.load(tmp_path / "recipe.yaml", overrides)


def test_comparisons_are_those_of_the_report(load):
    assert judged_in(load()) == (3, AllPairs(3))
    # Another evaluation set is another question.
    assert judged_in(load("evaluate=[{name: a, data: {path: a.csv}}]")) == (3, AllPairs(3))
    assert judged_in(load(UNTIL)) == (3, Sequential(3))


def test_a_baseline_is_what_others_are_compared_with(load, tmp_path):
    recipe = load("scoring.baseline=full")
    made = plan(recipe, 10 * POINT, POINT, read_study(fabricated(tmp_path / "pilot").path))
    assert judged_in(recipe) == (2, Several(2)) and made.comparisons == 2
    assert [pair.pair for pair in made.pairs] == ["linear - full", "lora - full"]
    assert made.seeds_to_lead is None, "which is best is not asked"


def test_what_needs_no_tuning_is_judged_apart(tmp_path):
    text = RECIPE.replace("task: {type: classification}", "task: {type: chat, prompt: p, completion: c}")
    (tmp_path / "chat.yaml").write_text(text.replace("linear: {strategy: {type: linear}}, ", ""))
    assert judged_in(recipe.load(tmp_path / "chat.yaml")) == (1, AllPairs(2))


def test_one_variant_alone_is_one_comparison(tmp_path):
    (tmp_path / "one.yaml").write_text(RECIPE.partition("variants")[0])
    assert judged_in(recipe.load(tmp_path / "one.yaml")) == (1, Several(1))


def of(variants, tmp_path):
    """A recipe of so many variants."""
    names = ", ".join(f"v{number}: {{}}" for number in range(variants))
    (tmp_path / "some.yaml").write_text(RECIPE.partition("variants")[0] + f"variants: {{{names}}}\n")
    return recipe.load(tmp_path / "some.yaml")


def judged(scores):
    """All pairs of the rows of (variants, seeds), as a report judges them, in order."""
    pairs, runs = list(combinations(range(len(scores)), 2)), scores.shape[1]
    apart = [scores[left] - scores[right] for left, right in pairs]
    found = [Comparison(runs, 0.95, "", runs, difference=float(rows.mean())) for rows in apart]
    noises = [uncertainty_of_mean(rows[:, None]) for rows in apart]
    compared = [Compared(one, noise, runs, 1 / runs) for one, noise in zip(found, noises, strict=True)]
    means = dict(enumerate(scores.mean(axis=1)))
    return judge(compared, family_of(len(pairs), len(scores)), pairs, means)


@pytest.mark.parametrize("variants", [2, 3, 6])
def test_a_plans_seeds_have_the_power_that_it_promises(variants, tmp_path):
    """Simulated: SD 1 point, and the last two a point apart, below a variant that is far ahead; then the last a point
    ahead of all. The standard error is 2.5 points."""
    made, draws = plan(of(variants, tmp_path), POINT, POINT, Stated(POINT)), np.random.default_rng(1)

    def seen(seeds, truth):
        """In what share of 250 studies the last two are told apart."""
        told = []
        for _ in range(250):
            scores = draws.normal(np.array(truth)[:, None] * POINT, POINT, (variants, seeds))
            told.append(verdict(judged(scores)[-1]) != "undecided")
        return np.mean(told)

    if variants == 2:
        assert made.seeds_to_lead is None
        assert seen(made.seeds, [0.0, 1.0]) == pytest.approx(0.8, abs=0.06)
    else:
        assert seen(made.seeds, [30.0, *[0.0] * (variants - 2), 1.0]) == pytest.approx(0.8, abs=0.06)
        assert made.seeds_to_lead < made.seeds
        assert seen(made.seeds_to_lead, [*[0.0] * (variants - 1), 1.0]) == pytest.approx(0.8, abs=0.06)


def test_a_stated_sd(load):
    made = plan(load(), POINT, POINT, Stated(0.01))
    [pair] = made.pairs
    assert made.seeds == pair.seeds == seeds_needed(0.01, Noise.of_sd(0.01), family=AllPairs(3))
    assert made.seeds_to_lead == seeds_needed(0.01, Noise.of_sd(0.01), family=Leader(3))
    assert (pair.sd, pair.example_sd, pair.seeds_range) == (pytest.approx(2**0.5 * 0.01), None, None)
    assert pair.examples == 40 and pair.examples_needed is None
    assert made.costs == made.totals == []


def test_a_stated_churn_says_how_many_examples_it_takes(load):
    made = plan(load(), POINT, POINT, Stated(0.01, churn=0.08))
    [pair] = made.pairs
    assert pair.too_small and made.seeds is None
    noise = Noise.of_sd(0.01, math.sqrt(0.08))
    assert pair.examples_needed == examples_needed(0.01, noise, family=AllPairs(3))
    assert made.enlarged["examples"] == 2 * pair.examples_needed
    assert power(0.01, noise, made.enlarged["seeds"], 2 * pair.examples_needed, family=AllPairs(3)) >= 0.8
    assert pair.seeds_on_these_examples == seeds_needed(0.01, Noise.of_sd(0.01), family=AllPairs(3))
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
    found = needed(pair, POINT, Several(), 5)
    raw = math.sqrt(0.01**2 + 0.1**2 / 400)
    assert found.sd == pytest.approx(raw) and found.sd_corrected == 0.01
    # From five runs an SD may be 0.599 to 2.874 times as large; the test set's part of it is known.
    top = math.sqrt((2.874 * raw) ** 2 - 0.1**2 / 400)
    assert found.seeds_range[1] == pytest.approx(seeds_needed(POINT, Noise(top, both=0.1), 400), rel=0.01)
    assert found.seeds_range[0] < found.seeds < found.seeds_range[1]


def test_clusters_are_told_in_examples():
    noise = Noise(0.01, 0.2)
    found = needed(Pair("a - b", noise, 100, True, 5, size=4.0), POINT, Several(), 5)
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
    made = plan(load(UNTIL), POINT, POINT, Stated(0.01))
    assert made.recipe_seeds == (6, 20)
    noise = Noise.of_sd(0.01)
    assert power(made.pairs[0].detectable, noise, 6, family=Sequential(3)) == pytest.approx(0.8, abs=1e-3)
    few = plan(load(UNTIL.replace("6", "3")), POINT, POINT, Stated(0.01))
    assert few.pairs[0].detectable is None and json.loads(json.dumps(few.content()))["seeds"] == few.seeds


def test_a_pilots_pairs_are_judged_with_the_mean_of_their_variances(load, tmp_path):
    """One variant that scatters makes two pairs of three noisy, and the third is judged with their variance too."""
    pilot = fabricated(tmp_path / "pilot")
    for seed in pilot.seeds:
        pilot.run("linear", seed, 0.3 + 0.12 * seed)
    made = plan(load(), 10 * POINT, POINT, read_study(pilot.path))
    noisy, also, calm = made.pairs
    assert calm.pair == "lora - full" and calm.sd < 0.3 * min(noisy.sd, also.sd)
    alone = needed(pilot_pairs(read_study(pilot.path))[2], 10 * POINT, AllPairs(3), 5)
    assert calm.sd == alone.sd and 2 * alone.seeds < calm.seeds <= max(noisy.seeds, also.seeds)


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
