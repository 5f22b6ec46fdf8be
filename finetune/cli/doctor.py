"""`finetune doctor`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from finetune.cli.output import shown_aside, wrapped

SIGNS = {"fine": "ok", "note": "--", "problem": "!!"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path("runs"), metavar="DIR", help="where studies lie; default: runs"
    )
    parser.add_argument("--hub", action="store_true", help="try the hub too: the network is used for nothing else")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for a program")


def run(args: Namespace) -> int:
    """Look at this machine: devices, versions, disks, hub, arithmetic, extras; each problem with what to type."""
    with shown_aside("looking at this machine"):
        from finetune.doctor.examination import examine

        found = [*examine(args.output, args.hub)]
    problems = [each for each in found if each.state == "problem"]
    if args.json:
        print(json.dumps({"problems": len(problems), "findings": [each.to_json() for each in found]}, indent=2))
        return 1 if problems else 0
    about = None
    for each in found:
        if each.about != about:
            print(each.about)
            about = each.about
        print(wrapped(each.found, f"  {SIGNS[each.state]} ", "     "))
        if each.fix:
            print(wrapped(each.fix, "     type: ", "       "))
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}" if problems else "nothing is wrong"
    print("", count, sep="\n")
    return 1 if problems else 0
