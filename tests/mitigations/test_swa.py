"""SWA: the equal average of the weights after the last steps, and before them the weights as they are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.mitigations.swa import SWA
from tests.examples import Example
from tests.mitigations.steps import EXACT, begun, training_state
from tests.replicas.groups import Variant, far

EXAMPLES = {"swa": Example({"start": 0.25})}

FULL = {"type": "full"}


def averaged(values, start, seeds=(0,)):
    """What is scored after each step whose weights are in turn ``values``."""
    training = training_state({"weight": torch.zeros(len(seeds), 1, dtype=torch.float64)}, seeds, steps=len(values))
    swa, scored = begun(SWA, training, start=start), []
    for training.step, value in enumerate(values):
        swa.gradients()
        training.parameters["weight"].data.fill_(value)
        swa.stepped(1e-3)
        found = swa.scored()
        scored.append(found and float(found["weight"][0]))
    return scored


@given(value=st.floats(-1e6, 1e6), start=st.floats(0, 0.99), steps=st.integers(1, 40))
def test_the_average_of_constants_is_the_constant(value, start, steps):
    assert averaged([value] * steps, start)[-1] == value


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.floats(0, 0.99))
def test_it_is_the_mean_of_the_last_share_of_steps(values, start):
    """Of those that begin after ``start`` of all, and at least of the last."""
    scored = averaged(values, start)
    taken = [value for step, value in enumerate(values) if step >= start * len(values)] or values[-1:]
    assert scored[-1] == pytest.approx(sum(taken) / len(taken), abs=1e-9)
    assert scored.count(None) == len(values) - len(taken)


def test_three_quarters_pass_first():
    assert averaged([float(step) for step in range(8)], start=0.75) == [*[None] * 6, 6.0, 6.5]


def test_the_mean_of_the_last_steps_weights_is_kept(tmp_path, encoder_folder):
    """At a constant rate a run of n steps begins as a longer one does, so that short runs show the weights inside."""
    steady = {"schedule": "constant", "warmup": 0.0}
    plain = Variant.of(tmp_path / "plain", encoder_folder, "classification", FULL, **steady)
    weights = [plain.like(min_steps=n, max_steps=n).run([0], str(n))[0].weights for n in (4, 5, 6)]
    said = [{"type": "swa", "start": 0.5}]
    [came] = Variant.of(tmp_path / "swa", encoder_folder, "classification", FULL, said, **steady).run([0], "run")
    average = {name: torch.stack([own[name] for own in weights]).mean(0) for name in came.weights}
    assert max(float((value - average[name]).abs().max()) for name, value in came.weights.items()) < EXACT
    assert max(float((value - weights[-1][name]).abs().max()) for name, value in came.weights.items()) > 1e-4


def test_of_the_last_step_alone_it_is_the_last_weights(tmp_path, encoder_folder):
    said = [{"type": "swa", "start": 0.99}]
    treated = Variant.of(tmp_path / "treated", encoder_folder, "classification", FULL, said)
    plain = Variant.of(tmp_path / "plain", encoder_folder, "classification", FULL)
    [one], [other] = treated.run([0], "run"), plain.run([0], "run")
    assert one.losses == other.losses and far(one, other) < EXACT


def test_early_evaluations_see_the_weights_and_late_ones_the_average(tmp_path, encoder_folder):
    train = {"evaluations": 2, "keep": "last"}
    treated = Variant.of(
        tmp_path / "a", encoder_folder, "classification", FULL, [{"type": "swa", "start": 0.5}], **train
    )
    plain = Variant.of(tmp_path / "b", encoder_folder, "classification", FULL, **train)

    def scores(variant):
        [came] = variant.run([0], "run")
        return [row["scores"]["loss"] for row in came.rows if row["kind"] == "evaluation"]

    one, other = scores(treated), scores(plain)
    assert one[0] == other[0] and one[1] != other[1]


@pytest.mark.parametrize("start", [0.0, 0.2], ids=["while it averages", "before it averages"])
def test_a_run_that_stops_early_keeps_what_it_had(tmp_path, encoder_folder, start):
    """The average, or the weights where averaging had not begun; beside others that go on, as alone."""
    early = {"evaluations": 10, "keep": "last", "early_stopping": {"patience": 1}, "max_steps": 20}
    said = [{"type": "swa", "start": start}]
    variant = Variant.of(tmp_path, encoder_folder, "classification", FULL, said, **early, learning_rate=1e-2)
    together, apart = variant.run((0, 1), "together"), [variant.run([seed], "alone")[0] for seed in (0, 1)]
    assert len(apart[0].losses) > 2 == len(apart[1].losses), "one stops before the other"
    assert [far(one, other) for one, other in zip(together, apart, strict=True)] == pytest.approx([0] * 2, abs=1e-4)
