"""A small SVG writer: escaped tags, a linear scale, and round tick values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape


def tag(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """An element. Plain strings are escaped; `class_` and `text_anchor` become `class` and `text-anchor`."""
    pairs = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), short(value))
        for key, value in attributes.items()
        if value is not None
    )
    body = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), pairs, body)


def short(value: str | float) -> str:
    """A coordinate with a tenth of a pixel; text as it is."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def drawing(width: float, height: float, label: str, children: list[Markup], class_: str) -> Markup:
    """The outer element; ``label`` is what a screen reader says and the pointer shows."""
    return tag(
        "svg",
        tag("title", label),
        *children,
        viewBox=f"0 0 {short(width)} {short(height)}",
        role="img",
        aria_label=label,
        class_=class_,
    )


def polyline(points: list[tuple[float, float]], class_: str) -> Markup:
    """A line through points, in pixels."""
    return tag("polyline", points=" ".join(f"{short(x)},{short(y)}" for x, y in points), class_=class_)


def cross(x: float, y: float, title: str, size: float = 4.5) -> Markup:
    """The mark of a failed run."""
    d = f"M{short(x - size)} {short(y - size)}l{2 * size} {2 * size}m0 {-2 * size}l{-2 * size} {2 * size}"
    # The invisible disc makes the thin strokes easy to point at.
    disc = tag("circle", cx=x, cy=y, r=size + 3, fill="transparent")
    return tag("g", tag("title", title), disc, tag("path", d=d), class_="failed")


@dataclass(frozen=True)
class Scale:
    """Maps values linearly from ``low``..``high`` to pixels ``start``..``end``, and keeps them inside."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values inside the range, about ``wanted`` of them, 1, 2 or 5 times a power of ten apart."""
        step = _step((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def decimals(self, wanted: int = 5) -> int:
        """Count the decimals that tell neighbouring ticks apart."""
        return max(0, -math.floor(math.log10(_step((self.high - self.low) / wanted)) + 1e-9))


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
