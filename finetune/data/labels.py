"""Labels as a person has to see them: how often each is there, which look alike, and which look like no label."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

MOST = 16
"""Labels that are listed; of more, the commonest and the rarest."""
RAREST = 4
GROUPS = 8
"""Groups of labels that look alike that are listed."""

_ABSENT = """nan none null nil na n/a #n/a #na <na> nat unknown unk undefined unspecified missing empty blank unlabeled
    unlabelled nolabel notlabeled notlabelled notavailable notapplicable tbd todo ? ?? ??? - -- . -1 -99 -999 -9999"""
NO_LABEL = frozenset(_ABSENT.split())
"""What stands for a missing label in files, without spaces and in small letters: of pandas, R, SQL, spreadsheets, GLUE
(-1), and people."""

_INVISIBLE = {*"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0", *map(chr, range(0xFE00, 0xFE10))}
"""Characters that show nothing although their category says otherwise: fillers and variation selectors."""
_ALIKE = str.maketrans("‐‑‒–—―−‘’‚‛“”„аеорсухіјѕԁοανυ", "-------''''\"\"\"aeopcyxijsdoavu")
"""Dashes and quotes of all kinds, and small letters of other alphabets that are drawn as Latin ones."""


def label_lines(counts: Mapping[str, Mapping[str, int]], column: str) -> list[str]:
    """Describe the labels in ``column`` for a check; ``counts`` has, by set of examples, how often each is there."""
    total: Counter[str] = Counter()
    for count in counts.values():
        total.update(count)
    sets = "/".join(counts)

    def shown(label: str) -> str:
        return f"{visible(label)} {'/'.join(f'{count.get(label, 0):,}' for count in counts.values())}"

    ordered = sorted(total, key=natural)
    listing = ", ".join(map(shown, ordered))
    if len(ordered) > MOST:
        ranked = sorted(ordered, key=lambda label: -total[label])
        commonest, rarest = ranked[: MOST - RAREST], ranked[-RAREST:]
        listing = f"{', '.join(map(shown, commonest))}, …; the rarest are {', '.join(map(shown, rarest))}"
    lines = [f"labels: {len(ordered):,} in column '{column}', with their examples in {sets}: {listing}"]
    alike = lookalikes(total)
    for group in alike[:GROUPS]:
        named = ", ".join(f"'{shown_beside(label, group)}' ({total[label]:,} examples)" for label in group)
        lines.append(f"labels that look alike count as different ones: {named}")
    if len(alike) > GROUPS:
        lines.append(f"{len(alike) - GROUPS} more groups of labels look alike")
    lines += [
        f"the label '{visible(label)}' ({total[label]:,} examples) is learnt as a class of its own; {why}"
        for label in ordered
        if (why := _suspicion(label, column))
    ]
    return lines


def relabelled(data: Dataset, column: str, names: Mapping[str, str], path: str) -> Dataset:
    """Give ``data`` with other ``names`` for labels in a ``column``; as texts, which all labels become there.

    Raises:
        InputError: at ``path``, for a name that no label has, or where there is no such column.
    """
    import pyarrow as pa

    from finetune.data.sources import as_dataset, as_table

    table = as_table(data)
    if column not in table.column_names:
        raise bad_input(path, f"there is no column '{column}'", did_you_mean(column, table.column_names))
    labels = [None if value is None else str(value) for value in table[column].to_pylist()]
    there = sorted(set(filter(None, labels)), key=natural)
    for name in names:
        if name not in there:
            advice = did_you_mean(name, there)
            raise bad_input(path, f"no example has the label '{name}' in column '{column}'", advice)
    renamed = pa.array([None if label is None else names.get(label, label) for label in labels], pa.string())
    return as_dataset(table.set_column(table.column_names.index(column), column, renamed))


def natural(label: str) -> tuple[bool, float, str]:
    """Whole numbers in their own order before words in alphabetical order, so that class 10 follows class 9."""
    return (False, float(label), label) if label.removeprefix("-").isdecimal() else (True, 0.0, label)


def lookalikes(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ only in spaces, case, invisible characters, Unicode form, alphabets whose letters
    are drawn alike, or how a number is written."""
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(_folded(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def visible(label: str) -> str:
    """``label`` with code points in place of what cannot be seen, and of spaces at its ends."""
    inner = label.strip(" ")
    start = len(label) - len(label.lstrip(" ")) if inner else 0
    end = len(label) - len(inner) - start
    spaces = _code(" ")
    return spaces * start + "".join(_code(each) if _hidden(each) else each for each in inner) + spaces * end


def shows_nothing(text: str) -> bool:
    """Tell whether nothing of ``text`` can be seen: blanks, zero-width characters, or none at all."""
    return all(each.isspace() or _hidden(each) for each in text)


def shown_beside(label: str, others: Sequence[str]) -> str:
    """:func:`visible`, with code points also of characters beyond ASCII that not all of ``others`` have."""
    common = set.intersection(*map(set, others))
    return "".join(each if each.isascii() or each in common else _code(each) for each in visible(label))


def _code(character: str) -> str:
    return f"<U+{ord(character):04X}>"


def _hidden(character: str) -> bool:
    # Format, control, surrogate, private and unassigned characters; spaces and line ends other than the space.
    unseen = unicodedata.category(character) in ("Cf", "Cc", "Cs", "Co", "Cn", "Zs", "Zl", "Zp")
    return (unseen and character != " ") or character in _INVISIBLE


def _folded(label: str) -> str:
    normal = unicodedata.normalize("NFKC", label).casefold()
    kept = "".join(each for each in normal if not each.isspace() and not _hidden(each)).translate(_ALIKE)
    kept = unicodedata.normalize("NFKC", kept)
    try:
        return f"{float(kept):.17g}" if any(map(str.isdecimal, kept)) and "_" not in kept else kept
    except ValueError:
        return kept


def _suspicion(label: str, column: str) -> str:
    """Tell why a label may be none; empty where nothing speaks for that."""
    folded = "".join(each for each in label.casefold() if not each.isspace() and not _hidden(each))
    if not folded:
        return "nothing of it can be seen"
    if folded in NO_LABEL or _folded(label) in NO_LABEL:
        return "where it stands for a missing one, take its rows out of the data"
    return "it is the column's name, as of a header in the middle of a file" if label.strip() == column else ""
