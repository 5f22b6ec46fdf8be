"""Simulates studies whose truth is known, and tabulates how often the statistics of finetune.stats are right.

The same command gives the same table. The ± is one standard error: that of having simulated only so many studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from finetune.stats import (
    SHARE,
    Comparison,
    VariantScores,
    at_chance,
    difference_of,
    estimate,
    expected,
    failure_rate,
    family_of,
    fixed_test_overlap,
    holds_in_all,
    judge,
    own_test_overlap,
    permutation,
    spread,
    stability,
    verdict,
)
from scripts._pages import put

Floats = NDArray[np.float64]

SEEDS = (3, 5, 10, 20)
"""Seeds a variant; a column of the table each."""

MEAN, SD = 0.8, 0.02
"""True mean and SD over seeds of the accuracies that are simulated."""

COLLAPSES, CHANCE = 0.15, 0.5
"""Share of the runs that collapse, where some do, and what they score: the commonest of two labels."""

PAGE = Path(__file__).parents[1] / "finetune" / "stats" / "README.md"
"""Where the table stands."""

BEGIN, END = "<!-- simulations: written by scripts/simulate -->", "<!-- end of simulations -->"

BROKEN = " **!**"
"""Stands behind a figure that is outside its promise by more than two standard errors."""


@dataclass(frozen=True)
class Found:
    """A share, or how far an estimate is from the truth on average as a share of it; and the standard error."""

    value: float
    error: float
    signed: bool = False

    def __str__(self) -> str:
        value = f"{100 * self.value:+.1f}" if self.signed else f"{100 * self.value:.1f}"
        return f"{value} ± {100 * self.error:.1f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Row:
    """A figure of the table, and what is promised of it."""

    what: str
    least: float | None = None
    most: float | None = None
    unless: str = ""
    """Why the promise cannot be kept here; then a figure outside it is no fault."""

    def __str__(self) -> str:
        least, most = (None if end is None else f"{100 * end:g}" for end in (self.least, self.most))
        promise = f"{least} to {most} %" if least and most else f"≥ {least} %" if least else f"≤ {most} %"
        said = self.what if not (least or most) else f"{self.what}: {promise}"
        return f"{said} ({self.unless})" if self.unless else said

    def broken(self, found: Found) -> bool:
        """Tell whether a figure is outside its promise by more than two standard errors."""
        below = self.least is not None and found.value + 2 * found.error < self.least
        return below or (self.most is not None and found.value - 2 * found.error > self.most)


Simulate = Callable[[int, int, np.random.Generator], list[Found]]
"""From seeds a variant, how many studies, and a generator: one number for each row."""


@dataclass(frozen=True)
class Simulation:
    """Some rows of the table, from the same simulated studies."""

    title: str
    asked: tuple[Row, ...]
    studies: tuple[int, ...]
    """For each of ``seeds``: so many that the standard error is small, and the time too."""
    run: Simulate
    seeds: tuple[int, ...] = SEEDS

    @property
    def rows(self) -> tuple[str, ...]:
        """What stands before each row."""
        return tuple(str(row) for row in self.asked)

    def columns(self, number: int, scale: float = 1.0) -> dict[int, list[Found]]:
        """Simulate, with ``scale`` times as many studies: the rows' figures by seeds. ``number`` is its place."""
        with _few_relabellings():
            found = {n: self.run(n, self.count(n, scale), np.random.default_rng((number, n))) for n in self.seeds}
        return {n: figures[: len(self.asked)] for n, figures in found.items()}

    def count(self, n: int, scale: float) -> int:
        """How many studies of ``n`` seeds to simulate."""
        return max(20, round(self.studies[self.seeds.index(n)] * scale))


@contextmanager
def _few_relabellings() -> Iterator[None]:
    """Let the exact test, which stands beside the verdict and decides nothing, not take most of the time."""
    before, permutation.RESAMPLES = permutation.RESAMPLES, 19
    try:
        yield
    finally:
        permutation.RESAMPLES = before


def share(hits: Sequence[bool]) -> Found:
    """How often something happened; where it always did or never, the error is that of one study more."""
    n, count = len(hits), sum(hits)
    assumed = min(max(count, 1), n - 1) / n
    return Found(count / n, (assumed * (1 - assumed) / n) ** 0.5)


