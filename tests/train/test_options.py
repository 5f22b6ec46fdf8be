"""The defaults are the stable recipe, and what may change on resuming is no part of what a run is."""

from finetune.train.options import TrainOptions


def test_the_defaults_are_the_stable_recipe():
    """Mosbach et al. 2021, section 6, in all but the epochs, which have a floor on steps instead."""
    defaults = TrainOptions()
    assert (defaults.batch_size, defaults.warmup, defaults.schedule) == (16, 0.1, "linear")
    assert (defaults.weight_decay, defaults.epsilon, defaults.clip) == (0.01, 1e-6, 1.0)
    assert defaults.betas == (0.9, 0.999) and defaults.min_steps >= 100


def test_an_optimizer_brings_its_own_defaults():
    """Prodigy's rate is a scale; Schedule-Free wants no schedule."""
    assert TrainOptions(optimizer="prodigy").learning_rate == 1.0
    assert TrainOptions(optimizer="prodigy", learning_rate=0.5).learning_rate == 0.5
    free = TrainOptions(optimizer="schedule-free")
    assert (free.schedule, free.learning_rate) == ("constant", TrainOptions().learning_rate)
    assert TrainOptions(optimizer="schedule-free", schedule="linear").schedule == "linear", "what is said stays"


def test_how_work_is_saved_does_not_tell_runs_apart():
    often, seldom = TrainOptions(checkpoint_seconds=0.0, save_model=False), TrainOptions(checkpoint_seconds=900.0)
    assert often.identifying() == seldom.identifying() == TrainOptions().identifying()
    assert TrainOptions(epochs=4.0).identifying() != TrainOptions().identifying()
