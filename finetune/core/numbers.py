"""Numbers as text: the same on the page, in Markdown and in the terminal."""

from __future__ import annotations

NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"


def fixed(value: float, decimals: int, signed: bool = False) -> str:
    """Write a number with a true minus sign, thousands apart, and no negative zero."""
    rounded = round(value, decimals) + 0.0
    return f"{rounded:{'+' if signed else ''},.{decimals}f}".replace("-", MINUS)


def exact(value: float) -> str:
    """Write a number with all the digits that tell it from others, and no more where six are enough: 5, and not 5.0."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def p_value(p: float | None) -> str:
    """A p-value with three decimals, of which rounding leaves none that is below 0.05 at 0.050."""
    if p is None:
        return NONE
    rounded = f"{p:.3f}"
    return "< 0.001" if p < 0.001 else "< 0.050" if p < 0.05 and rounded == "0.050" else rounded


def seconds(value: float | None) -> str:
    """A duration: 8.4 s, 75 s, 12 min, 3.4 h."""
    if value is None:
        return NONE
    for limit, divisor, form in ((10, 1, "{:.1f} s"), (120, 1, "{:.0f} s"), (7200, 60, "{:.0f} min")):
        if value < limit:
            return form.format(value / divisor)
    return f"{value / 3600:.1f} h"


def memory(size: float | None) -> str:
    """Write bytes as MB or GB."""
    if size is None:
        return NONE
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """Write a number of parameters: 1,925, 93.2 k, 22.7 M."""
    if value is None:
        return NONE
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):.1f} {suffix}"
    return count(value)


def short_time(value: float | None) -> str:
    """A duration that may be far below a second: 0.84 ms, 12.3 ms, 2.1 s."""
    return seconds(value) if value is None or value >= 1 else f"{_three_digits(1e3 * value)} ms"


def scaled(value: float | None, unit: str) -> str:
    """A quantity with a multiple of its unit: 310 J, 12.5 kJ, 1.84 PFLOP."""
    if value is None:
        return NONE
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{_three_digits(value / 10**power)} {prefix}{unit}"
    return f"{_three_digits(value)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def share(part: float, whole: float) -> str:
    """A percentage with enough digits to be more than zero."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f}{THIN}%" if percent >= 10 else f"{percent:.2g}{THIN}%"


def listing(words: list[str], last: str = "and") -> str:
    """Join words: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
