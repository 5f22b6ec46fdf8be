"""Seeds and held-out examples that a study needs to see a difference, and what it would cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from finetune import stats
from finetune.core.errors import bad_input
from finetune.core.run_dir import FORMAT
from finetune.metrics.function import key_of
from finetune.plan import pilot
from finetune.plan.pilot import Cost, Pair
from finetune.stats.families import AllPairs, Family
from finetune.stats.leading import Leader
from finetune.stats.power import ALPHA, POWER, Noise, detectable, examples_needed, seeds_needed

if TYPE_CHECKING:
    from finetune.recipe import Recipe, ResolvedRecipe
    from finetune.results.reading import Study

SUPPOSED = (0.25, 0.5, 1.0, 2.0, 4.0)
"""SDs of one variant's score, in points (without points: in what is to be seen), listed where none is known."""


@dataclass(frozen=True)
class Stated:
    """Noise as a person states it, in the metric's unit."""

    sd: float
    """Over seeds, of one variant's score."""
    churn: float | None = None
    """Share of held-out examples that one of two variants gets right and the other wrong."""


@dataclass(frozen=True)
class Needed:
    """The needs of one pair of variants; SDs are those of the difference of one run a side, in the metric's unit."""

    pair: str
    runs: int | None
    """Of the pilot, a side."""
    sd: float
    sd_corrected: float
    """Without the noise of a test set of this size."""
    example_sd: float | None
    """Of an example's difference; None: not known, so the choice of the examples is left out of every number."""
    examples: int | None
    """Held-out examples that there are; None: not known."""
    seeds: int | None
    """Of each variant; None: no number is enough."""
    seeds_range: tuple[int | None, int | None] | None
    """At the ends of the 95 % interval that the pilot's few runs leave for the SD."""
    seeds_on_these_examples: int | None
    """To see it on exactly these held-out examples, without saying anything of others."""
    examples_needed: int | None
    """The fewest on which any number of seeds is enough; None: not known, or no limit was seen."""
    detectable: float | None
    """What the recipe's own number of seeds would see; None: nothing, however large."""
    seeds_to_lead: int | None = None
    """To see that one of them is the best, where it is so far ahead of all others; None: no number is enough, or what
    is the best is not asked."""

    @property
    def too_small(self) -> bool:
        """Tell whether it is the test set, and not the seeds, that keeps the two from being told apart."""
        return self.seeds is None and self.seeds_on_these_examples is not None


@dataclass(frozen=True)
class Plan:
    """The answer."""

    study: str
    task: str
    metric: str
    detect: float
    comparisons: int
    """Headline comparisons of variants that the report will judge together."""
    judged: str
    """How: alone, or what they share the error with."""
    recipe_seeds: tuple[int, int]
    """Fewest and most that the recipe asks for."""
    source: Literal["pilot", "sd", "nothing"]
    pairs: list[Needed]
    """From nothing: for a range of supposed SDs."""
    costs: list[Cost]
    totals: list[dict[str, Any]] = field(default_factory=list)
    """For the recipe's seeds and for those that are needed."""
    enlarged: dict[str, int | None] | None = None
    """Where the test set is too small: twice the fewest `examples` that could do, and the `seeds` needed on them."""
    alpha: float = ALPHA
    power: float = POWER

    @property
    def seeds(self) -> int | None:
        """Give the seeds that are enough for every pair; None where no number is known to be."""
        return self._for_all([pair.seeds for pair in self.pairs])

    @property
    def seeds_to_lead(self) -> int | None:
        """Give the seeds that are enough to see the best where it is so far ahead of all others; None as above."""
        return self._for_all([pair.seeds_to_lead for pair in self.pairs])

    def _for_all(self, seeds: Sequence[int | None]) -> int | None:
        each = [some for some in seeds if some is not None]
        return max(each) if self.source != "nothing" and len(each) == len(seeds) else None

    def content(self) -> dict[str, Any]:
        """Give every number for a JSON file, in the metric's unit."""
        return {"format": FORMAT, **asdict(self), "seeds": self.seeds, "seeds_to_lead": self.seeds_to_lead}