def average(values: Sequence[float]) -> Found:
    """The mean of numbers, and its standard error."""
    return Found(float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5)


def bias(estimates: Sequence[float], truth: float) -> Found:
    """How far the mean of the estimates is from the truth, as a share of it."""
    found = average(np.asarray(estimates) / truth)
    return Found(found.value - 1, found.error, signed=True)


# One variant's scores.


@dataclass(frozen=True)
class Runs:
    """The runs of one variant: of those that work what each made of each example, and how the others failed."""

    scores: Floats
    correct: Floats | None = None
    """(runs, examples), whose means are the scores."""
    failed: tuple[float, ...] = ()
    clusters: NDArray[np.int64] | None = None
    seeds: tuple[int, ...] | None = None
    """Of the runs that work; None: they are numbered."""
    moved: float = 0.0
    """How far all seeds of this study are from the truth, because of what they share."""

    def side(self, first: int = 0) -> VariantScores:
        """The same as a side of a comparison; seeds are numbered from ``first``."""
        seeds = self.seeds or range(first, first + len(self.scores))
        return VariantScores.of(dict(zip(seeds, self.scores.tolist(), strict=True)), self.correct)


Draw = Callable[[np.random.Generator, int], Runs]
"""From a generator and a number of seeds, the runs of one study."""


def _plain(draw: Callable[[np.random.Generator, int], Floats]) -> Draw:
    return lambda rng, n: Runs(draw(rng, n))


def _normal(rng: np.random.Generator, n: int) -> Floats:
    return rng.normal(MEAN, SD, n)


def _of_300(rng: np.random.Generator, n: int) -> Floats:
    return rng.binomial(300, rng.normal(MEAN, SD, n)) / 300


def _skewed(shape: float) -> Callable[[np.random.Generator, int], Floats]:
    """Scores with a tail towards bad ones: a gamma distribution, whose skewness is 2 / sqrt(shape)."""
    return lambda rng, n: MEAN + SD * (shape - rng.gamma(shape, size=n)) / shape**0.5


def _heavy(rng: np.random.Generator, n: int) -> Floats:
    """Student's t with 3 degrees of freedom, whose kurtosis has no end."""
    return MEAN + SD * rng.standard_t(3, n) / 3**0.5


def answers(runs: int, examples: int, true_sd: float, rng: np.random.Generator) -> Floats:
    """Right answers (runs, examples) to easy and hard examples, new ones each time.

    An example's chance p is drawn from Beta(4, 1), whose mean is 0.8. A run is better or worse than that by a normal
    ability times p (1 - p), in units in which abilities of SD ``true_sd`` give true accuracies of SD ``true_sd``.
    """
    return _answers(_chances(examples, rng), rng.normal(0, true_sd, runs), rng)


def _chances(examples: int, rng: np.random.Generator, mean: float = MEAN) -> Floats:
    return rng.beta(5 * mean, 5 * (1 - mean), examples)


def _answers(chance: Floats, ability: Floats, rng: np.random.Generator, mean: float = MEAN) -> Floats:
    average_slope = mean * (1 - mean) * 5 / 6  # the mean of p (1 - p), of such a Beta
    chances = chance + chance * (1 - chance) / average_slope * ability[:, None]
    return (rng.random(chances.shape) < chances).astype(float)


def _answered(examples: int, sd: float, mean: float = MEAN) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> Runs:
        correct = _answers(_chances(examples, rng, mean), rng.normal(0, sd, n), rng, mean)
        return Runs(correct.mean(axis=1), correct)

    return draw


def _clustered(told: bool) -> Draw:
    """Sixty texts with five questions each, alike in how hard they are, and in what a run makes of them."""

    def draw(rng: np.random.Generator, n: int) -> Runs:
        texts = np.repeat(np.arange(60), 5)
        chance, luck = _chances(60, rng), rng.normal(0, 0.1, (n, 60)) + rng.normal(0, SD, (n, 1))
        chances = chance + 7.5 * chance * (1 - chance) * luck
        correct = (rng.random((n, 300)) < chances[:, texts]).astype(float)
        return Runs(correct.mean(axis=1), correct, clusters=texts if told else None)

    return draw


