"""`finetune schema`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="the recipe reference, for people")


def run(args: Namespace) -> int:
    """Print the JSON schema of recipes, for editors."""
    from finetune.recipe import json_schema
    from finetune.recipe.reference import markdown

    print(markdown() if args.markdown else json.dumps(json_schema(), indent=2))
    return 0
