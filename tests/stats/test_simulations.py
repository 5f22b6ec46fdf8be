"""scripts/simulate in small: with a known truth, intervals cover it and verdicts are seldom wrong; and its table."""

import re

import numpy as np
import pytest

from scripts import _simulate as simulate
from scripts._simulate import SEEDS, Found, Simulation, bias, main, share, table, write


def run(simulation, n, studies):
    return simulation(n, studies, np.random.default_rng(n))


@pytest.mark.parametrize("draw", [simulate._normal, simulate._of_300], ids=["normal", "right answers"])
@pytest.mark.parametrize(("n", "studies"), [(3, 4000), (5, 4000), (10, 1000), (20, 400)])
def test_the_means_interval_covers_93_to_97_in_100(draw, n, studies):
    """The standard error of a share of 95 % is 0.3 points for 4000 studies, 0.7 for 1000 and 1.1 for 400."""
    covered, _ = run(simulate.of_scores(draw), n, studies)
    assert 0.93 <= covered.value <= 0.97


@pytest.mark.parametrize(("n", "studies"), [(3, 2000), (5, 2000), (10, 2000), (20, 1000)])
def test_the_corrected_sds_interval_covers_93_to_97_in_100(n, studies):
    """Standard errors of 0.5 and 0.7 points; without the floor, 5 seeds would cover 73 %, and 20 only 34 %."""
    covered, *_ = run(simulate.of_spreads(300, 0.02), n, studies)
    assert 0.93 <= covered.value <= 0.97


def test_the_corrected_variance_is_unbiased_within_2_per_cent():
    """True SD 4 points, noise 2.1: without the floor it would be 28 % too high. The standard error is 0.7 %."""
    _, found, _ = run(simulate.of_spreads(300, 0.04), 20, 4000)
    assert abs(found.value) < 0.02 and found.error < 0.008


def test_ten_pairs_of_equals_are_seldom_told_apart():
    """At most 5 % of families, and at 200 of them three standard errors (4.6 points) more; without Holm's correction
    it would be 28 %."""
    decided, covered, seen = run(simulate.of_comparisons(300, 0.02, 0.04), 5, 200)
    assert decided.value <= 0.096
    assert covered.value >= 0.90  # 95 % less three standard errors
    assert (
        0.2 < seen.value < 0.6
    )  # and where there is a difference of two SDs, five seeds show it in half of the studies


def test_a_share_and_its_error():
    assert share([True] * 9 + [False]) == Found(0.9, pytest.approx((0.9 * 0.1 / 10) ** 0.5))
    assert share([False] * 10).error == pytest.approx((0.1 * 0.9 / 10) ** 0.5)  # never sure of never
    found = bias([1.0, 3.0], truth=1.0)
    assert (found.value, found.error) == (1.0, pytest.approx(1.0)) and str(found) == "+100.0 ± 100.0"
    assert str(Found(-0.0123, 0.004, signed=True)) == "\N{MINUS SIGN}1.2 ± 0.4"


def small():
    return [
        Simulation(
            "Small",
            ("seeds", "draws"),
            (100,) * 4,
            lambda n, studies, rng: [share([True] * n), share(rng.random(studies) < 0.5)],
        )
    ]


def test_the_table_has_a_column_for_each_number_of_seeds_and_is_the_same_each_time():
    text = table(small())
    assert text == table(small())
    assert [line.count("|") for line in text.splitlines() if line.startswith("|")] == [len(SEEDS) + 2] * 5
    assert "| **Small** | 100 studies |" in text and "| 20 studies |" in table(small(), scale=0.05)
    numbers = re.findall(r"[\d.]+ ±", text.splitlines()[4])
    assert len(numbers) == 4 and len(set(numbers)) > 1  # other draws in each column


def test_the_table_goes_between_its_markers(tmp_path):
    file = tmp_path / "README.md"
    file.write_text(f"before\n{simulate.BEGIN}\nold\n{simulate.END}\nafter\n")
    write("new", file)
    assert file.read_text() == f"before\n{simulate.BEGIN}\n\nnew\n\n{simulate.END}\nafter\n"
    write("new", file)
    assert file.read_text().count("new") == 1
    file.write_text("nothing")
    with pytest.raises(SystemExit, match="lacks the lines"):
        write("new", file)


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(simulate, "SIMULATIONS", small())
    file = tmp_path / "page.md"
    file.write_text(f"{simulate.BEGIN}\n{simulate.END}\n")
    main(["--quick", "--into", str(file)])
    printed = capsys.readouterr().out
    assert "| **Small** | 20 studies |" in printed and printed.strip() in file.read_text()