def _collapsing(rng: np.random.Generator, n: int) -> Runs:
    """Runs of which some learn nothing and guess; those that do no better than the commonest label have failed."""
    correct = answers(n, 300, SD, rng)
    guesses = rng.random(n) < COLLAPSES
    correct[guesses] = rng.random((int(guesses.sum()), 300)) < CHANCE
    scores = correct.mean(axis=1)
    failed = np.array([at_chance(score, CHANCE, 300) for score in scores])
    return Runs(scores[~failed], correct[~failed], tuple(scores[failed].tolist()))


def _shared(rng: np.random.Generator, n: int) -> Runs:
    """All seeds train on the same texts, which move them all alike."""
    moved = rng.normal(0, SD)
    return Runs(rng.normal(MEAN + moved, SD, n), moved=moved)


def of_scores(
    draw: Draw,
    true_sd: float | None = None,
    truth: float = MEAN,
    in_all: float | None = None,
    shared: bool = False,
) -> Simulate:
    """How often the interval of the mean of runs that work covers the truth, and that of the expected score; how wide
    both are, in points. With ``true_sd`` that of the SD as well, with ``shared`` the mean's for what all seeds share.
    """
    of_all = truth if in_all is None else in_all

    def simulate(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
        means, joined, wide, wider, sds, new = [], [], [], [], [], []
        for _ in range(studies):
            runs = draw(rng, n)
            one = estimate(runs.scores, 0.95, runs.correct, runs.clusters, SHARE)
            all_runs = expected(runs.scores, runs.failed, CHANCE, runs.correct, runs.clusters, SHARE)
            if one.ci is None or all_runs.ci is None:
                continue  # fewer than two runs work
            means.append(_covers(one.ci, truth + runs.moved))
            new.append(_covers(one.ci, truth))
            joined.append(_covers(all_runs.ci, of_all + runs.moved))
            wide.append(one.ci[1] - one.ci[0])
            wider.append(all_runs.ci[1] - all_runs.ci[0])
            if true_sd:
                sds.append(_covers(one.sd_ci, true_sd))
        found = [share(means), average(wide), share(joined), average(wider)]
        return found + ([share(sds)] if true_sd else []) + ([share(new)] if shared else [])

    return simulate


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


def of_failures(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
    """How often the limit of the failure rate holds, "stable" is said of a variant that is not, and guessing seen."""
    counts = rng.binomial(n, COLLAPSES, studies).tolist()
    more = rng.binomial(n, COLLAPSES + 0.01, studies).tolist()
    rates = {count: failure_rate(count, n) for count in {*counts, *more}}
    guessed = rng.binomial(300, CHANCE, studies) / 300
    return [
        share([(rates[count].limit or 0) >= COLLAPSES for count in counts]),
        share([stability(rates[count]).verdict == "stable" for count in more]),
        share([at_chance(score, CHANCE, 300) for score in guessed]),
    ]


# Variants against each other.


def judged(
    sides: Mapping[str, VariantScores],
    rng: np.random.Generator,
    clusters: NDArray[np.int64] | None = None,
    overlap: float = 0.0,
    sequential: bool = False,
) -> dict[tuple[str, str], Comparison]:
    """Compare all pairs of variants, and judge them together, as a study's results are."""
    names = list(combinations(sides, 2))
    pairs = [difference_of(sides[left], sides[right], rng, clusters, overlap=overlap) for left, right in names]
    family = family_of(len(names), len(sides), sequential)
    means = {name: float(side.scores.mean()) for name, side in sides.items() if len(side)}
    return dict(zip(names, judge(pairs, family, names, means), strict=True))


def _decided(found: Comparison) -> bool:
    return verdict(found) != "undecided"


Variants = Callable[[np.random.Generator, int], dict[str, Runs]]
"""From a generator and a number of seeds, the runs of each variant; those whose names begin alike are equals."""


def of_equals(draw: Variants, difference: float = 0.0) -> Simulate:
    """How often any variants are told apart that are equals, and how often all intervals cover the truth at once.

    Variants whose names begin with `a` are ``difference`` better than the others. Where there are such, also in what
    share of their pairs with the others they are found to be.
    """

    def simulate(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
        wrong, covered, seen, equals = [], [], [], False
        for _ in range(studies):
            runs = draw(rng, n)
            sides = {name: one.side(1000 * (name[1:] == "own seeds")) for name, one in runs.items()}
            clusters = next(iter(runs.values())).clusters
            found = judged(sides, rng, clusters)
            truth = {pair: difference * ((pair[0][0] == "a") - (pair[1][0] == "a")) for pair in found}
            equals = not all(truth.values())
            wrong.append(any(_decided(one) for pair, one in found.items() if not truth[pair]))
            covered.append(all(_covers(one.ci, truth[pair]) for pair, one in found.items() if one.ci))
            seen.append(np.mean([_decided(one) for pair, one in found.items() if truth[pair]] or [0]))
        found = [share(wrong), share(covered), *([average(seen)] if difference else [])]
        return found if equals else found[1:]

    return simulate


def _several(
    count: int, sds: Sequence[float], examples: int | None = None, ahead: float = 0.0, first: int = 0
) -> Variants:
    """``count`` variants with true ``sds``, which repeat; the ``first`` are ``ahead``."""

    def draw(rng: np.random.Generator, n: int) -> dict[str, Runs]:
        chance = None if examples is None else _chances(examples, rng)
        found = {}
        for number in range(count):
            better, sd = ahead * (number < first), sds[number % len(sds)]
            if chance is None:
                runs = Runs(rng.normal(MEAN + better, sd, n))
            else:
                correct = _answers(chance, rng.normal(better, sd, n), rng)
                runs = Runs(correct.mean(axis=1), correct)
            found[f"{'a' if number < first else 'b'}{number}"] = runs
        return found

    return draw


def _tailed(rng: np.random.Generator, n: int) -> dict[str, Runs]:
    return {f"b{number}": Runs(_heavy(rng, n)) for number in range(5)}


def _paired(sds: Sequence[float]) -> Variants:
    """What a seed does to all variants alike, of SD 4 points, and to each of them."""

    def draw(rng: np.random.Generator, n: int) -> dict[str, Runs]:
        alike = rng.normal(MEAN, 2 * SD, n)
        return {f"b{number}": Runs(alike + rng.normal(0, sd, n)) for number, sd in enumerate(sds)}

    return draw


def _uneven(rng: np.random.Generator, n: int) -> dict[str, Runs]:
    """Three variants, of which one has twice as many seeds and one seeds of its own, on the same examples."""
    chance, alike = _chances(300, rng), rng.normal(0, SD, 2 * n)

    def runs(ability: Floats) -> Runs:
        correct = _answers(chance, ability, rng)
        return Runs(correct.mean(axis=1), correct)

    return {
        "b": runs(alike[:n] + rng.normal(0, SD, n)),
        "b twice": runs(alike + rng.normal(0, SD, 2 * n)),
        "bown seeds": runs(rng.normal(0, SD, n)),
    }


def _texts(told: bool) -> Variants:
    """Three variants on sixty texts with five questions each; each variant has texts that it is better at."""

    def draw(rng: np.random.Generator, n: int) -> dict[str, Runs]:
        texts, chance = np.repeat(np.arange(60), 5), _chances(60, rng)
        found = {}
        for number in range(3):
            luck = rng.normal(0, 0.1, 60) + rng.normal(0, SD, (n, 1))
            chances = chance + 7.5 * chance * (1 - chance) * luck
            correct = (rng.random((n, 300)) < chances[:, texts]).astype(float)
            found[f"b{number}"] = Runs(correct.mean(axis=1), correct, clusters=texts if told else None)
        return found

    return draw


def _nearly_perfect(rng: np.random.Generator, n: int) -> dict[str, Runs]:
    """Two variants that have 99.5 % of 1,000 examples right, most of them always, each with some of its own wrong."""
    found = {}
    common = _chances(1000, rng, 0.9975)
    for number in range(2):
        chance = common * _chances(1000, rng, 0.9975)
        correct = (rng.random((n, 1000)) < chance).astype(float)
        found[f"b{number}"] = Runs(correct.mean(axis=1), correct)
    return found


def of_claims(loss: float, both: bool = False) -> Simulate:
    """Two variants, of which one collapses in 15 % of its runs and then scores ``loss`` less than the other does.

    It is so much better when it works that both give the same in all, unless ``both`` collapse and are equals. How
    often "better in all" is said of either; then how often the two that are equals when they work are told apart.
    """

    def simulate(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
        claims, wrong = [], []
        ahead = 0.0 if both else COLLAPSES * loss / (1 - COLLAPSES)
        for _ in range(studies):
            chance = _chances(300, rng)
            runs = [
                _falling(chance, rng, n, better, rate, MEAN - loss)
                for better, rate in ((ahead, COLLAPSES), (0.0, COLLAPSES if both else 0.0))
            ]
            found = judged({"a": runs[0].side(), "b": runs[1].side()}, rng)["a", "b"]
            word = verdict(found)
            winner = runs[0] if word == "better" else runs[1]
            total = len(winner.scores) + len(winner.failed)
            failures = failure_rate(len(winner.failed), total)
            claims.append(
                word != "undecided"
                and found.ci is not None
                and holds_in_all(found.ci, float(winner.scores.mean()), winner.failed, MEAN - loss, failures)
            )
            wrong.append(word != "undecided")
        return [share(claims), *([share(wrong)] if both else [])]

    return simulate


def _falling(chance: Floats, rng: np.random.Generator, n: int, ahead: float, rate: float, low: float) -> Runs:
    """Runs of which some fail and score ``low``, which is seen."""
    works = rng.random(n) >= rate
    correct = _answers(chance, rng.normal(ahead, SD, int(works.sum())), rng)
    failed = tuple([low] * int(n - works.sum()))
    return Runs(correct.mean(axis=1), correct, failed, seeds=tuple(np.flatnonzero(works).tolist()))


def of_stopping(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
    """Seeds are added until three equals are told apart, or there are ``n``: how often that happens.

    And how often the confidence sequence of the first covers the truth, where it ends at less than 4 points of width.
    """
    wrong, covered = [], []
    for _ in range(studies):
        chance = _chances(300, rng)
        every = [_answers(chance, rng.normal(0, SD, n), rng) for _ in range(2)]
        told, interval = False, None
        for seeds in range(3, n + 1):
            sides = {f"b{k}": Runs(one[:seeds].mean(axis=1), one[:seeds]).side() for k, one in enumerate(every)}
            told = told or any(_decided(one) for one in judged(sides, rng, sequential=True).values())
        scores = rng.normal(MEAN, SD, n)
        for seeds in range(3, n + 1):
            interval = estimate(scores[:seeds], sequential=True).ci
            if interval is not None and interval[1] - interval[0] < 2 * SD:
                break
        wrong.append(told)
        covered.append(interval is None or _covers(interval, MEAN))
    return [share(wrong), share(covered)]


# Learners that each seed trains on a part of the data of its own.

FEATURES = 5
TOWARDS = np.full(FEATURES, float(special.ndtri(MEAN)) / FEATURES**0.5)
"""How far the mean of each class is from zero: the best linear classifier is right in :data:`MEAN` of the cases."""


def _cases(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Two learners' features (n, 2 features), and the classes (n,), which are 1 and -1."""
    labels = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    return rng.normal(size=(n, 2 * FEATURES)) + labels[:, None] * np.tile(TOWARDS, 2), labels


def _learn(features: Floats, labels: Floats) -> Floats:
    """Fisher's linear discriminant, by least squares; the last number is the intercept."""
    with_one = np.column_stack([features, np.ones(len(labels))])
    return np.linalg.solve(with_one.T @ with_one + 1e-6 * np.eye(FEATURES + 1), with_one.T @ labels)


def _accuracy(learnt: Floats) -> float:
    """On endless cases."""
    size, towards = np.linalg.norm(learnt[:-1]), learnt[:-1] @ TOWARDS
    return float(special.ndtr((towards + np.array([1, -1]) * learnt[-1]) / size).mean())


@lru_cache
def _true_accuracy(train: int) -> float:
    """Of the learner on ``train`` cases, over all such; the standard error is 0.03 points."""
    rng = np.random.default_rng(train)
    draws = (_cases(rng, train) for _ in range(4000 if train < 500 else 1500))
    return float(np.mean([_accuracy(_learn(features[:, :FEATURES], labels)) for features, labels in draws]))


def of_splits(examples: int, part: float, file: int = 0, unused: float = 0.0) -> Simulate:
    """Each seed trains two learners on a ``part`` of its own of the ``examples``, and scores them on the others, but
    for a share ``unused`` of all, or on a ``file`` of so many examples. The two see other features and are equals.

    How often the mean's interval and that of the difference cover the truth, and how often they are told apart.
    """
    train, test = round(part * examples), round((1 - unused) * examples)

    def simulate(n: int, studies: int, rng: np.random.Generator) -> list[Found]:
        truth, means, wrong = _true_accuracy(train), [], []
        own = own_test_overlap(train, test - train, examples)
        overlap = fixed_test_overlap(train, examples) if file else own
        for _ in range(studies):
            pool, labels = _cases(rng, examples)
            tests = _cases(rng, file) if file else None
            correct: list[list[Floats]] = [[], []]
            for _ in range(n):
                order = rng.permutation(examples)
                ours, others = order[:train], order[train:test]
                at, wanted = tests or (pool[others], labels[others])
                for number, right in enumerate(correct):
                    seen = slice(number * FEATURES, (number + 1) * FEATURES)
                    learnt = _learn(pool[ours, seen], labels[ours])
                    right.append(((at[:, seen] @ learnt[:-1] + learnt[-1]) * wanted > 0).astype(float))
            matrices = [np.array(right) for right in correct]
            sides = {
                f"b{k}": Runs(matrix.mean(axis=1), matrix if file else None).side() for k, matrix in enumerate(matrices)
            }
            one = sides["b0"]
            interval = estimate(one.scores, 0.95, one.contributions, None, SHARE, overlap).ci
            means.append(_covers(interval, truth))
            wrong.append(_decided(judged(sides, rng, overlap=overlap)["b0", "b1"]))
        return [share(means), share(wrong)]

    return simulate


def _covers(interval: tuple[float, float] | None, truth: float) -> bool:
    return interval is not None and interval[0] <= truth <= interval[1]


BINARY_SD = (SD**2 * (1 - 1 / 300) + MEAN * (1 - MEAN) / 300) ** 0.5
"""Of the share of right answers out of 300: the SD of the true accuracy, and the noise of the test set."""

SEEN = (
    "the mean's interval covers",
    "its mean width, in points",
    "the expected score's interval covers",
    "its mean width",
)


def _scores(unless: str = "", and_all: str = "") -> tuple[Row, ...]:
    """The rows of one variant's scores; why the promises of the mean, and of the expected score, cannot be kept."""
    mean, width, joined, wider = SEEN
    return Row(mean, 0.93, 0.97, unless), Row(width), Row(joined, 0.93, unless=and_all), Row(wider)


def _equals(what: str, unless: str = "") -> tuple[Row, ...]:
    return (
        Row(f"{what}: any better or worse", most=0.06, unless=unless),
        Row("all intervals cover at once", 0.94, unless=unless),
    )


SD_COVERS = Row("the SD's interval covers", 0.93, 0.97)
TAIL = "few seeds show no tail"
ALONE = "questions count as if each stood for itself"
CORRECTED = (
    Row("the corrected SD's interval covers", 0.93, 0.97),
    Row("bias of its square, before clipping"),
    Row("bias of the corrected SD"),
)
SPLIT = (Row("the mean's interval covers", 0.93), Row("two equals: better or worse", most=0.06))
CLAIMS = Row("“better in all” is said of either", most=0.05)

IN_ALL = MEAN - COLLAPSES * (MEAN - CHANCE)
"""What a variant gives in all of which some runs collapse."""

MANY, FEWER, FEW = (2000, 2000, 1200, 1200), (800,) * 4, (400, 400, 300, 300)

SIMULATIONS = (
    Simulation("Normal scores", (*_scores(), SD_COVERS), MANY, of_scores(_plain(_normal), SD)),
    Simulation(
        "Right answers of 300, of which only the scores are known",
        (*_scores(), SD_COVERS),
        MANY,
        of_scores(_plain(_of_300), BINARY_SD),
    ),
    Simulation("300 examples, new ones as well", _scores(), FEWER, of_scores(_answered(300, SD))),
    Simulation(
        "99.5 % of 1,000 examples right", _scores(), FEWER, of_scores(_answered(1000, 0.0005, 0.995), truth=0.995)
    ),
    Simulation("Heavy tails (t with 3 degrees of freedom)", _scores(), MANY, of_scores(_plain(_heavy))),
    Simulation(
        "Skewed scores (gamma, skewness 1)",
        (*_scores(), Row("the SD's interval covers")),
        MANY,
        of_scores(_plain(_skewed(4)), SD),
    ),
    Simulation(
        "Very skewed scores (exponential, skewness 2)",
        (*_scores(TAIL), Row("the SD's interval covers")),
        MANY,
        of_scores(_plain(_skewed(1)), SD),
    ),
    Simulation("15 % of the runs collapse, 300 examples", _scores(), FEWER, of_scores(_collapsing, in_all=IN_ALL)),
    Simulation("60 texts with five questions each, as groups", _scores(), FEWER, of_scores(_clustered(True))),
    Simulation(
        "The same without groups",
        _scores(ALONE, ALONE),
        FEWER,
        of_scores(_clustered(False)),
    ),
    Simulation(
        "All seeds share a training set, which moves all of them",
        (
            *_scores(),
            Row("the mean's covers that on other training sets", 0.93, unless="one set shows nothing of others"),
        ),
        MANY,
        of_scores(_shared, shared=True),
    ),
    Simulation(
        "15 % of the runs fail",
        (
            Row("the limit of the failure rate holds", 0.95),
            Row("“stable” though 16 % fail", most=0.05),
            Row("a run that guesses on 300 examples counts as failed", 0.95),
        ),
        (10_000,) * 4,
        of_failures,
    ),
    Simulation("300 examples, noise 2.1 points, true SD 2", CORRECTED, (8000, 6000, 4000, 3000), of_spreads(300, SD)),
    Simulation("300 examples, noise 2.1 points, true SD 0.5", CORRECTED[:1], FEWER, of_spreads(300, 0.005)),
    Simulation("3,000 examples, noise 0.7 points, true SD 2", CORRECTED, FEWER, of_spreads(3000, SD)),
    Simulation(
        "Five variants, 300 examples, true SD 2", _equals("ten pairs of equals"), FEW, of_equals(_several(5, [SD], 300))
    ),
    Simulation(
        "Two variants, 300 examples, true SD 2, difference 4 points",
        (Row("the interval covers", 0.93, 0.97), Row("the better one is found")),
        FEWER,
        of_equals(_several(2, [SD], 300, 2 * SD, 1), 2 * SD),
    ),
    Simulation(
        "Five variants, SDs 1 : 3",
        _equals("ten pairs of equals"),
        FEW,
        of_equals(_several(5, [3 * SD, SD, SD, SD, SD])),
    ),
    Simulation(
        "Three variants, SDs 1 : 3", _equals("three pairs of equals"), FEWER, of_equals(_several(3, [3 * SD, SD, SD]))
    ),
    Simulation(
        "Five variants that seeds move alike, SDs 1 : 3 beside it",
        _equals("ten pairs of equals"),
        FEW,
        of_equals(_paired([3 * SD, SD, SD, SD, SD])),
    ),
    Simulation("Five variants, heavy tails", _equals("ten pairs of equals"), FEW, of_equals(_tailed)),
    Simulation("Three variants, unequal numbers of seeds", _equals("three pairs of equals"), FEWER, of_equals(_uneven)),
    Simulation("Three variants, texts as groups", _equals("three pairs of equals"), FEWER, of_equals(_texts(True))),
    Simulation(
        "The same without groups",
        _equals("three pairs of equals", ALONE),
        FEWER,
        of_equals(_texts(False)),
    ),
    Simulation(
        "Two variants, 99.5 % of 1,000 examples right", _equals("two equals"), FEWER, of_equals(_nearly_perfect)
    ),
    Simulation(
        "Fifteen variants, SD 2, one is 5 points better",
        (*_equals("91 pairs of equals"), Row("the better one is found, of its 14 pairs", 0.8)),
        (1000,),
        of_equals(_several(15, [SD], None, 0.05, 1), 0.05),
        (5,),
    ),
    Simulation(
        "Fifteen variants, SD 2, two are 10 points better",
        (*_equals("79 pairs of equals"), Row("the better ones are found, of their 26 pairs", 0.8)),
        (200,),
        of_equals(_several(15, [SD], None, 0.1, 2), 0.1),
        (5,),
    ),
    Simulation(
        "Fifteen variants, SDs 1 : 3",
        _equals("105 pairs of equals"),
        (200,) * 2,
        of_equals(_several(15, [3 * SD, *[SD] * 14])),
        (3, 5),
    ),
    Simulation(
        "Five variants, SDs 1 : 3, two are 20 points better",
        (
            *_equals("four pairs of equals", "few seeds do not show that a leader scatters more"),
            Row("the better ones are found"),
        ),
        FEW,
        of_equals(_several(5, [3 * SD, SD, SD, SD, SD], None, 0.2, 2), 0.2),
    ),
    Simulation("One of two collapses, to 30 points less; both give the same in all", (CLAIMS,), FEWER, of_claims(0.3)),
    Simulation("One of two collapses, to 5 points less; both give the same in all", (CLAIMS,), FEWER, of_claims(0.05)),
    Simulation(
        "Both collapse, to 30 points less",
        (CLAIMS, Row("two equals: better or worse", most=0.06)),
        FEWER,
        of_claims(0.3, both=True),
    ),
    Simulation(
        "Seeds are added until something is known, two variants, 300 examples",
        (Row("two equals: ever better or worse", most=0.06), Row("the sequence covers where it ends", 0.95)),
        (300,) * 4,
        of_stopping,
    ),
    *(
        Simulation(
            f"Own splits of {examples:,} examples, {part:.0%} to train",
            SPLIT,
            (800,) * 3 if examples < 500 else (500,) * 3,
            of_splits(examples, part),
            (3, 5, 10),
        )
        for examples in (200, 1000)
        for part in (0.7, 0.5)
    ),
    *(
        Simulation(
            f"Own {part:.0%} of 200 examples to train, one file of 2,000 to test",
            SPLIT,
            (500,) * 3 if part >= 0.5 else (2000,) * 3,
            of_splits(200, part, 2000),
            (3, 5, 10),
        )
        for part in (0.9, 0.7, 0.5, 0.3, 0.1)
    ),
    *(
        Simulation(
            f"Own {part:.0%} of {examples:,} examples to train, {1 - part - unused:.0%} to test, the others not used",
            SPLIT,
            (2000,) * 3 if examples < 500 else (800,) * 3,
            of_splits(examples, part, unused=unused),
            (3, 5, 10),
        )
        for examples, part, unused in ((200, 0.6, 0.3), (200, 0.3, 0.5), (1000, 0.3, 0.4), (1000, 0.04, 0.71))
    ),
)

NOTE = (
    "In per cent, ± one standard error of the simulation. Intervals are nominally 95 %. **!** stands behind a figure "
    "that is outside its promise by more than two standard errors; where a promise cannot be kept, its row says why."
)


def table(simulations: Sequence[Simulation], scale: float = 1.0) -> str:
    """The table in Markdown; ``scale`` times as many studies as the simulations ask for."""
    lines = ["| | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |", "| --- " + "| ---: " * len(SEEDS) + "|"]
    for number, simulation in enumerate(simulations):
        columns = simulation.columns(number, scale)
        counts = [f"{simulation.count(n, scale):,} studies" if n in columns else "" for n in SEEDS]
        lines.append(f"| **{simulation.title}** | " + " | ".join(counts) + " |")
        for place, row in enumerate(simulation.asked):
            cells = [_cell(row, columns[n][place]) if n in columns else "" for n in SEEDS]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", NOTE])


def _cell(row: Row, found: Found) -> str:
    return f"{found}{BROKEN if row.broken(found) else ''}"


def write(text: str, path: Path) -> None:
    """Put the table between its markers in a file."""
    put(text, path, BEGIN, END)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("scripts/simulate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a thirtieth of the studies: seconds, not minutes")
    parser.add_argument(
        "--into",
        type=Path,
        nargs="?",
        const=PAGE,
        metavar="FILE",
        help="write it there too, between its markers; without FILE: into finetune/stats/README.md",
    )
    chosen = parser.parse_args(arguments)
    found = table(SIMULATIONS, 0.03 if chosen.quick else 1.0)
    print(found)
    if chosen.into:
        write(found, chosen.into)


if __name__ == "__main__":
    main()
