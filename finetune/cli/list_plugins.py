"""`finetune list`."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: Namespace) -> int:
    """Show the strategies, tasks and mitigations there are, each with its file."""
    from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS, summary

    plugins = {
        heading: [
            {"name": name, "summary": summary(plugin), "file": _shown(registry.file(name))}
            for name, plugin in registry.all().items()
        ]
        for heading, registry in (("strategies", STRATEGIES), ("tasks", TASKS), ("mitigations", MITIGATIONS))
    }
    if args.json:
        print(json.dumps(plugins, indent=2))
        return 0
    from finetune.cli.output import wrapped

    for heading, entries in plugins.items():
        print(heading)
        for entry in entries:
            print(wrapped(f"{entry['name']:<16}{entry['summary']}", indent="  ", hanging=" " * 18))
            print(f"{'':18}{entry['file']}")
        if not entries:
            print("  none")
    return 0


def _shown(file: Path) -> str:
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
