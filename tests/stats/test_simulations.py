"""scripts/simulate in small: with a known truth, intervals cover it and verdicts are seldom wrong; and its table."""

import re

import numpy as np
import pytest

from finetune.stats import permutation
from scripts import _simulate as simulate
from scripts._simulate import SEEDS, SIMULATIONS, Found, Row, Simulation, bias, main, share, table, write


def run(simulation, n, studies):
    return simulation(n, studies, np.random.default_rng(n))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SIMULATIONS)), ids=[each.title for each in SIMULATIONS])
def test_every_figure_keeps_its_promise_or_says_why_not(number):
    """A fifth of the table's own studies: no figure is outside its promise by more than two standard errors."""
    simulation = SIMULATIONS[number]
    for n, found in simulation.columns(number, 0.2).items():
        for row, figure in zip(simulation.asked, found, strict=True):
            assert row.unless or not row.broken(figure), f"{n} seeds: {row}: {figure}"


@pytest.mark.parametrize(("n", "studies"), [(3, 1000), (5, 1000), (20, 400)])
def test_the_means_interval_covers_93_to_97_in_100(n, studies):
    """The standard error of a share of 95 % is 0.7 points for 1000 studies, and 1.1 for 400."""
    covered, width, in_all, wider = run(simulate.of_scores(simulate._answered(300, 0.02)), n, studies)
    assert 0.93 <= covered.value <= 0.98 and in_all.value >= 0.93
    assert 0 < width.value < wider.value


@pytest.mark.parametrize(("n", "studies"), [(3, 2000), (20, 1000)])
def test_the_corrected_sds_interval_covers_93_to_97_in_100(n, studies):
    """Standard errors of 0.5 and 0.7 points; without the floor, 5 seeds would cover 73 %, and 20 only 34 %."""
    covered, *_ = run(simulate.of_spreads(300, 0.02), n, studies)
    assert 0.93 <= covered.value <= 0.97


def test_the_corrected_variance_is_unbiased_within_2_per_cent():
    """True SD 4 points, noise 2.1: without the floor it would be 28 % too high. The standard error is 0.7 %."""
    _, found, _ = run(simulate.of_spreads(300, 0.04), 20, 4000)
    assert abs(found.value) < 0.02 and found.error < 0.008


def test_own_splits_need_their_correction():
    """Two equal learners on splits of 200 examples: without a correction, three in ten studies tell them apart."""
    covered, wrong = run(simulate.of_splits(200, 0.7), 5, 100)
    assert covered.value >= 0.93 - 2 * covered.error and wrong.value <= 0.06 + 2 * wrong.error


def test_a_figure_is_held_against_its_promise():
    least, between = Row("covers", 0.93), Row("covers", 0.93, 0.97, "few seeds show no tail")
    assert not least.broken(Found(0.92, 0.006)) and least.broken(Found(0.91, 0.006))
    assert between.broken(Found(0.99, 0.005)) and not Row("is wide").broken(Found(9.0, 0.1))
    assert str(least) == "covers: ≥ 93 %" and str(Row("errs", most=0.06)) == "errs: ≤ 6 %"
    assert str(between) == "covers: 93 to 97 % (few seeds show no tail)" and str(Row("is wide")) == "is wide"


def test_relabellings_are_few_only_while_simulating():
    before = permutation.RESAMPLES
    with simulate._few_relabellings():
        assert before > permutation.RESAMPLES
    assert before == permutation.RESAMPLES


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
            (Row("seeds", most=0.5), Row("draws")),
            (100,) * 4,
            lambda n, studies, rng: [share([True] * n), share(rng.random(studies) < 0.5)],
        )
    ]


def test_the_table_has_a_column_for_each_number_of_seeds_and_is_the_same_each_time():
    text = table(small())
    assert text == table(small())
    assert [line.count("|") for line in text.splitlines() if line.startswith("|")] == [len(SEEDS) + 2] * 5
    assert "| **Small** | 100 studies |" in text and "| 20 studies |" in table(small(), scale=0.05)
    assert text.splitlines()[3].count(simulate.BROKEN.strip()) == 3 and simulate.BROKEN not in text.splitlines()[4]
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
