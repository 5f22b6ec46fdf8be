"""What every strategy holds, whoever wrote it."""

import math

import pytest
import torch
from safetensors import safe_open

from finetune.core.registry import STRATEGIES, TASKS
from finetune.core.run_dir import StudyDir
from finetune.recipe import Variant
from finetune.strategies.base import TRAINED_WEIGHTS
from finetune.study.combine import FinishedRuns
from tests.contracts.battery import (
    STEPS,
    combinations,
    every,
    example_of,
    missing,
    once_each,
    plugin_of,
    well_documented,
)

every_strategy = pytest.mark.parametrize("name", STRATEGIES.all())
every_combination = every(combinations(STRATEGIES))


def test_every_strategy_has_an_example():
    assert not missing(STRATEGIES), missing(STRATEGIES)


@every_strategy
def test_it_is_documented(name):
    well_documented(STRATEGIES, name)


@every_strategy
def test_it_is_tried_with_every_task_that_it_can_do(name):
    tried = {task for strategy, task, *_ in combinations(STRATEGIES) if plugin_of(strategy) == name}
    assert tried >= ({"chat"} if STRATEGIES.get(name).pairs else {"classification"})


@every_combination
def test_what_should_learn_does_and_the_rest_stays_bit_for_bit(outcomes, combination):
    outcome = outcomes(combination, 1)
    assert outcome.trained
    assert outcome.changed() <= outcome.trained
    # A parameter that cannot matter (a bias before a softmax over it) may stay; most do not.
    assert len(outcome.changed()) > 0.8 * len(outcome.trained)


@every_combination
def test_the_loss_is_finite_and_falls(outcomes, combination):
    outcome = outcomes(combination, 1)
    assert len(outcome.losses) == STEPS and all(map(math.isfinite, outcome.losses))
    task = example_of(TASKS, combination[1])
    promised = max(example_of(STRATEGIES, combination[0]).falls, task.falls)
    assert outcome.last < task.slow.get(combination[0], promised) * outcome.first


def same(one, other, combination):
    """Equal to the bit; but what peft makes of a prefix's own network it saves in its place, and computes for one
    example and not for a batch of them: products of other shapes, which not every processor rounds alike."""
    if combination[0] == "adapter/prefix":
        return torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    return torch.equal(one, other)


@every_combination
def test_the_mean_of_runs_that_are_one_is_that_run(batteries, outcomes, combination, tmp_path):
    """Which souping needs: what is saved comes back as weights, and these can be averaged."""
    battery, outcome = batteries(combination), outcomes(combination, 1)
    folder, results = StudyDir(tmp_path), {seed: {"status": "finished"} for seed in (2, 3)}
    for seed in results:
        outcome.strategy.save(outcome.model, folder.run("it", seed).model)
    runs = FinishedRuns(Variant("it", battery.recipe, ""), results, folder, battery.session())
    found, wanted = battery.losses(runs.mean([2, 3])[1]), battery.losses(outcome.model)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert same(battery.losses(runs.mean([3])[1]), wanted, combination)


@every_combination
def test_what_learnt_is_saved_and_restored_under_another_seed_gives_equal_outputs(
    batteries, outcomes, combination, tmp_path
):
    battery, outcome = batteries(combination), outcomes(combination, 1)
    outcome.strategy.save(outcome.model, tmp_path)
    if (tmp_path / TRAINED_WEIGHTS).exists():  # else it is in the format of a library, with names of its own
        with safe_open(tmp_path / TRAINED_WEIGHTS, "pt") as saved:
            assert set(saved.keys()) == outcome.trained >= outcome.changed()
    built = battery.fresh(seed=2)
    fresh, strategy = built.model, built.strategy
    before = battery.losses(fresh)
    strategy.restore(fresh, tmp_path)
    assert same(battery.losses(fresh), battery.losses(outcome.model), combination)
    assert not torch.equal(battery.losses(fresh), before)


@every_combination
def test_another_seed_is_another_run(outcomes, combination):
    one, other = outcomes(combination, 1), outcomes(combination, 2)
    assert other.losses != one.losses
    assert any(not torch.equal(value, one.weights[name]) for name, value in other.weights.items())


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


@every_combination
def test_weights_start_from_the_base_model(batteries, outcomes, combination):
    """All but the head and what the method adds: nothing pretrained is lost on the way to training."""
    battery, outcome = batteries(combination), outcomes(combination, 1)
    base = battery.resources.base(battery.recipe.model, battery.data.task)
    pretrained = [value for name, value in base.model.named_parameters() if name not in base.new]
    found = list(outcome.initial.values())
    assert all(any(value.shape == other.shape and torch.equal(value, other) for other in found) for value in pretrained)


@every(once_each(STRATEGIES))
def test_it_trains_in_bfloat16_as_well(batteries, outcomes, combination):
    """Frozen weights are in bfloat16 then, and what learns is not."""
    outcome, wanted = batteries(combination).run(1, "bfloat16", dtype=torch.bfloat16), outcomes(combination, 1)
    assert len(outcome.losses) == STEPS and all(map(math.isfinite, outcome.losses))
    assert outcome.losses[0] == pytest.approx(wanted.losses[0], rel=0.05)
    assert outcome.last < max(example_of(STRATEGIES, combination[0]).falls, 0.98) * outcome.first
