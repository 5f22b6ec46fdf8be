"""The learning rate of each step: warmup, decay, and falls on a plateau."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.train.schedules import rate_at, rate_factor
from tests.train.workbench import options


@pytest.mark.parametrize(
    "schedule, curve",
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", [0.5, 1.0] + [0.5 + 0.5 * math.cos(math.pi * step / 8) for step in range(8)]),
        ("constant", [0.5] + [1.0] * 9),
        ("plateau", [0.5] + [1.0] * 9),
    ],
)
def test_the_curve(schedule, curve):
    assert [rate_factor(step, 10, 0.2, schedule) for step in range(10)] == pytest.approx(curve)


@given(st.integers(1, 500), st.floats(0, 0.99), st.sampled_from(["linear", "cosine", "constant", "plateau"]))
def test_every_curve_rises_to_one_and_wastes_no_step(total, warmup, schedule):
    curve = [rate_factor(step, total, warmup, schedule) for step in range(total)]
    rising = math.ceil(warmup * total)
    assert min(curve) > 0 and max(curve) == 1.0
    assert curve[max(rising - 1, 0)] == 1.0
    assert curve[:rising] == sorted(curve[:rising])
    assert curve[rising:] == sorted(curve[rising:], reverse=True)
    if schedule in ("linear", "cosine") and rising < total:
        assert rate_factor(total, total, warmup, schedule) == pytest.approx(0.0, abs=1e-12)


def test_each_fall_counts_from_the_step_after_it():
    chosen = options(learning_rate=0.8, schedule="plateau", plateau={"factor": 0.5}, warmup=0.2)
    rates = [rate_at(step, 10, chosen, [4, 4, 7]) for step in range(10)]
    assert rates == pytest.approx([0.4, 0.8, 0.8, 0.8, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1])
    assert [rate_at(step, 10, chosen) for step in range(10)] == pytest.approx([0.4] + [0.8] * 9)
