"""The recipes that ship promise what the README says of them."""

from pathlib import Path

import pytest

from finetune import recipe
from finetune.study import running

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_begins_with_what_it_shows_and_how_long_it_takes(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# Shows: ") and lines[1].startswith("# Takes: ")
    assert "bf16" in lines[1] or "float32" in lines[1], "a time means little without the processor's arithmetic"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_study_of_each_can_be_gone_on_with_by_its_resolved_recipe(path, tmp_path):
    known = recipe.load(path)
    (tmp_path / "resolved.yaml").write_text(known.to_yaml(), encoding="utf-8")
    again = recipe.read_resolved(tmp_path / "resolved.yaml")
    assert [each.recipe for each in again.variants] == [each.recipe for each in known.variants]


def test_the_quickstart_is_an_honest_small_study():
    quickstart = recipe.load(RECIPES / "quickstart.yaml")
    assert quickstart.seeds == [0, 1, 2, 3, 4]
    assert {variant.name: variant.recipe.strategy.type for variant in quickstart.variants} == {
        "linear": "linear",
        "lora": "adapter",
        "full": "full",
    }
    assert all(variant.recipe.data.split.test >= 500 for variant in quickstart.variants)


def test_the_headlines_stand_beside_the_untuned_model():
    [only] = recipe.load(RECIPES / "smollm2-headlines.yaml").variants
    assert only.recipe.scoring.base and only.recipe.strategy.type == "adapter"


@pytest.mark.slow
def test_the_quickstart_ends_with_every_run_finished(tmp_path):
    quickstart = recipe.load(RECIPES / "quickstart.yaml", ["seeds=2"])  # scripts/quickstart: 5
    outcome = running.run_study(quickstart, tmp_path)
    assert outcome.failed == []
    means = {variant.name: variant.estimates["test/accuracy"] for variant in outcome.results.variants}
    assert {name: found.n for name, found in means.items()} == {"linear": 1, "lora": 2, "full": 2}
    assert min(found.mean for found in means.values()) > 0.85