def plan(
    recipe: ResolvedRecipe,
    detect: float,
    point: float,
    known: Study | Stated | None = None,
    examples: int | None = None,
) -> Plan:
    """Compute what ``recipe`` needs to see a difference of ``detect``, in the unit of its headline metric.

    ``known``: a pilot study that was run, or what a person states; ``examples``: held-out ones, where they are not to
    be those of the pilot or the recipe; ``point``: one point in that unit. Raises InputError for a pilot of another
    metric, or without spread.
    """
    first = recipe.variants[0].recipe
    metric, task = key_of(first.task.metrics[0]), _first_task(first)
    (comparisons, family), seeds = judged_in(recipe), (recipe.until.at_least if recipe.until else len(recipe.seeds))
    examples_here = examples or _examples_of(recipe)
    source: Literal["pilot", "sd", "nothing"] = "pilot"
    costs: list[Cost] = []
    if known is None:
        source, pairs = "nothing", [alike(sd * point) for sd in SUPPOSED]
    elif isinstance(known, Stated):
        if known.churn is not None and examples_here is None:
            found = "--churn needs the number of held-out examples, which the recipe does not say"
            raise bad_input(None, found, "give --examples too")
        source, pairs = "sd", [alike(known.sd, examples_here, known.churn)]
    else:
        _same_metric(known, metric)
        task = known.data["tasks"][0]["name"]
        pairs, costs = pilot.pairs(known, examples, first.scoring.baseline), pilot.costs(recipe, known)
    made = Plan(
        study=recipe.name,
        task=task,
        metric=metric,
        detect=detect,
        comparisons=comparisons,
        judged=str(family),
        recipe_seeds=(seeds, len(recipe.seeds)),
        source=source,
        pairs=[
            needed(pair, detect, family, seeds, held) for pair, held in zip(pairs, _pooled(pairs, family), strict=True)
        ],
        costs=costs,
    )
    wanted = {*made.recipe_seeds, *([made.seeds] if made.seeds else [])}
    return replace(
        made,
        totals=[total(costs, some) for some in sorted(wanted)] if costs else [],
        enlarged=_enlarged(made, pairs, family) if any(each.too_small for each in made.pairs) else None,
    )


def _pooled(pairs: Sequence[Pair], family: Family) -> list[Noise]:
    """The noise that each pair will be judged with: where variants are pooled, no less than the mean of a pilot's."""
    known = len(pairs) > 2 and all(pair.runs is not None for pair in pairs)
    if not known or not isinstance(family, AllPairs) or family.variants < 3:
        return [pair.noise for pair in pairs]
    seeds, both = (
        math.sqrt(sum(getattr(pair.noise, part) ** 2 for pair in pairs) / len(pairs)) for part in ("seeds", "both")
    )
    mean = Noise(seeds, 0.0, both)
    sizes = [pair.examples or math.inf for pair in pairs]
    return [
        replace(pair.noise, seeds=seeds, both=both) if mean.seed_part(1, n) > pair.noise.seed_part(1, n) else pair.noise
        for pair, n in zip(pairs, sizes, strict=True)
    ]


def _enlarged(plan: Plan, pairs: Sequence[Pair], family: Family) -> dict[str, int | None]:
    """A test set of twice the least size at which endless seeds would do, and the seeds that all pairs need on it."""
    examples = 2 * max(each.examples_needed or 0 for each in plan.pairs)
    seeds = [
        seeds_needed(plan.detect, noise, examples / pair.size, family=family)
        for pair, noise in zip(pairs, _pooled(pairs, family), strict=True)
    ]
    return {"examples": examples, "seeds": None if None in seeds else max(some for some in seeds if some is not None)}


def _first_task(recipe: Recipe) -> str:
    return "test" if recipe.data.test is not None or recipe.data.split.test else recipe.evaluate[0].name


