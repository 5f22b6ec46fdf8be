"""`finetune list`."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


COLUMN = 18
"""Where texts begin, to the right of names."""


def run(args: Namespace) -> int:
    """Show the strategies, tasks, mitigations and metrics there are, each with its file.

    Those of other packages have their package beside them, or the reason for which they cannot be used."""
    from finetune.core.registry import METRICS, MITIGATIONS, STRATEGIES, TASKS, summary

    registries = {"strategies": STRATEGIES, "tasks": TASKS, "mitigations": MITIGATIONS, "metrics": METRICS}
    plugins: dict[str, list[dict[str, Any]]] = {
        heading: [
            {
                "name": name,
                "summary": summary(plugin),
                "file": _shown(registry.file(name)),
                "package": registry.origin(name),
            }
            for name, plugin in registry.all().items()
        ]
        for heading, registry in registries.items()
    }
    left_out = [{"kind": each.kind, **one._asdict()} for each in registries.values() for one in each.left_out]
    if args.json:
        print(json.dumps({**plugins, "left_out": left_out}, indent=2))
        return 0
    for heading, entries in plugins.items():
        print(heading)
        for entry in entries:
            print(_beside(str(entry["name"]), str(entry["summary"])))
            print(" " * COLUMN + ", of ".join(filter(None, (entry["file"], entry["package"]))))
        if not entries:
            print("  none")
    if left_out:
        print("left out")
    for one in left_out:
        print(_beside(one["name"], f"{one['kind']} of {one['package']}: {one['error']}"))
    return 0


def _beside(name: str, text: str) -> str:
    """``text`` in lines that fit, to the right of ``name``, or below it where that is too long."""
    from finetune.cli.output import wrapped

    if 2 + len(name) < COLUMN:
        return wrapped(f"{name:<{COLUMN - 2}}{text}", indent="  ", hanging=" " * COLUMN)
    return f"  {name}\n{wrapped(text, ' ' * COLUMN, ' ' * COLUMN)}"


def _shown(file: Path) -> str:
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
