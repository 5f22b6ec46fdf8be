"""`finetune explain`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finetune.cli.output import wrapped

if TYPE_CHECKING:
    from finetune.core.options import Described
    from finetune.core.registry import Registry

IN_A_RECIPE = {
    "strategy": "strategy: {{type: {}}}",
    "mitigation": "mitigations: [{{type: {}}}]",
    "task": "task: {{type: {}}}",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a strategy, mitigation or task, as `finetune list` names it")


def run(args: Namespace) -> int:
    """Show what a strategy, mitigation or task does, its paper, its options, and when not to use it."""
    from finetune.core.errors import bad_input, did_you_mean
    from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS

    registries = (STRATEGIES, MITIGATIONS, TASKS)
    found = [registry for registry in registries if args.name in registry.all()]
    if not found:
        known = {name for registry in registries for name in registry.all()}
        what = f"there is no strategy, mitigation or task called '{args.name}'"
        raise bad_input(None, what, did_you_mean(args.name, known))
    print("\n\n".join("\n".join(explained(registry, args.name)) for registry in found))
    return 0


def explained(registry: Registry[Any], name: str) -> Iterator[str]:
    """A plug-in's docstring and its options, in lines that fit."""
    from finetune.core.registry import paragraphs

    plugin = registry.get(name)
    schema = plugin.Options.model_json_schema()
    yield f"{registry.kind} {name}"
    yield wrapped(f"in a recipe: {IN_A_RECIPE[registry.kind].format(name)}", "  ", "    ")
    for text in paragraphs(plugin):
        yield "\n" + wrapped(text, "  ", "  ")
    options = [option for option in _options(schema, schema.get("$defs", {})) if option.key != "type"]
    yield "\noptions" if options else "\nno options"
    if options:
        yield wrapped(" ".join(schema["description"].split()), "  ", "  ")
    for option in options:
        default = option.default and ("required" if option.default == "required" else f"default {option.default}")
        yield "\n" + wrapped("; ".join(filter(None, (f"{option.key}: {option.value}", default))), "  ", "    ")
        yield wrapped(option.meaning, "    ", "    ")


def _options(definition: dict[str, Any], definitions: dict[str, Any], at: str = "") -> Iterator[Described]:
    """Every option, each followed by those inside it, with dotted keys."""
    from finetune.core.options import described, references

    for option in described(definition, definitions):
        yield option._replace(key=f"{at}{option.key}")
        for name in references(definition["properties"][option.key]):
            yield from _options(definitions[name], definitions, f"{at}{option.key}.")
