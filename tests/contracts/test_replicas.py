"""What every strategy holds when its seeds are trained side by side, and on remembered activations.

Dropout is on wherever a model or strategy has it: each run has to have its own masks.
"""

import pytest

from finetune.core.randomness import Streams
from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS
from finetune.replicas.stacked import CannotStack
from finetune.runner.autotune import alone as one_by_one
from finetune.runner.autotune import choose_replicas
from tests import tiny
from tests.contracts.battery import combinations, every, example_of, has_both, plugin_of, said, training
from tests.replicas.groups import Variant, far

SEEDS = (0, 1, 2)
FAR = 1e-4
"""In float32, over weights of about 0.1, and relative in losses: another seed's batch or mask changes 1 % and more."""
REMEMBERING = ("linear", "partial")
"""Strategies under which the lowest block is frozen. Of an encoder-decoder nothing is remembered."""
ENCODER_ALONE = ("token-classification", "encoder-decoder")
"""Where transformers' class has no decoder, and something may be."""


every_combination = every([*combinations(STRATEGIES), *combinations(MITIGATIONS)])


@pytest.fixture(scope="module")
def variants(tmp_path_factory, encoder_folder):
    """A variant for each combination, with dropout."""
    folder = tmp_path_factory.mktemp("replicas")
    models = {
        "encoder": encoder_folder,
        "decoder": tiny.save_decoder(folder / "model", attention_dropout=0.1),
        "encoder-decoder": tiny.save_encoder_decoder(folder / "both"),
        "framed": tiny.save_framed(folder / "framed"),
        "masked": tiny.save_masked(folder / "masked"),
        "bart": tiny.save_bart(folder / "bart", dropout=0.1),
    }
    made = {}

    def make(combination):
        if combination not in made:
            strategy, task, model, mitigation = combination
            options = said(STRATEGIES, strategy)
            if "dropout" in STRATEGIES.get(plugin_of(strategy)).Options.model_fields:
                options.setdefault("dropout", 0.1)  # an example of a method without any says so
            treated = [said(MITIGATIONS, mitigation)] if mitigation else []
            here = folder / str(len(made))
            made[combination] = Variant.of(here, models[model], task, options, treated, **training(strategy))
        return made[combination]

    return make


@pytest.fixture(scope="module")
def alone(variants):
    """Each combination's three runs, one after the other."""
    made = {}

    def train(combination):
        if combination not in made:
            variant = variants(combination)
            made[combination] = [came for seed in SEEDS for came in variant.run([seed], "alone")]
        return made[combination]

    return train


@every_combination
def test_seeds_side_by_side_are_the_runs_they_would_be_alone(variants, alone, combination):
    """Or the plug-in says that they cannot stand side by side; then they are trained one by one."""
    this = variants(combination)
    if one_by_one(this.session()):
        runs = [Streams(seed) for seed in SEEDS]
        count, reason = choose_replicas(this.session(), runs)
        assert count == 1 and "one run at a time" in reason
        return
    try:
        together = variants(combination).run(SEEDS, "together")
    except CannotStack as error:
        assert str(error)
        return
    apart, allowed = alone(combination), example_of(TASKS, combination[1]).far
    assert [far(one, other) for one, other in zip(together, apart, strict=True)] == pytest.approx([0] * 3, abs=allowed)
    assert {came.facts["replicas"] for came in together} == {3}


@every_combination
def test_the_seeds_are_different_runs(alone, combination):
    """Without which the test above would show little."""
    first, second, _ = alone(combination)
    assert first.batches != second.batches
    assert max(abs(one / other - 1) for one, other in zip(first.losses, second.losses, strict=True)) > 10 * FAR
    assert max(float((first.weights[name] - second.weights[name]).abs().max()) for name in first.weights) > 50 * FAR


@every_combination
def test_what_is_remembered_is_what_would_be_computed(variants, alone, combination):
    """For single runs and for groups; and nothing is remembered where everything learns."""
    plain = variants(combination).like(prefix_cache=False)
    can_cache_prefix = variants(combination).assembled().prefix is not None
    if combination[1:3] != ENCODER_ALONE:
        assert can_cache_prefix == (combination[0] in REMEMBERING and not has_both(*combination[1:3]))
    assert plain.assembled().prefix is None
    if can_cache_prefix:
        apart, together = alone(combination)[0], plain.run(SEEDS, "computed")
        allowed = example_of(TASKS, combination[1]).far
        assert far(plain.run([0], "computed, alone")[0], apart) < allowed
        assert far(together[0], apart) < allowed


def test_these_strategies_stack(variants):
    """They may not fall back to one by one unnoticed."""
    unlike = {}
    for combination in combinations(STRATEGIES):
        if combination[0] in ("adapter", "full", "linear", "partial"):
            expected = example_of(TASKS, combination[1]).cannot_stack.get(combination[2], "")
            expected = expected if combination[0] == "full" else ""
            try:
                assert variants(combination).assembled(SEEDS).count == 3
                found = ""
            except CannotStack as error:
                found = str(error)
            if (expected not in found) if expected else found:
                unlike[combination] = found
    assert unlike == {}
