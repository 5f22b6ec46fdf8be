"""YAML text to and from a tree whose values know their lines, with the plain scalars of YAML 1.2.

PyYAML reads YAML 1.1, in which `no` is false and `1e-3` is a text. Here only `true` and `false` are truth values,
and a number is what Python would call one. Merge keys (`<<: *base`, from YAML 1.1's type repository) work, as they do
everywhere else: what a section merges stands below its own keys, and knows the lines where it was written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import yaml

from finetune.core.errors import InputError, Problem
from finetune.recipe.tree import Keys, Node, Origin, dotted

_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"

DEEPEST, MOST = 64, 100_000
"""How deep sections and lists may lie in each other, and how many values a text may stand for: aliases of aliases
multiply."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML keeps its table on the class)
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth > DEEPEST:
            found = f"sections and lists lie more than {DEEPEST} deep in each other"
            raise yaml.composer.ComposerError(None, None, found, self.peek_event().start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Texts with line breaks of any kind are escaped: PyYAML would read some of them back as spaces."""
    style = '"' if text and (text.splitlines() != [text] or text == _MERGE) else None
    return dumper.represent_scalar(_TAG + "str", text, style)


_Dumper.add_representer(str, _text)

for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]{1,18}$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    # The dumper shares the table, so that a text which would be read as a number is written in quotes.
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _tag, re.compile(_pattern), _first)

_SCALARS: dict[str, Callable[[str], Any]] = {
    _TAG + "str": str,
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: {"true": True, "false": False}[text.lower()],
    _TAG + "int": int,
    _TAG + "float": float,
}

_ADVICE = (
    ("\\t", "indent with spaces; YAML does not allow tabs"),
    ("mapping values are not allowed", "a text with a colon needs quotes; or a line is indented too far"),
    ("expected a single document", "a recipe is one YAML document; remove the `---` between the two"),
    ("undefined alias", "write the anchor (`&name`) before its alias (`*name`)"),
    ("could not find expected ':'", "write `key: value`, with a colon and a space"),
    ("expected <block end>", "keys of one section must begin in the same column"),
)


def dump(content: Any) -> str:
    """YAML text that :func:`parse` reads back as the same content."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def one_line(value: Any) -> str:
    """A value as a recipe would have it, without line breaks."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def parse(text: str, origin: Callable[[int], Origin]) -> tuple[Node | None, list[Problem]]:
    """The tree in a YAML text (None for an empty one), and the mistakes that still left a tree.

    ``origin`` gives a value's origin from its line, counted from 1. Raises InputError for broken YAML.
    """
    loader = None
    try:
        loader = _Loader(text)  # refuses control characters already
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise InputError(_broken(error, text, origin)) from None
    finally:
        if loader is not None:
            loader.dispose()
    builder = _Builder(origin)
    return (None if root is None else builder.build(root, ())), builder.problems


def _broken(error: yaml.YAMLError, text: str, origin: Callable[[int], Origin]) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line, said = (mark.line + 1 if mark else 1), " ".join(filter(None, (error.context, error.problem)))
    else:  # a character that YAML does not allow; only its position is known
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        said = "there is a control character in it"
    advice = next(
        (hint for sign, hint in _ADVICE if sign in said), "check the indentation, colons, quotes and brackets"
    )
    return Problem(found=f"this is not valid YAML: {said}", advice=advice, where=origin(line).where)


class _Builder:
    """Turns PyYAML's nodes into ours, collecting mistakes."""

    def __init__(self, origin: Callable[[int], Origin]):
        self.origin = origin
        self.problems: list[Problem] = []
        self._built = 0
        self._open: set[int] = set()  # sections being built: an alias to one of them would never end

    def build(self, node: yaml.Node, keys: Keys, line: int | None = None) -> Node:
        origin = self.origin(line or node.start_mark.line + 1)
        self._built += 1
        if self._built > MOST:
            found = f"with its aliases written out, this has more than {MOST:,} values"
            raise InputError(Problem(found, "write what is meant", dotted(keys) or None, origin.where))
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(node, keys, origin), origin)
        if id(node) in self._open:
            self._complain(keys, origin, f"the alias at this place contains itself (line {node.start_mark.line + 1})")
            return Node(None, origin)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self._complain(keys, origin, f"the YAML tag {node.tag} is not allowed here", "write the plain value")
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            content: Any = self._mapping(node, keys)
        else:
            content = tuple(self.build(item, (*keys, index)) for index, item in enumerate(node.value))
        self._open.discard(id(node))
        return Node(content, origin)

    def _mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Node]:
        content: dict[str, Node] = {}
        merged: list[Node] = []
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if isinstance(key, str):
                key = self._whole(key, keys, self.origin(line))
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(keys, self.origin(line), "a key must be a word, not a list or a section")
            elif key in lines:
                found = f"the key '{key}' is written twice in this section, first on line {lines[key]}"
                advice = "keep one of the two" if key != _MERGE else "merge several sections with <<: [*name, *other]"
                self._complain((*keys, key), self.origin(line), found, advice)
            else:
                lines[key] = line
                if key == _MERGE and key_node.style is None:
                    merged = self._merged(value, keys, self.origin(line))
                else:
                    content[key] = self.build(value, (*keys, key), line)
        below = {key: value for section in reversed(merged) for key, value in section.content.items()}
        return below | content

    def _merged(self, node: yaml.Node, keys: Keys, origin: Origin) -> list[Node]:
        """The sections that a merge key names, the one that counts most first."""
        named = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(each, yaml.MappingNode) for each in named):
            advice = "write <<: *name or <<: [*name, *other], where each anchor (&name) stands at a section"
            self._complain(keys, origin, "a merge key (<<) takes sections, and this is none", advice)
            return []
        return [section for each in named if (section := self.build(each, keys)).is_mapping]

    def _scalar(self, node: yaml.ScalarNode, keys: Keys, origin: Origin) -> Any:
        if node.tag not in _SCALARS:
            self._complain(keys, origin, f"the YAML tag {node.tag} is not allowed here", "write the plain value")
            return node.value
        try:
            value = _SCALARS[node.tag](node.value)
        except (ValueError, KeyError):
            self._complain(keys, origin, f"'{node.value}' does not fit its YAML tag", "write the plain value")
            return node.value
        if isinstance(value, float) and not math.isfinite(value):
            self._complain(keys, origin, f"the number {node.value} is too large")
        return self._whole(value, keys, origin) if isinstance(value, str) else value

    def _whole(self, text: str, keys: Keys, origin: Origin) -> str:
        """``text``, which an escape such as `"\\ud83d"` may have given half of a character."""
        whole = text.encode("utf-8", "replace").decode()
        if whole != text:
            self._complain(keys, origin, "this text has half of a surrogate pair", "write the whole character")
        return whole

    def _complain(self, keys: Keys, origin: Origin, found: str, advice: str = "") -> None:
        self.problems.append(Problem(found=found, advice=advice, path=dotted(keys) or None, where=origin.where))
