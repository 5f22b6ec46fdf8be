"""The frame of small drawings, their axes, and what many curves have in common."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.report.drawing.panels import BOTTOM, TOP, Axis, band, frame, gathered, linear, steps_axis, values_axis
from finetune.report.drawing.svg import Scale

curves = st.lists(
    st.dictionaries(st.integers(1, 400), st.floats(-100, 100), max_size=200).map(lambda points: sorted(points.items())),
    min_size=1,
    max_size=5,
)


def test_windows_keep_the_mean():
    points = [(float(step), float(step % 7)) for step in range(1200)]
    steps, values = gathered([points], 150)
    assert values.shape == (1, 150) and steps[0] == 3.5
    assert values.mean() == pytest.approx(np.mean([value for _, value in points]))


def test_short_curves_are_left_as_they_are():
    steps, values = gathered([[(1, 5.0), (3, 6.0)], [(3, 7.0), (4, 8.0)], []])
    assert steps.tolist() == [1, 3, 4]
    np.testing.assert_array_equal(values, [[5, 6, np.nan], [np.nan, 7, 8], [np.nan] * 3])


def test_nothing_gathered_is_nothing():
    steps, values = gathered([[], []])
    assert steps.shape == (0,) and values.shape == (2, 0)


@given(curves, st.integers(1, 50))
def test_gathered_stays_among_the_values(many, most):
    steps, values = gathered(many, most)
    assert len(steps) <= most and (np.diff(steps) > 0).all()
    for row, curve in zip(values, many, strict=True):
        assert np.isfinite(row).any() == bool(curve)
        if curve:
            seen = [value for _, value in curve]
            assert min(seen) - 1e-9 <= np.nanmin(row) and np.nanmax(row) <= max(seen) + 1e-9


def test_an_axis_is_logarithmic_where_values_span_decades():
    gradients = values_axis(np.geomspace(0.02, 50, 100), "norm")
    assert gradients.logarithmic and gradients.title == "norm, log scale"
    assert [text for _, text in gradients.marks] == ["0.01", "0.1", "1", "10", "100"]
    heights = [gradients(value) for value, _ in gradients.marks]
    assert heights[0] == BOTTOM and heights[-1] == TOP and np.ptp(np.diff(heights)) == pytest.approx(0)
    assert gradients(0.0) == BOTTOM, "what has no logarithm lies at the bottom"
    assert not values_axis(np.geomspace(0.02, 50, 100), "loss", logarithmic=False).logarithmic


def test_schedules_that_fall_to_zero_are_linear_and_steps_down_are_not():
    time = np.linspace(0, 1, 500)
    assert not values_axis(1e-3 * (1 - time), "rate").logarithmic
    assert not values_axis(5e-4 * (1 + np.cos(np.pi * time)), "rate").logarithmic
    plateaus = values_axis(np.repeat([1e-3, 1e-4, 1e-5], 100), "rate")
    assert plateaus.logarithmic and [text for _, text in plateaus.marks] == ["10⁻⁵", "10⁻⁴", "10⁻³"]


def test_small_values_share_a_power_of_ten():
    rates = values_axis([0.0, 5e-5], "learning rate")
    assert rates.title == "learning rate, ×10⁻⁵" and [text for _, text in rates.marks] == ["0", "2", "4"]
    assert rates(0) == BOTTOM and TOP < rates(5e-5) < rates(4e-5)
    assert values_axis([0.0, 0.0], "loss")(0.0) == BOTTOM, "nothing but zeros"


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=50))
def test_every_value_is_inside_and_order_is_kept(values):
    made = values_axis(values, "norm")
    heights = [made(value) for value in sorted(values)]
    assert all(TOP <= height <= BOTTOM for height in heights) and heights == sorted(heights, reverse=True)
    assert 1 <= len(made.marks) <= 7


def test_a_frame_names_itself_and_its_axes():
    x, y = steps_axis(100), linear(0.0, 2.0, "loss")
    name = "a name that is much too long to stand beside what the axis says"
    drawn = ElementTree.fromstring(frame(name, "what it shows", x, y, [], "c3"))
    assert (drawn.get("class"), drawn.get("role"), drawn.get("aria-label")) == ("panel c3", "img", "what it shows")
    texts = {element.get("class"): "".join(element.itertext()) for element in drawn.iter("text")}
    assert texts["name"].startswith(name) and texts["name"].endswith("…"), "whole in its title, cut where it stands"
    words = [element.text for element in drawn.iter("text")]
    assert {"loss", "step", "50", "1.0"} <= set(words)


def test_a_frame_escapes():
    drawn = frame("<b>&", '"<i>"', steps_axis(1), Axis(Scale(0, 1, BOTTOM, TOP), []), [])
    assert "<b>" not in drawn and "<i>" not in drawn


def test_a_band_goes_there_above_and_back_below():
    drawn = ElementTree.fromstring(band([0, 10], [8, 9], [2, 3]))
    assert drawn.get("points") == "0,2 10,3 10,9 0,8" and drawn.get("class") == "band"
