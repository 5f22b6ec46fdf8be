"""What every mitigation holds, whoever wrote it."""

import math

import pytest
import torch

from finetune.core.registry import MITIGATIONS
from tests.contracts.battery import STEPS, combinations, every, missing, once_each, well_documented

every_combination = every(combinations(MITIGATIONS))


def test_every_mitigation_has_an_example():
    assert not missing(MITIGATIONS), missing(MITIGATIONS)


@pytest.mark.parametrize("name", MITIGATIONS.all())
def test_it_is_documented(name):
    well_documented(MITIGATIONS, name)


@pytest.mark.parametrize("name", [name for name, plugin in MITIGATIONS.all().items() if plugin.combines])
def test_what_combines_finished_runs_leaves_them_what_they_are(batteries, outcomes, name):
    treated, plain = ("full", "classification", "encoder", name), ("full", "classification", "encoder", None)
    assert batteries(treated).recipe.identifying()["mitigations"] == []  # so that digests are the same
    one, other = outcomes(treated, 1), outcomes(plain, 1)
    assert one.losses == other.losses
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


@every_combination
def test_training_works_with_it_and_is_another_than_without(outcomes, combination):
    treated, plain = outcomes(combination, 1), outcomes((*combination[:3], None), 1)
    assert len(treated.losses) == STEPS and all(map(math.isfinite, treated.losses))
    assert treated.last < treated.first
    # What comes out differs, though some (averages) leave the losses of training alone.
    assert any(not torch.equal(value, plain.weights[name]) for name, value in treated.weights.items())


@every_combination
def test_the_task_head_is_left_to_its_own_draw(batteries, outcomes, combination):
    treated, plain = outcomes(combination, 1), outcomes((*combination[:3], None), 1)
    battery = batteries(combination)
    for name in battery.resources.base(battery.recipe.model, battery.data.task).new:
        assert torch.equal(treated.initial[name], plain.initial[name])


@every_combination
def test_another_seed_is_another_run(outcomes, combination):
    one, other = outcomes(combination, 1), outcomes(combination, 2)
    assert other.losses != one.losses
    assert any(not torch.equal(value, one.weights[name]) for name, value in other.weights.items())


@every_combination
def test_saved_weights_restored_under_another_seed_give_equal_outputs(batteries, outcomes, combination, tmp_path):
    battery, outcome = batteries(combination), outcomes(combination, 1)
    outcome.strategy.save(outcome.model, tmp_path)
    built = battery.fresh(seed=2)
    fresh, strategy = built.model, built.strategy
    strategy.restore(fresh, tmp_path)
    assert torch.equal(battery.losses(fresh), battery.losses(outcome.model))


@every_combination
def test_the_seed_alone_decides_also_when_interrupted(batteries, outcomes, combination):
    """A second run of a seed ends with the first one's bits, whatever else was drawn, and in two pieces."""
    battery, whole = batteries(combination), outcomes(combination, 1)
    torch.manual_seed(99)
    half = battery.run(1, "stopped", stop_at=STEPS // 2)
    assert len(half.losses) == STEPS // 2
    resumed = battery.run(1, "stopped")
    assert resumed.losses == whole.losses and resumed.weights.keys() == whole.weights.keys()
    assert all(torch.equal(value, whole.weights[name]) for name, value in resumed.weights.items())


@every(once_each(MITIGATIONS))
def test_it_trains_in_bfloat16_as_well(batteries, outcomes, combination):
    """Frozen weights are in bfloat16 then, and what learns is not."""
    outcome, wanted = batteries(combination).run(1, "bfloat16", dtype=torch.bfloat16), outcomes(combination, 1)
    assert len(outcome.losses) == STEPS and all(map(math.isfinite, outcome.losses))
    assert outcome.losses[0] == pytest.approx(wanted.losses[0], rel=0.05)
    assert outcome.last < outcome.first
