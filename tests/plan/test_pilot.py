"""What a pilot says: noise of pairs from its stored predictions, and what its runs took."""

from __future__ import annotations

import json

import numpy as np
import pytest

from finetune import recipe
from finetune.core.errors import InputError
from finetune.plan import pilot
from finetune.results.reading import read_study
from finetune.stats import spread
from finetune.stats.power import Noise
from tests.fabricated import Fabricator

RECIPE = """\
name: topics
seeds: 5
model: {source: org/name}
data: {train: {path: news.csv}, split: {test: 40}}
task: {type: classification}
strategy: {type: full}
variants: {linear: {strategy: {type: linear}}, full: {}, lora: {strategy: {type: adapter}}}
"""


@pytest.fixture
def folder(tmp_path):
    """A study of 40 examples without runs."""
    made = Fabricator(tmp_path / "pilot", [0, 1, 2, 3, 9], {"linear": "linear", "full": "full"}, examples=40)
    made.study()
    return made


def score(made, variant, seed, correct):
    """One run with these per-example scores."""
    made.run(variant, seed, 0.5)
    path = made.path / variant / f"seed-{seed}"
    made.predictions(path / "predictions" / "test.parquet", np.asarray(correct, dtype=float))
    result = json.loads((path / "result.json").read_text())
    result["scores"] = {"test/accuracy": float(np.mean(correct))}
    (path / "result.json").write_text(json.dumps(result))


def fill(made, seeds=4):
    """Runs that differ by seed, by example and by chance; and their scores by variant, (runs, examples)."""
    rng = np.random.default_rng(4)
    matrices = {}
    for variant, level in (("linear", 0.5), ("full", 0.6)):
        hard, luck = rng.normal(0, 0.2, 40), rng.normal(0, 0.25, seeds)
        matrices[variant] = np.array([rng.random(40) < level + hard + own for own in luck], dtype=float)
        for seed, row in enumerate(matrices[variant]):
            score(made, variant, seed, row)
    return matrices


def test_a_pairs_noise_is_that_of_its_differences(folder):
    matrices = fill(folder)
    [pair] = pilot.pairs(read_study(folder.path))
    assert (pair.name, pair.runs, pair.examples, pair.choice) == ("linear - full", 4, 40, True)
    assert pair.noise == Noise.of_differences(matrices["linear"] - matrices["full"])
    assert pair.noise.seeds == pytest.approx(spread(matrices["linear"] - matrices["full"]).sd_corrected)


def test_another_number_of_examples_can_be_asked_about(folder):
    fill(folder)
    here, there = pilot.pairs(read_study(folder.path)), pilot.pairs(read_study(folder.path), examples=4000)
    assert there[0].examples == 4000 and there[0].noise == here[0].noise


def test_only_common_seeds_are_paired(folder):
    matrices = fill(folder)
    score(folder, "linear", 9, np.ones(40))
    [pair] = pilot.pairs(read_study(folder.path))
    assert pair.noise == Noise.of_differences(matrices["linear"] - matrices["full"])


def test_failed_runs_that_were_scored_count(folder):
    fill(folder)
    path = folder.path / "full" / "seed-3" / "result.json"
    path.write_text(path.read_text().replace('"finished"', '"degenerate"'))
    assert pilot.pairs(read_study(folder.path))[0].runs == 4


def test_one_variant_stands_for_two_alike(folder):
    matrix = fill(folder)["full"]
    for seed in range(4):
        (folder.path / "linear" / f"seed-{seed}" / "result.json").unlink()
    [pair] = pilot.pairs(read_study(folder.path))
    own = Noise.of_differences(matrix)
    assert own.seeds > 0.05
    assert pair.name == "full - one like it" and not pair.choice
    assert (pair.noise.seeds, pair.noise.both) == pytest.approx((2**0.5 * own.seeds, 2**0.5 * own.both))
    assert pair.noise.examples == 0