def _same_metric(study: Study, metric: str) -> None:
    found = study.data["tasks"][0]["headline"] if study.data.get("tasks") else None
    if found is None:
        raise bad_input(None, f"{study.folder.path} has no held-out task yet", "run the pilot first: finetune run")
    if found != metric:
        advice = f"plan with task.metrics=[{found}], or give another pilot"
        raise bad_input("task.metrics", f"begins with '{metric}', and that of the pilot with '{found}'", advice)


def judged_in(recipe: ResolvedRecipe) -> tuple[int, Family]:
    """Count the headline comparisons of variants that are judged together, all pairs or those with the baseline, and
    give their family.

    What needs no tuning is judged apart from them. A single variant is held against one like it, alone.
    """
    variants, baseline = len(recipe.variants), recipe.variants[0].recipe.scoring.baseline
    count = max(1, math.comb(variants, 2) if baseline is None else variants - 1)
    return count, stats.family_of(count, variants if baseline is None else None, recipe.until is not None)


def _examples_of(recipe: ResolvedRecipe) -> int | None:
    """Read how many examples the first evaluation set has; None where the recipe itself does not say it."""
    data = recipe.variants[0].recipe.data
    return int(data.split.test) if data.test is None and data.split.test >= 2 else None


def alike(sd: float, examples: int | None = None, churn: float | None = None) -> Pair:
    """Describe two variants of the same SD whose seeds do not move together.

    ``churn``, the share of examples that one gets right and the other wrong, is the variance of an example's
    difference; none of it is taken to go away with more seeds, which is the worst case.
    """
    return Pair("two variants alike", Noise.of_sd(sd, math.sqrt(churn or 0.0)), examples, churn is not None)


def needed(pair: Pair, detect: float, family: Family, seeds: int, judged_with: Noise | None = None) -> Needed:
    """Compute seeds and examples for one pair, at 80 % power in a paired two-sided test; what ``seeds`` would see.

    ``family`` is what it will be judged together with, and ``judged_with`` the noise, where that is not its own.
    """
    n, noise = pair.examples or math.inf, judged_with or pair.noise
    ends = None
    if pair.runs is not None:
        # Of the seeds' SD alone: that of examples comes from many of them.
        raw = noise.seed_part(1, n)
        low, high = (max(0.0, raw * factor**2 - noise.both**2 / n) for factor in stats.sd_factors(pair.runs))
        ends = (
            seeds_needed(detect, replace(noise, seeds=math.sqrt(low)), n, family=family),
            seeds_needed(detect, replace(noise, seeds=math.sqrt(high)), n, family=family),
        )
    least = examples_needed(detect, noise, family=family) if pair.choice and noise.examples else None
    seen = detectable(noise, max(2, seeds), n, family=family)
    best = Leader(family.variants) if isinstance(family, AllPairs) and family.variants > 2 else None
    return Needed(
        pair=pair.name,
        runs=pair.runs,
        sd=math.sqrt(pair.noise.seed_part(1, n)),
        sd_corrected=pair.noise.seeds,
        example_sd=noise.examples * math.sqrt(pair.size) if pair.choice else None,
        examples=None if pair.examples is None else round(pair.examples * pair.size),
        seeds=seeds_needed(detect, noise, n, family=family),
        seeds_range=ends,
        seeds_on_these_examples=seeds_needed(detect, replace(noise, examples=0.0), n, family=family),
        examples_needed=None if least is None else math.ceil(least * pair.size),
        detectable=seen if math.isfinite(seen) else None,
        seeds_to_lead=None if best is None else seeds_needed(detect, noise, n, family=best),
    )


def total(costs: Sequence[Cost], seeds: int) -> dict[str, Any]:
    """Add up what ``seeds`` of every variant take, memory at the highest; None where one of them is not known."""

    def summed(values: list[Any]) -> Any:
        return None if None in values else seeds * sum(values)

    peaks = [cost.peak_memory_bytes for cost in costs]
    return {
        "seeds": seeds,
        "runs": seeds * len(costs),
        "seconds": summed([cost.seconds for cost in costs]),
        "peak_memory_bytes": None if None in peaks else max(peak for peak in peaks if peak is not None),
        "disk_bytes": summed([cost.disk_bytes for cost in costs]),
    }
