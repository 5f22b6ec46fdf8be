"""A metric's values as text: the same on the page, in Markdown and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, isfinite, log10

from finetune.core.numbers import MINUS, NONE, THIN, fixed


@dataclass(frozen=True)
class Unit:
    """The unit in which a metric's values are shown: multiplied, rounded, and followed by a suffix."""

    label: str
    scale: float = 1.0
    decimals: int = 3
    suffix: str = ""
    difference: str = ""
    """Suffix of a difference of two values."""
    point: float | None = None
    """One point, in the metric's own unit; None where "one point" has no meaning."""
    bounds: tuple[float, float] | None = None
    """The lowest and the highest value there can be, in the metric's own unit; None where that is not known."""
    figures: int | None = None
    """Significant digits, in the place of decimals, where the unit is the data's own and values may be of any size."""

    @property
    def is_share(self) -> bool:
        """Tell whether values are shares between 0 and 1."""
        return self.suffix == "%"

    @property
    def heading(self) -> str:
        """The label with its unit, for a table's column whose cells have none."""
        return f"{self.label}, {self.suffix}" if self.suffix else self.label

    def number(self, value: float | None, more: int = 0, signed: bool = False) -> str:
        """Write a bare number; ``more`` adds decimals, which spreads need."""
        return NONE if value is None else fixed(value * self.scale, self._decimals(value) + more, signed)

    def _decimals(self, value: float) -> int:
        if self.figures is None or not value or not isfinite(value):
            return self.decimals
        return max(0, self.figures - 1 - floor(log10(abs(value * self.scale))))

    def value(self, value: float | None) -> str:
        """Write a number with its unit."""
        return self._with(self.number(value), self.suffix)

    def gap(self, value: float | None) -> str:
        """Write a signed difference with its unit."""
        return self._with(self.number(value, signed=True), self.difference)

    def interval(self, bounds: Iterable[float] | None, signed: bool = False) -> str:
        """Write two bare numbers in brackets."""
        if bounds is None:
            return NONE
        low, high = (self._end(bound, signed) for bound in bounds)
        return f"[{low}, {high}]"

    def _end(self, bound: float, signed: bool) -> str:
        """One end; of a difference with its own sign where it is rounded to zero, or a reader would think that zero
        lies outside."""
        text = self.number(bound, signed=signed)
        return text.replace("+", MINUS) if signed and bound < 0 else text

    @staticmethod
    def _with(number: str, suffix: str) -> str:
        return f"{number}{THIN}{suffix}" if suffix and number != NONE else number


def percent(label: str) -> Unit:
    """The unit of a share between 0 and 1, which is shown in percent and compared in points."""
    return Unit(label, scale=100, decimals=1, suffix="%", difference="points", point=0.01, bounds=(0.0, 1.0))