def test_without_contributions_there_are_the_scores(folder):
    """The stored scores are not those of which the run's score is the mean."""
    matrices = fill(folder)
    for variant in matrices:
        for seed in range(4):
            made = folder.path / variant / f"seed-{seed}" / "predictions" / "test.parquet"
            folder.predictions(made, np.zeros(40))
    [pair] = pilot.pairs(read_study(folder.path))
    differences = (matrices["linear"] - matrices["full"]).mean(axis=1)
    assert pair.noise == Noise(pytest.approx(differences.std(ddof=1)))
    assert (pair.examples, pair.choice) == (None, False)


def test_seeds_with_splits_of_their_own_share_no_examples(folder):
    fill(folder)
    resolved = folder.path / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("- init", "- split\n- init"))
    [pair] = pilot.pairs(read_study(folder.path))
    assert (pair.examples, pair.choice, pair.noise.examples) == (None, False, 0)


def test_examples_that_belong_together_are_counted_in_clusters(folder, monkeypatch):
    matrices = fill(folder)
    labels = np.repeat(np.arange(10), 4)
    study = read_study(folder.path)
    monkeypatch.setattr(type(study), "clusters", lambda self, task: labels)
    [pair] = pilot.pairs(study)
    means = (matrices["linear"] - matrices["full"]).reshape(4, 10, 4).mean(axis=2)
    assert (pair.examples, pair.size) == (10, 4)
    assert pair.noise == Noise.of_differences(means)
    assert pilot.pairs(study, examples=400)[0].examples == 100


def test_clusters_of_unequal_size_are_no_noise_of_their_own(folder, monkeypatch):
    """Every example has the same difference, so which clusters there are changes nothing."""
    fill(folder)
    for variant, score_of_all in (("linear", 1.0), ("full", 0.0)):
        for seed in range(4):
            score(folder, variant, seed, np.full(40, score_of_all))
    study = read_study(folder.path)
    monkeypatch.setattr(type(study), "clusters", lambda self, task: np.repeat([0, 1, 2], [30, 9, 1]))
    [pair] = pilot.pairs(study)
    assert pair.noise == Noise(0.0, 0.0, 0.0)


@pytest.mark.parametrize("seeds", [0, 1])
def test_a_pilot_without_spread_is_refused(folder, seeds):
    fill(folder, seeds)
    with pytest.raises(InputError, match="has two runs with test/accuracy"):
        pilot.pairs(read_study(folder.path))


def test_costs_are_means_of_the_pilots_runs(folder, tmp_path):
    fill(folder)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for seed, seconds in enumerate((10.0, 20.0, 30.0, 40.0)):
        path = folder.path / "full" / f"seed-{seed}" / "result.json"
        result = json.loads(path.read_text()) | {"seconds": seconds, "peak_memory_bytes": 1000 * seed}
        path.write_text(json.dumps(result))
    (folder.path / "full" / "seed-0" / "model").mkdir()
    (folder.path / "full" / "seed-0" / "model" / "weights").write_bytes(bytes(40_000))
    found = {cost.variant: cost for cost in pilot.costs(recipe.load(tmp_path / "recipe.yaml"), read_study(folder.path))}
    full = found["full"]
    assert (full.seconds, full.peak_memory_bytes, full.same_recipe) == (25.0, 3000, False)
    sizes = sum(path.stat().st_size for path in (folder.path / "full").rglob("*") if path.is_file())
    assert full.disk_bytes == round(sizes / 4) and full.disk_bytes > 10_000
    assert (found["lora"].seconds, found["lora"].peak_memory_bytes, found["lora"].disk_bytes) == (None, None, None)


def test_a_pilot_of_the_same_recipe_is_known_by_its_digest(folder, tmp_path):
    fill(folder)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    planned = recipe.load(tmp_path / "recipe.yaml")
    digest = next(variant.digest for variant in planned.variants if variant.name == "full")
    resolved = folder.path / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("d-full", digest))
    same = {cost.variant: cost.same_recipe for cost in pilot.costs(planned, read_study(folder.path))}
    assert same == {"linear": False, "full": True, "lora": False}
