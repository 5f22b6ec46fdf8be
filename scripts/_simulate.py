"""Simulates studies whose truth is known, and tabulates how often the statistics of finetune.stats are right.

The same command gives the same table. The ± is one standard error: that of having simulated only so many studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.stats import VariantScores, compare, estimate, holm, spread, verdict

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

SEEDS = (3, 5, 10, 20)
"""Seeds a variant; a column of the table each."""

MEAN, SD = 0.8, 0.02
"""True mean and SD over seeds of the accuracies that are simulated."""

PAGE = Path(__file__).parents[1] / "finetune" / "stats" / "README.md"
"""Where the table stands."""

BEGIN, END = "<!-- simulations: written by scripts/simulate -->", "<!-- end of simulations -->"


@dataclass(frozen=True)
class Found:
    """A share, or how far an estimate is from the truth on average as a share of it; and the standard error."""

    value: float
    error: float
    signed: bool = False

    def __str__(self) -> str:
        value = f"{100 * self.value:+.1f}" if self.signed else f"{100 * self.value:.1f}"
        return f"{value} ± {100 * self.error:.1f}".replace("-", "\N{MINUS SIGN}")


Simulate = Callable[[int, int, np.random.Generator], list[Found]]
"""From seeds a variant, how many studies, and a generator: one number for each row."""


@dataclass(frozen=True)
class Simulation:
    """Some rows of the table, from the same simulated studies."""

    title: str
    rows: tuple[str, ...]
    studies: tuple[int, ...]
    """For each of :data:`SEEDS`: so many that the standard error is small, and the time too."""
    run: Simulate


def share(hits: Sequence[bool]) -> Found:
    """How often something happened; where it always did or never, the error is that of one study more."""
    n, count = len(hits), sum(hits)
    assumed = min(max(count, 1), n - 1) / n
    return Found(count / n, (assumed * (1 - assumed) / n) ** 0.5)


def bias(estimates: Sequence[float], truth: float) -> Found:
    """How far the mean of the estimates is from the truth, as a share of it."""
    found = np.asarray(estimates) / truth
    return Found(float(found.mean()) - 1, float(found.std(ddof=1)) / len(found) ** 0.5, signed=True)


def _normal(rng: np.random.Generator, n: int) -> Floats:
    return rng.normal(MEAN, SD, n)


def _of_300(rng: np.random.Generator, n: int) -> Floats:
    return rng.binomial(300, rng.normal(MEAN, SD, n)) / 300


def _skewed(shape: float) -> Draw:
    """Scores with a tail towards bad ones: a gamma distribution, whose skewness is 2 / sqrt(shape)."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        return MEAN + SD * (shape - rng.gamma(shape, size=n)) / shape**0.5

    return draw


