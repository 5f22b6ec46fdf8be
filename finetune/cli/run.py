"""`finetune run`."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from finetune.cli.arguments import add_recipe


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    said = "do this variant's runs alone, or those of some seeds; other processes may do the others at the same time"
    parser.add_argument("--only", metavar="VARIANT[/SEED,...]", help=said)
    said = "GPUs (without any, shares of the processor's cores) to lay the runs out over; default: all visible GPUs"
    parser.add_argument("--devices", type=int, metavar="N", help=said)
    said = "write what happens as lines of JSON, for programs; what is for people goes to the error stream"
    parser.add_argument("--json", action="store_true", help=said)
    parser.add_argument("--helper", help=SUPPRESS)  # how a process that this one starts is told its part


def run(args: Namespace) -> int:
    """Train every variant of a recipe under every seed, score, and report; run again to resume."""
    if args.helper:
        from finetune.launch.helping import help_with

        help_with(args)
        return 0

    from finetune.cli.collecting import uncollected
    from finetune.cli.live_table import put_above
    from finetune.cli.output import finish, live_progress, print_event

    with live_progress(sys.stderr if args.json else sys.stdout) as progress:
        if args.json:
            progress.listeners.append(print_event)
        with uncollected(), progress.phase("loading the libraries"):
            from finetune.recipe import load

            recipe = load(args.recipe, args.overrides)
            # Only now: it brings torch, and a recipe's mistakes should not wait for it.
            from finetune.launch.placement import find_devices, lay_out
            from finetune.study.running import run_study, runs_left

            devices = find_devices(recipe, args.devices)
        shard = any(variant.recipe.compute.shard for variant in recipe.variants)
        left = runs_left(recipe, args.output, args.only)
        layout, by = lay_out(left, devices, shard, share=args.devices is not None), None
        put_above(progress, layout.devices)
        if layout.devices > 1 and left:
            from finetune.launch.local import run_on

            only = ["--only", args.only] if args.only else []
            command = ["run", str(args.recipe), *args.overrides, "--output", str(args.output), *only]
            progress.say(f"layout: {layout}")
            by = partial(run_on, layout, command)
        outcome = run_study(recipe, args.output, progress, args.only, by)
    return finish(outcome, quiet=args.json)
