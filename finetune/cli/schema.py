"""`finetune schema`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--results", action="store_true", help="that of results.json instead")
    parser.add_argument("--markdown", action="store_true", help="the reference, for people")


def run(args: Namespace) -> int:
    """Print the JSON schema of recipes, for editors, or of results.json, for programs."""
    if args.results:
        from finetune.results.reference import json_schema, markdown
    else:
        from finetune.recipe import json_schema
        from finetune.recipe.reference import markdown
    print(markdown() if args.markdown else json.dumps(json_schema(), indent=2))
    return 0
