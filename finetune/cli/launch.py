"""`finetune launch`."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from finetune.cli.arguments import add_recipe


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--on", required=True, choices=("local", "slurm", "kubernetes"), help="what does the runs")
    said = "what the runs ask of a cluster (YAML): partition, gpus, time, ...; see recipes/REFERENCE.md"
    parser.add_argument("--cluster", type=Path, metavar="FILE", help=said)
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted, and submit nothing")


def run(args: Namespace) -> int:
    """Have a study's runs done in the background, by SLURM or by Kubernetes; launched again, those that are left."""
    from finetune.cli.collecting import uncollected
    from finetune.cli.output import shown_aside, wrapped
    from finetune.launch.cluster import read_cluster
    from finetune.launch.launching import LAUNCHERS, launch, plan_launch
    from finetune.recipe import load
    from finetune.recipe.tree import shown

    cluster, recipe = read_cluster(args.cluster), load(args.recipe, args.overrides)
    planned = plan_launch(recipe, args.recipe, args.overrides, args.output, args.on, cluster)
    launcher = LAUNCHERS[args.on]
    if args.dry_run:
        print(launcher.dry_run(planned, range(len(planned.groups))))
        return 0
    notes: list[str] = []
    with uncollected(), shown_aside("checking the recipe and the cluster"):
        launched = launch(recipe, planned, cluster, notes.append)
    for note in notes:
        print(wrapped(note, hanging="  "))
    done = len(launched.submissions[-1].groups)
    print(
        f"{recipe.name}: {done} of {len(launched.groups)} groups of runs are launched, as {launcher.describe(launched)}"
    )
    print(f"finetune status {shlex.quote(shown(launched.study.path))}")
    return 0
