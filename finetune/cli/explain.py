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
    parser.add_argument("name", metavar="NAME", help="a strategy, mitigation or task, a method, or a word of the field")


def run(args: Namespace) -> int:
    """Say what a strategy, mitigation, task or word of the field is, its paper, options, and when not to use it."""
    from finetune.cli.words import WORDS, meant
    from finetune.core.errors import bad_input, did_you_mean
    from finetune.core.registry import MITIGATIONS, STRATEGIES, TASKS

    registries = (STRATEGIES, MITIGATIONS, TASKS)
    word = meant(args.name)
    parts = ["\n".join(in_words(word))] if word else []
    # A word may be a plug-in's name, or another word for it.
    names = dict.fromkeys(name for name in (args.name, word) if name)
    parts += [
        "\n".join(explained(registry, name)) for name in names for registry in registries if name in registry.all()
    ]
    parts = parts or ["\n".join(of_peft(args.name))]
    if not any(parts):
        known = {name for registry in registries for name in registry.all()} | WORDS.keys()
        what = f"there is no strategy, mitigation or task called '{args.name}'"
        raise bad_input(None, what, did_you_mean(args.name, known))
    print("\n\n".join(parts))
    return 0


def in_words(word: str) -> Iterator[str]:
    """A word of the field, and what to write to have what it means, in lines that fit."""
    from finetune.cli.words import WORDS

    entry = WORDS[word]
    yield f"in the field's words: {word}"
    yield wrapped(entry.says, "  ", "  ")
    yield "\n  in a recipe:"
    yield from (f"    {line}" for line in entry.write.splitlines())
    if entry.also:
        yield "\n" + wrapped(f"also called: {', '.join(each.replace('-', ' ') for each in entry.also)}", "  ", "    ")
    yield "\n" + wrapped(f"Source: {entry.source}", "  ", "  ")


def of_peft(name: str) -> Iterator[str]:
    """A method of peft that goes by no word of ours; nothing where there is none."""
    from finetune.core.registry import paragraphs
    from finetune.strategies.adapters.methods import find, known  # brings torch: only for what nobody else knows

    if name not in known():
        return
    config = find(name, "NAME").config
    yield f"method {name} of strategy adapter"
    yield wrapped(f"in a recipe: strategy: {{type: adapter, method: {name}}}", "  ", "    ")
    said = paragraphs(config)[0] if (config.__doc__ or "").strip() else ""
    yield "\n" + wrapped(f"peft's {config.__name__}. {said}".strip(), "  ", "  ")
    yield "\n" + wrapped("Its own options go into strategy.options; see finetune explain adapter.", "  ", "  ")


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
