"""`finetune plan`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import add_overrides
from finetune.cli.collecting import uncollected
from finetune.cli.output import fitted, shown_aside, wrapped
from finetune.core.errors import InputError, bad_input
from finetune.metrics.function import key_of

if TYPE_CHECKING:
    from finetune.metrics.unit import Unit
    from finetune.plan.devices import Forecast
    from finetune.plan.planning import Needed, Plan, Stated
    from finetune.recipe import ResolvedRecipe
    from finetune.results.reading import Study

NOTHING = "-"

DISPENSABLE = ("SD of models", "if the SD is off", "these examples", "examples from", "SD")
"""Columns in the order in which a narrow terminal loses them."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE", help="recipe file (YAML), or the folder of a study, its own pilot"
    )
    add_overrides(parser, "have the last word over the recipe and its variants, as in train.epochs=1")
    parser.add_argument(
        "--detect", type=float, metavar="D", help="difference to see, in points or the metric's own unit; default: 1"
    )
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--pilot", type=Path, metavar="STUDY_DIR", help="a small study that was run: runs/topics")
    known.add_argument("--sd", type=float, metavar="X", help="SD over seeds of one variant's score, in the same unit")
    parser.add_argument(
        "--churn", type=float, metavar="PERCENT", help="held-out examples that only one of two variants gets right"
    )
    parser.add_argument("--examples", type=int, metavar="N", help="held-out examples, where not those of the pilot")
    said = "say what the study takes on so many devices like the pilot's: layout, time, memory, energy, price"
    parser.add_argument("--devices", type=int, metavar="N", help=said)
    parser.add_argument("--price", type=float, metavar="X", help="of a device's hour, with --devices")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there too")


def run(args: Namespace) -> int:
    """Say how many seeds and held-out examples it takes to see a difference, and what the study would cost."""
    with uncollected(), shown_aside("planning"):
        from finetune.core.run_dir import StudyDir
        from finetune.metrics import find, unit
        from finetune.plan.planning import plan
        from finetune.recipe import load, read_resolved

        if args.recipe.is_dir():
            recipe = read_resolved(StudyDir(args.recipe).require().resolved, args.overrides)
            if args.sd is None:
                args.pilot = args.pilot or args.recipe
        else:
            recipe = load(args.recipe, args.overrides)
        headline = key_of(recipe.variants[0].recipe.task.metrics[0])
        metric = unit(headline)
        found = find(headline)
        _check(args, metric, found is not None and found.right_or_wrong)
        point = metric.point or 1.0
        detect = (1.0 if args.detect is None else args.detect) * point
        known = _known(args, point)
        made = plan(recipe, detect, point if metric.point else detect, known, args.examples)
        content, laid_out = made.content(), None
        if args.devices is not None:
            from finetune.plan.devices import forecast

            laid_out = forecast(recipe, known, args.devices, args.price)  # type: ignore[arg-type] # which was checked
            content["devices"] = laid_out.content()
    for line in (*_lines(made, metric, recipe), *(_forecast_lines(laid_out) if laid_out else ())):
        print(line)
    if args.json:
        from finetune.core.run_dir import write_json

        write_json(args.json, content)
    return 0


def _check(args: Namespace, metric: Unit, counts: bool) -> None:
    """Refuse numbers that mean nothing, all together."""
    problems = []

    def refuse(option: str, found: str, advice: str) -> None:
        problems.extend(bad_input(None, f"{option} {found}", advice).problems)

    for option in ("detect", "sd"):
        value = getattr(args, option)
        if value is not None and not 0 < value < float("inf"):
            refuse(f"--{option}", f"is {value:g}; it must be greater than 0", "give it in points, as in 1.0")
    if args.detect is None and metric.point is None:
        advice = f"give it in the unit of {metric.label}, as in --detect 0.05"
        refuse("--detect", f"is missing, and {metric.label} has no points of which it could be one", advice)
    if args.examples is not None and args.examples < 2:
        refuse("--examples", f"is {args.examples}; it must be at least 2", "give the number of held-out examples")
    if args.devices is not None and args.devices < 1:
        refuse("--devices", f"is {args.devices}; count from 1", "give the number of devices")
    elif args.devices is not None and args.pilot is None:
        refuse(
            "--devices",
            "is given without --pilot",
            "give a small study of the same variants, as in --pilot runs/topics: it tells what runs take",
        )
    if args.price is not None and args.devices is None:
        refuse("--price", "is given without --devices", "it is the price of a device's hour: say how many devices")
    elif args.price is not None and not 0 < args.price < float("inf"):
        refuse("--price", f"is {args.price:g}; it must be greater than 0", "give the price of a device's hour")
    if args.churn is not None and args.sd is None:
        refuse("--churn", "is given without --sd", "a pilot knows it; without either, give --sd too")
    elif args.churn is not None and not 0 < args.churn <= 100:
        refuse("--churn", f"is {args.churn:g}; it is a share of examples in percent", "give more than 0, at most 100")
    elif args.churn is not None and not counts:
        refuse("--churn", f"is about right and wrong examples, and {metric.label} does not count them", "leave it out")
    if problems:
        raise InputError(problems)


