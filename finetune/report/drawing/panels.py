"""Small drawings side by side: a frame with two axes, linear or logarithmic, and what many seeds draw into it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from finetune.core.numbers import count, fixed
from finetune.report.drawing.plots import fit
from finetune.report.drawing.svg import Scale, drawing, short, tag

WIDTH, HEIGHT = 360, 216
LEFT, RIGHT, TOP, BOTTOM = 40, WIDTH - 10, 30, HEIGHT - 34
"""Pixels of a panel, and of the room inside its axes."""

MAX_POINTS = 150
"""Points drawn of one curve; longer ones are averaged over windows of steps."""

MAX_DECADES = 6
"""Decades that a logarithmic axis reaches down from its top."""

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Where values lie, and what is written beside them."""

    scale: Scale
    marks: list[tuple[float, str]]
    """(value, text) of every tick."""
    title: str = ""
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; one outside is held at the edge, and so is one that has no logarithm."""
        if not self.logarithmic:
            return self.scale(value)
        return self.scale(math.log10(value)) if value > 0 else self.scale.start


def steps_axis(last: float) -> Axis:
    """The horizontal axis of steps, from 0 to the last."""
    scale = Scale(0, max(last, 1), LEFT, RIGHT)
    return Axis(scale, [(value, count(value)) for value in scale.ticks(4)], "step")


def values_axis(values: Iterable[float], title: str, logarithmic: bool = True) -> Axis:
    """The vertical axis of ``values``, at least one and none below zero, beginning there; logarithmic where they span
    decades, if it may be.

    They do where a quarter of them is below a tenth of the largest: of a learning rate that falls linearly, or along a
    cosine, fewer are.
    """
    shown = np.array(list(values), dtype=float)
    top = float(shown.max())
    if logarithmic and top > 0 and np.quantile(shown, 0.25) < top / 10:
        return _decades(float(np.quantile(shown[shown > 0], 0.01)), top, title)
    return linear(0.0, top * 1.05 or 1.0, title)


def linear(low: float, high: float, title: str) -> Axis:
    """A vertical axis whose ticks share a power of ten, which the title tells, where they are very large or small."""
    scale = Scale(low, high, BOTTOM, TOP)
    power = math.floor(math.log10(max(abs(low), abs(high))))
    power = 0 if -2 <= power <= 3 else power
    marks = [(value, fixed(value / 10.0**power, max(0, scale.decimals(4) + power))) for value in scale.ticks(4)]
    return Axis(scale, marks, f"{title}, ×{_power_of_ten(power)}" if power else title)


def _decades(low: float, high: float, title: str) -> Axis:
    last = math.ceil(math.log10(high))
    first = max(math.floor(math.log10(low)), last - MAX_DECADES)
    exponents = range(first, last + 1, 1 + (last - first) // 5)
    marks = [(10.0**exponent, _power_of_ten(exponent)) for exponent in exponents]
    return Axis(Scale(first, last, BOTTOM, TOP), marks, f"{title}, log scale", logarithmic=True)


def _power_of_ten(exponent: int) -> str:
    if -2 <= exponent <= 3:
        return fixed(10.0**exponent, max(0, -exponent))
    return f"10{str(exponent).translate(SUPERSCRIPT)}"


def frame(name: str, label: str, x: Axis, y: Axis, parts: Sequence[Markup], class_: str = "") -> Markup:
    """A panel: its name, what its axes say, and ``parts``; ``label`` is what a screen reader says."""
    room = 40 if not y.title else 48 - len(y.title)
    drawn = [tag("text", tag("title", name), fit(name, room), x=0, y=14, class_="name")]
    if y.title:
        drawn.append(tag("text", y.title, x=RIGHT, y=14, text_anchor="end", class_="axis"))
    for value, text in y.marks:
        drawn.append(tag("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), class_="grid"))
        drawn.append(tag("text", text, x=LEFT - 6, y=y(value) + 4, text_anchor="end", class_="tick"))
    for value, text in x.marks:
        drawn.append(tag("text", text, x=x(value), y=HEIGHT - 18, text_anchor="middle", class_="tick"))
    if x.title:
        middle = (LEFT + RIGHT) / 2
        drawn.append(tag("text", x.title, x=middle, y=HEIGHT - 3, text_anchor="middle", class_="axis"))
    return drawing(WIDTH, HEIGHT, label, [*drawn, *parts], f"panel {class_}".strip())


def band(places: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Markup:
    """The room between two lines over the same places, all in pixels."""
    outline = [*zip(places, highs, strict=True), *zip(places[::-1], lows[::-1], strict=True)]
    return tag("polygon", points=" ".join(f"{short(x)},{short(y)}" for x, y in outline), class_="band")


def gathered(curves: Sequence[Points], most: int = MAX_POINTS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Several curves over the same steps: steps (windows,) and values (curves, windows), each the mean of a window of
    neighbouring steps, at most ``most`` of them; NaN where a curve has no step there."""
    every = sorted({step for curve in curves for step, _ in curve})
    place = {step: number for number, step in enumerate(every)}
    size = max(1, -(-len(every) // most))
    windows = -(-len(every) // size)
    sums, counts = (np.zeros((len(curves), windows)) for _ in range(2))
    for row, curve in enumerate(curves):
        for step, value in curve:
            sums[row, place[step] // size] += value
            counts[row, place[step] // size] += 1
    steps = [float(np.mean(every[start : start + size])) for start in range(0, len(every), size)]
    values = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return np.array(steps), values