def of_scores(draw: Draw, true_sd: float = SD) -> Simulate:
    """How often the interval of the mean, and that of the SD, covers the truth."""

    def simulate(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
        found = [estimate(draw(rng, n), rng=rng) for _ in range(studies)]
        return [share([_covers(one.ci, MEAN) for one in found]), share([_covers(one.sd_ci, true_sd) for one in found])]

    return simulate


def answers(runs: int, examples: int, true_sd: float, rng: np.random.Generator) -> Floats:
    """Right answers (runs, examples) to easy and hard examples, new ones each time.

    An example's chance p is drawn from Beta(4, 1), whose mean is 0.8. A run is better or worse than that by a normal
    ability times p (1 - p), in units in which abilities of SD ``true_sd`` give true accuracies of SD ``true_sd``.
    """
    return _answers(_chances(examples, rng), rng.normal(0, true_sd, runs), rng)


def _chances(examples: int, rng: np.random.Generator) -> Floats:
    return rng.beta(4, 1, examples)


def _answers(chance: Floats, ability: Floats, rng: np.random.Generator) -> Floats:
    chances = chance + 7.5 * chance * (1 - chance) * ability[:, None]  # the mean of p (1 - p) is 4/30
    return (rng.random(chances.shape) < chances).astype(float)


def of_spreads(examples: int, true_sd: float) -> Simulate:
    """How often the interval of the corrected SD covers the truth; the bias of its square unclipped, and its own."""

    def simulate(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
        found = [spread(answers(n, examples, true_sd, rng)) for _ in range(studies)]
        across = 1 - 1 / examples
        variances = [((one.sd or 0) ** 2 - (one.sd_floor or 0) ** 2) / across for one in found]
        return [
            share([_covers(one.sd_corrected_ci, true_sd) for one in found]),
            bias(variances, true_sd**2),
            bias([one.sd_corrected or 0.0 for one in found], true_sd),
        ]

    return simulate


def of_comparisons(examples: int, true_sd: float, difference: float) -> Simulate:
    """Five variants of equal worth, all ten pairs compared: how often anything is called better or worse.

    And how often the interval of a difference covers a true one: of the first two, after the first was made better.
    """

    def simulate(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
        decided, covered, seen = [], [], []
        for _ in range(studies):
            chance = _chances(examples, rng)
            sides = [_side(_answers(chance, rng.normal(0, true_sd, n), rng)) for _ in range(5)]
            pairs = [compare(left, right, rng) for left, right in combinations(sides, 2)]
            adjusted = holm([pair.p_value for pair in pairs])
            decided.append(any(verdict(*each) != "undecided" for each in zip(pairs, adjusted, strict=True)))
            better = _side(_answers(chance, rng.normal(difference, true_sd, n), rng))
            found = compare(better, sides[0], rng)
            covered.append(_covers(found.ci, difference))
            seen.append(verdict(found, found.p_value) == "better")
        return [share(decided), share(covered), share(seen)]

    return simulate


def _side(correct: Floats) -> VariantScores:
    return VariantScores.of(dict(enumerate(correct.mean(axis=1))), correct)


def _covers(interval: tuple[float, float] | None, truth: float) -> bool:
    return interval is not None and interval[0] <= truth <= interval[1]


BINARY_SD = (SD**2 * (1 - 1 / 300) + MEAN * (1 - MEAN) / 300) ** 0.5
"""Of the share of right answers out of 300: the SD of the true accuracy, and the noise of the test set."""

MEAN_AND_SD = ("the mean's interval covers", "the SD's interval covers")
CORRECTED = ("the corrected SD's interval covers", "bias of its square, before clipping", "bias of the corrected SD")
COMPARED = ("ten pairs of equals: any better or worse", "the difference's interval covers", "called better on its own")

BOOTSTRAPPED = (10_000, 10_000, 2000, 2000)
MANY, FEWER = (50_000, 30_000, 16_000, 10_000), (10_000, 6000, 3000, 1500)

SIMULATIONS = (
    Simulation("Normal scores", MEAN_AND_SD, BOOTSTRAPPED, of_scores(_normal)),
    Simulation("Right answers of 300", MEAN_AND_SD, BOOTSTRAPPED, of_scores(_of_300, BINARY_SD)),
    Simulation("Skewed scores (gamma, skewness 1)", MEAN_AND_SD, BOOTSTRAPPED, of_scores(_skewed(4))),
    Simulation("Very skewed scores (exponential, skewness 2)", MEAN_AND_SD, BOOTSTRAPPED, of_scores(_skewed(1))),
    Simulation("300 examples, noise 2.1 points, true SD 2", CORRECTED, MANY, of_spreads(300, 0.02)),
    Simulation("300 examples, noise 2.1 points, true SD 0.5", CORRECTED[:1], FEWER, of_spreads(300, 0.005)),
    Simulation("3,000 examples, noise 0.7 points, true SD 2", CORRECTED, FEWER, of_spreads(3000, 0.02)),
    Simulation("300 examples, true SD 2, difference 4 points", COMPARED, (1000,) * 4, of_comparisons(300, 0.02, 0.04)),
    Simulation(
        "3,000 examples, true SD 0.5, difference 1 point", COMPARED, (500,) * 4, of_comparisons(3000, 0.005, 0.01)
    ),
)


def table(simulations: Sequence[Simulation], scale: float = 1.0) -> str:
    """The table in Markdown; ``scale`` times as many studies as the simulations ask for."""
    lines = ["| | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |", "| --- " + "| ---: " * len(SEEDS) + "|"]
    for number, simulation in enumerate(simulations):
        studies = [max(20, round(count * scale)) for count in simulation.studies]
        columns = [
            simulation.run(n, count, np.random.default_rng((number, n)))
            for n, count in zip(SEEDS, studies, strict=True)
        ]
        lines.append(f"| **{simulation.title}** | " + " | ".join(f"{count:,} studies" for count in studies) + " |")
        for row, title in enumerate(simulation.rows):
            lines.append(f"| {title} | " + " | ".join(str(column[row]) for column in columns) + " |")
    return "\n".join([*lines, "", "In per cent, ± one standard error of the simulation. Intervals are nominally 95 %."])


def write(text: str, path: Path) -> None:
    """Put the table between its markers in a file."""
    old = path.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{path} has no place for it: it lacks the lines\n{BEGIN}\n{END}")
    before, _, rest = old.partition(BEGIN)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("scripts/simulate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the studies: seconds, not minutes")
    parser.add_argument(
        "--into",
        type=Path,
        nargs="?",
        const=PAGE,
        metavar="FILE",
        help="write it there too, between its markers; without FILE: into finetune/stats/README.md",
    )
    chosen = parser.parse_args(arguments)
    found = table(SIMULATIONS, 0.05 if chosen.quick else 1.0)
    print(found)
    if chosen.into:
        write(found, chosen.into)


if __name__ == "__main__":
    main()