def _known(args: Namespace, point: float) -> Study | Stated | None:
    from finetune.plan.planning import Stated
    from finetune.results.reading import read_study

    if args.pilot:
        return read_study(args.pilot)
    if args.sd is None:
        return None
    return Stated(args.sd * point, None if args.churn is None else args.churn / 100)


def _lines(plan: Plan, metric: Unit, recipe: ResolvedRecipe) -> Iterator[str]:
    """Write all lines that are printed."""
    many = f", {plan.judged}" if plan.comparisons > 1 else ""
    size = _points(plan.detect, metric)
    yield wrapped(
        f"{plan.study}: to see {size} of {metric.label} on {plan.task} with a chance of {plan.power:.0%}, "
        f"two-sided at {100 * plan.alpha:.2g} %{many}"
    )
    yield ""
    rows = [_row(each, plan, metric) for each in plan.pairs]
    told = [name for name in rows[0] if any(row[name] != NOTHING for row in rows)]
    yield from fitted([{name: row[name] for name in told} for row in rows], DISPENSABLE)
    yield ""
    for sentence in (*_answer(plan, metric), *_basis(plan, metric), *_cost_remarks(plan)):
        yield wrapped(sentence, hanging="  ")
    yield ""
    yield from _cost_lines(plan, recipe)


def _row(each: Needed, plan: Plan, metric: Unit) -> dict[str, str]:
    """One pair; or one of the SDs that are supposed, of one variant."""
    if plan.source == "nothing":
        unit = "points" if metric.point else metric.label
        return {f"if the SD were, {unit}": _number(each.sd / 2**0.5, metric), "seeds": _count(each.seeds)}
    low, high = each.seeds_range or (None, None)
    return {
        "pair": each.pair,
        "SD": _number(each.sd, metric),
        "SD of models": NOTHING if plan.source == "sd" else _number(each.sd_corrected, metric),
        "seeds": _count(each.seeds),
        "if the SD is off": f"{_count(low)} to {_count(high)}" if each.seeds_range else NOTHING,
        "these examples": _count(each.seeds_on_these_examples),
        "examples from": NOTHING if each.examples_needed is None else f"{each.examples_needed:,}",
        f"{plan.recipe_seeds[0]} seeds see": NOTHING if each.detectable is None else _number(each.detectable, metric),
    }


def _number(value: float, metric: Unit) -> str:
    return f"{value / (metric.point or 1.0):.3g}"


def _points(value: float, metric: Unit) -> str:
    number = _number(value, metric)
    return number if metric.point is None else f"{number} point{'' if number == '1' else 's'}"


def _count(seeds: int | None) -> str:
    return "none" if seeds is None else f"{seeds:,}"


def _answer(plan: Plan, metric: Unit) -> Iterator[str]:
    """Say how many seeds and examples are needed."""
    from finetune.stats.power import MOST

    if plan.source == "nothing":
        yield (
            "How much seeds move this score is not known, and nothing is assumed of it: the table goes through a range."
            " Run the recipe with a few seeds and plan again with --pilot runs/NAME, or give --sd."
        )
        return
    least, most = plan.recipe_seeds
    asked = f"{least}" if least == most else f"{least} to {most}"
    if plan.seeds:
        most_of = f", which {max(plan.pairs, key=lambda pair: pair.seeds or 0).pair} needs," if plan.pairs[1:] else ""
        yield f"{plan.seeds:,} seeds of each variant{most_of} are enough; the recipe asks for {asked}."
    if plan.seeds_to_lead:
        ahead = _points(plan.detect, metric)
        yield f"To see which is best, {plan.seeds_to_lead:,} are enough where it is {ahead} ahead of all others."
    small = [pair for pair in plan.pairs if pair.too_small]
    if small and plan.enlarged:
        fewest, here = (
            max(getattr(pair, key) for pair in small) for key in ("examples_needed", "seeds_on_these_examples")
        )
        yield (
            f"{', '.join(pair.pair for pair in small)}: no number of seeds is enough on {small[0].examples:,} held-out "
            f"examples, because their choice alone moves the difference too much. At least {fewest:,} are needed; on "
            f"{plan.enlarged['examples']:,}, {_count(plan.enlarged['seeds'])} seeds are enough. On exactly these "
            f"examples, saying nothing of others, {here:,} seeds are."
        )
    beyond = [pair.pair for pair in plan.pairs if pair.seeds is None and not pair.too_small]
    if beyond:
        yield f"{', '.join(beyond)}: this is too little against the SD; over {MOST:,} seeds would be needed."


