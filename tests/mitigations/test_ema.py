"""EMA: the average it says, of constants the constant, scored and kept in the place of the weights."""

from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.mitigations.ema import EMA
from tests.examples import Example
from tests.mitigations.steps import EXACT, begun, training_state
from tests.replicas.groups import Variant, far

EXAMPLES = {"ema": Example()}

FULL = {"type": "full"}


def averaged(values, decay=0.999):
    """The average after each of ``values`` has been the weights; the first is where training starts."""
    training = training_state({"weight": torch.tensor([values[0]], dtype=torch.float64)})
    ema = begun(EMA, training, decay=decay)
    for training.step, value in enumerate(values[1:]):
        training.parameters["weight"].data.fill_(value)
        ema.stepped(1e-3)
    return float(ema.scored()["weight"])


@given(value=st.floats(-1e6, 1e6), decay=st.floats(0, 0.9999), steps=st.integers(0, 50))
def test_the_average_of_constants_is_the_constant(value, decay, steps):
    assert averaged([value] * (steps + 1), decay) == value


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30), st.floats(0, 0.999))
def test_it_is_the_weighted_mean_that_it_says(values, decay):
    weights = [1.0]
    for step in range(len(values) - 1):
        stays = min(decay, (1 + step) / (10 + step))
        weights = [*(stays * weight for weight in weights), 1 - stays]
    assert sum(weights) == pytest.approx(1)
    wanted = sum(weight * value for weight, value in zip(weights, values, strict=True))
    assert averaged(values, decay) == pytest.approx(wanted, abs=1e-9)


def test_a_short_run_forgets_its_start_and_averages_its_last_tenth():
    """With a decay that alone would keep 99 % of the start after ten steps, and 90 % after a hundred."""
    assert averaged([1.0] + [0.0] * 10) == pytest.approx(1 / comb(19, 9))  # 1e-5
    age = 99 - averaged([0.0, *map(float, range(100))])
    assert 8 < age < 11


def test_a_long_run_reaches_as_far_back_as_the_decay_says():
    age = 399 - averaged([0.0, *map(float, range(400))], decay=0.9)
    assert age == pytest.approx(0.9 / (1 - 0.9), rel=1e-3)


def test_of_decay_0_it_is_the_last_weights(tmp_path, encoder_folder):
    treated = Variant.of(tmp_path / "treated", encoder_folder, "classification", FULL, [{"type": "ema", "decay": 0.0}])
    plain = Variant.of(tmp_path / "plain", encoder_folder, "classification", FULL)
    [one], [other] = treated.run([0], "run"), plain.run([0], "run")
    assert far(one, other) < EXACT


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_average_is_scored_and_kept_and_training_goes_on_without_it(tmp_path, encoder_folder, keep):
    """At a constant rate a run of n steps begins as a longer one does, so that short runs show the weights inside."""
    steps = {"schedule": "constant", "warmup": 0.0, "min_steps": 3, "max_steps": 3, "evaluations": 1, "keep": keep}
    plain = Variant.of(tmp_path / "plain", encoder_folder, "classification", FULL, **steps)
    treated = Variant.of(tmp_path / "treated", encoder_folder, "classification", FULL, [{"type": "ema"}], **steps)
    runs = [plain.like(min_steps=n, max_steps=n).run([0], str(n))[0] for n in (1, 2, 3)]
    average = {name: value.detach().clone() for name, value in treated.assembled().model.named_parameters()}
    for step, run in enumerate(runs):
        stays = (1 + step) / (10 + step)
        average = {name: stays * value + (1 - stays) * run.weights[name] for name, value in average.items()}
    [came], last = treated.run([0], "run"), runs[-1]
    assert came.losses == last.losses
    assert max(float((value - average[name]).abs().max()) for name, value in came.weights.items()) < EXACT
    assert max(float((value - last.weights[name]).abs().max()) for name, value in came.weights.items()) > 1e-4
    one, other = ([row["scores"] for row in run.rows if row["kind"] == "evaluation"] for run in (came, last))
    assert len(one) == 1 and one != other


def test_a_run_that_stops_early_keeps_the_average_it_had(tmp_path, encoder_folder):
    """Beside others that go on, as alone."""
    early = {"evaluations": 10, "keep": "last", "early_stopping": {"patience": 1}, "max_steps": 20}
    said = [{"type": "ema", "decay": 0.8}]
    variant = Variant.of(tmp_path, encoder_folder, "classification", FULL, said, **early, learning_rate=1e-2)
    together, apart = variant.run((0, 1), "together"), [variant.run([seed], "alone")[0] for seed in (0, 1)]
    assert len(apart[0].losses) > len(apart[1].losses), "one stops before the other"
    assert [far(one, other) for one, other in zip(together, apart, strict=True)] == pytest.approx([0] * 2, abs=1e-4)


def test_two_averages_are_refused(tmp_path, encoder_folder):
    variant = Variant.of(tmp_path, encoder_folder, "classification", FULL, [{"type": "swa"}, {"type": "ema"}])
    with pytest.raises(InputError, match="only one average"):
        variant.assembled()
