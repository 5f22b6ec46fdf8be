"""How numbers are written."""

import pytest

from finetune.core.numbers import (
    fixed,
    listing,
    memory,
    p_value,
    scaled,
    seconds,
    share,
    short_count,
    short_time,
)


def test_written_numbers():
    assert fixed(-0.0001, 1) == "0.0" and fixed(-1.25, 1, signed=True).startswith("\u2212")
    assert (p_value(0.0004), p_value(0.0421)) == ("< 0.001", "0.042")
    assert (p_value(0.0498), p_value(0.0502)) == ("< 0.050", "0.050"), "one decides, the other does not"
    assert [seconds(s) for s in (8.44, 75, 720, 12240)] == ["8.4 s", "75 s", "12 min", "3.4 h"]
    assert [short_count(n) for n in (1925, 93189, 22713216, 7e9)] == ["1,925", "93.2 k", "22.7 M", "7.0 B"]
    assert memory(912e6) == "912 MB" and memory(2.5e9) == "2.5 GB"
    assert share(1925, 22713216).startswith("0.0085")
    assert listing(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0, "0.00 J"), (310, "310 J"), (12_500, "12.5 kJ"), (1.84e15, "1.84 PJ"), (3e21, "3,000 EJ")],
)
def test_quantities_have_three_digits(value, said):
    assert scaled(value, "J") == said


@pytest.mark.parametrize(("value", "said"), [(None, "–"), (0.00084, "0.84 ms"), (0.0123, "12.3 ms"), (2.1, "2.1 s")])
def test_short_times(value, said):
    assert short_time(value) == said