def _basis(plan: Plan, metric: Unit) -> Iterator[str]:
    """Say what the numbers rest on, and what they leave out."""
    if plan.source == "pilot":
        from finetune.stats import sd_factors

        fewest = min(pair.runs or 2 for pair in plan.pairs)
        low, high = sd_factors(fewest)
        yield (
            "SD is that of the difference of two runs over the pilot's seeds, and SD of models what of it is no "
            f"test-set noise. From {fewest} seeds the true SD may be {low:.2f} to {high:.2f} times as large; what "
            "would be needed then stands under “if the SD is off”."
        )
    else:
        yield (
            "Assumed: variants scatter alike, and their seeds do not move together. "
            + ("SD is that of the difference of two runs." if plan.source == "sd" else "")
        ).rstrip()
    left_out = [pair.pair for pair in plan.pairs if pair.example_sd is None]
    if left_out:
        advice = {
            "pilot": "a pilot of two variants, and a metric to which every example contributes, would tell",
            "sd": "--churn and --examples would tell",
            "nothing": "a pilot would tell",
        }[plan.source]
        which = "" if len(left_out) == len(plan.pairs) else f"{', '.join(left_out)}: "
        yield (
            f"{which}How much the choice of the held-out examples matters is not known and left out, so these seeds "
            f"are for exactly these examples; {advice}."
        )


def _cost_remarks(plan: Plan) -> Iterator[str]:
    unknown = [cost.variant for cost in plan.costs if cost.seconds is None]
    if unknown:
        yield f"The pilot has no run of {', '.join(unknown)}, so what the study takes in all is not known."
    other = [cost.variant for cost in plan.costs if cost.seconds is not None and not cost.same_recipe]
    if other:
        yield f"The pilot trained {', '.join(other)} with other options, so its runs may take more or less than these."


def _cost_lines(plan: Plan, recipe: ResolvedRecipe) -> Iterator[str]:
    """Write time, memory and disk by the pilot; without one, what a check has found."""
    from finetune.core.numbers import memory, seconds

    if not plan.costs:
        yield wrapped("Time, memory and disk are not known without a pilot.")
        yield from _checked(recipe)
        return
    each = [
        (f"a run of {cost.variant}", 1, cost.seconds, cost.peak_memory_bytes, cost.disk_bytes) for cost in plan.costs
    ]
    every = [
        (f"{total['seeds']} seeds", total["runs"], total["seconds"], total["peak_memory_bytes"], total["disk_bytes"])
        for total in plan.totals
    ]
    yield from fitted(
        [
            {"cost": what, "runs": f"{runs:,}", "time": seconds(spent), "memory": memory(peak), "disk": _disk(disk)}
            for what, runs, spent, peak, disk in (*each, *every)
        ],
        ("runs", "memory"),
    )


def _forecast_lines(found: Forecast) -> Iterator[str]:
    """Write what the study takes on several devices."""
    from finetune.core.numbers import memory, seconds

    yield ""
    low, mid, high = (seconds(each) for each in found.seconds)
    parts = [f"{found.layout}: {mid} ({low} to {high})"]
    if found.peak_memory_bytes:
        least, most = map(memory, found.peak_memory_bytes)
        parts.append(f"{most} of memory on each" if least == most else f"{least} to {most} of memory on each")
    if found.joules:
        least, middle, most = (f"{each / 3600:.3g}" for each in found.joules)
        parts.append(f"{middle} Wh ({least} to {most})")
    if found.price:
        least, middle, most = (f"{each:.3g}" for each in found.price)
        parts.append(f"a price of {middle} ({least} to {most})")
    yield wrapped("; ".join(parts) + ". By the pilot's runs; without the start of processes, baselines and the report.")


def _disk(size: float | None) -> str:
    return "–" if size is None else f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _checked(recipe: ResolvedRecipe) -> Iterator[str]:
    """Data and parameters, where `finetune check` has found them and nothing has changed since."""
    from finetune.cli import check_cache

    key = check_cache.key_of(recipe)
    former = check_cache.recall(key) if key else None
    if former is None:
        yield wrapped("`finetune check` tells how many examples there are, and how many parameters learn.")
        return
    yield "data and parameters"
    yield from (wrapped(line, "  ", "    ") for line in former.lines)
