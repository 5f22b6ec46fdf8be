"""Entities by type, and sentences in which they are marked."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.core.numbers import count
from finetune.metrics.entities import Entity, entities
from finetune.metrics.unit import percent
from finetune.report.blocks import Block, Cell, Column, Fold, Section, Table, Text
from finetune.report.drawing.plots import COLOURS
from finetune.report.sections.cells import legend
from finetune.results.entities import TypeScores, entities_of
from finetune.results.reading import Study
from finetune.results.schema import Results
from finetune.stats import Estimate

SHARE = percent("")

MOST_CHARACTERS = 240
"""Characters shown of a sentence; of a longer one the part from its first mistake on."""

BEFORE = 4
"""Words shown before that mistake."""

INTRO = (
    "An entity counts as found where its words and its type are exactly those wanted. Means over the seeds that work, "
    "with 95 % intervals; types with few entities have wide ones, and what looks best there may be luck."
)

METHODS = [
    (
        "Entities",
        "Tags are read as the script of CoNLL-2003 reads them, which is seqeval's default: an entity begins at B-, and "
        "at an I- that follows O or another type. F1 of all is the micro average. Scores by type are ratios of sums "
        "over examples; their intervals are over new seeds and examples, by influence values (Efron 1982). Words "
        "beyond max_length count as tagged O.",
    )
]
"""(term, sentence) pairs for the section on methods."""


def sections(study: Study, results: Results) -> list[Section]:
    """Write scores by type on the first evaluation set that has tags, the others folded; none without any."""
    found = {task.name: scores for task in results.tasks if (scores := entities_of(study, task, results.level))}
    if not found:
        return []
    first, *others = found
    table = _table(study, found[first])
    blocks: list[Block] = [Text(INTRO, "muted"), table, legend(table.columns)]
    blocks += [Fold(f"Entities on {task}", [_table(study, found[task])]) for task in others]
    return [Section("entities", f"Entities by type on {first}", blocks)]


def _table(study: Study, found: Sequence[TypeScores]) -> Table:
    columns = [
        Column("variant", numeric=False),
        Column("type", numeric=False),
        Column("F1, %", "Twice the entities found, by those said and those wanted together"),
        Column("precision, %", "Of the entities said, how many are wanted; 0 where none is said"),
        Column("recall, %", "Of the entities wanted, how many are said"),
        Column("wanted", "Entities of the type in the references"),
    ]
    colours = {name: index % COLOURS for index, name in enumerate(study.variants)}
    rows = [
        [
            Cell(each.variant, colour=colours.get(each.variant)),
            Cell(each.kind or "all", tone="" if each.kind else "muted"),
            *(_estimate(value) for value in (each.f1, each.precision, each.recall)),
            Cell(count(each.support)),
        ]
        for each in found
    ]
    return Table(columns, rows)


def _estimate(found: Estimate) -> Cell:
    return Cell(SHARE.number(found.mean), SHARE.interval(found.ci) if found.ci else "")


def marked(text: str | None, tags: str, other: str) -> Cell:
    """Show a sentence, whose words have one space between them, with the entities in its ``tags`` marked; ``other``
    tags are those it is held against. Without a text, which words are entities."""
    own = entities(tags.split())
    if text is None:
        return Cell("; ".join(f"{kind}: {_places(first, after)}" for first, after, kind in own) or "none")
    words = text.split(" ")
    start = 0
    if len(text) > MOST_CHARACTERS:
        wrong = set(own) ^ set(entities(other.split()))
        start = max(0, min((first for first, *_ in wrong), default=0) - BEFORE)
    pieces = list(_pieces(words, own, start))
    plain = "".join(f"[{piece}]({mark})" if mark else piece for piece, mark in pieces)
    return Cell(plain, marked=tuple(pieces))


def _pieces(words: Sequence[str], own: Sequence[Entity], start: int) -> list[tuple[str, str]]:
    """Cut ``words`` from ``start`` on into entities, with their type, and what stands between them, with none."""
    found, place, room = ([("… ", "")] if start else []), start, MOST_CHARACTERS
    for first, after, kind in [*(each for each in own if each[1] > start), (len(words), len(words), "")]:
        begin = max(first, place)
        for some, mark in ((words[place:begin], ""), (words[begin:after], kind)):
            said = " ".join(some)
            if said and room < len(said):
                return [*found, (f"{said[:room]}…", mark)]
            found += [(said, mark), (" ", "")] if said else []
            room -= len(said)
        place = max(place, after)
    return found[:-1]


def _places(first: int, after: int) -> str:
    return f"word {first + 1}" if after == first + 1 else f"words {first + 1} to {after}"
