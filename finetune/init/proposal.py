"""The recipe that is proposed for a file: every choice, with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finetune.init.base_model import Base, proposed
from finetune.init.columns import Column, columns_of
from finetune.init.groups import group_of
from finetune.init.lengths import max_length
from finetune.init.reading import Found
from finetune.init.settings import Settings, settings_for
from finetune.init.understanding import understand
from finetune.init.understood import Understood

WRITES = ("chat", "seq2seq")
TEST, VALIDATION = 0.2, 0.1
"""Shares of the examples that are held out, and that weights are chosen by."""
MOST_TEST, MOST_VALIDATION, MOST_WRITTEN = 2000, 1000, 200
"""Examples that more of would show little more, for what they cost; of answers that are written, which takes long."""
RARE = ["macro_f1", "accuracy", "mcc", "nll"]
"""Metrics where labels are uneven: each label counts the same in the first."""
UNEVEN = 0.7
"""Share of the commonest label from which on accuracy says little."""


@dataclass(frozen=True)
class Wishes:
    """What a person has said, where the proposal is not to decide; None or empty: it is."""

    task: str | None = None
    answer: tuple[str, ...] = ()
    model: str | None = None
    seeds: int | None = None
    group: str | None = None
    """A column; empty: none, whatever repeats."""


@dataclass(frozen=True)
class Proposal:
    """A recipe in sections, and the reason for each, by its dotted path."""

    name: str
    sections: dict[str, Any]
    why: dict[str, str]
    understood: Understood
    columns: Sequence[Column] = field(repr=False)
    notes: Sequence[str] = ()
    """What was decided while the file was read, and columns that are left out."""


def propose(read: Found, name: str, wishes: Wishes) -> Proposal:
    """Propose a recipe called ``name`` for what was ``read``, with what a person wishes."""
    columns = columns_of(read.data)
    given = Base(wishes.model) if wishes.model else None
    found = understand(columns, given.family if given else None, wishes.task, wishes.answer)
    base, why_base = (given, "as you said") if given else proposed(found.task)
    found = _without_unread_tools(found, base)
    group = _group(columns, found, wishes)
    split, why_split = _split(read, columns, found, group)
    length, why_length, all_fit = max_length(columns, found, base)
    held = sum(_count(split.get(part, 0), read.data.num_rows) for part in ("test", "validation"))
    labels = next(
        (each.distinct for each in columns if found.task == "classification" and each.name in found.answer), 0
    )
    settings = settings_for(found, base, read.data.num_rows - held, labels)
    sections = {
        "name": name,
        "seeds": wishes.seeds or settings.sections.pop("seeds"),
        "model": {"source": base.source},
        "data": _data(read, found, split),
        "task": _task(columns, found, base, settings, length, group),
        **{key: value for key, value in settings.sections.items() if key != "seeds"},
    }
    why = {
        **settings.why,
        **({"seeds": "as you said"} if wishes.seeds else {}),
        "model": why_base,
        "data": why_split,
        "task": found.why,
        "task.max_length": why_length,
        **({"task.group": group[1]} if group else {}),
    }
    if found.task == "chat" and not all_fit:  # what is cut loses the end of its answer, or all of it
        sections["task"]["too_long"] = "drop"
        why["task.too_long"] = "an answer that is cut would be learnt without its end"
    if sections["task"].get("metrics") == RARE:
        why["task.metrics"] = (
            f"{_commonest(columns, found):.0%} of the examples have one label, so accuracy says little"
        )
    left = [f"column '{column}' is not read: it {reason}" for column, reason in found.left.items()]
    others = [*_unused(columns, found, group)]
    left += [f"not read either: {', '.join(others)}"] if others else []
    return Proposal(name, sections, why, found, columns, [*read.notes, *left])


def _without_unread_tools(found: Understood, base: Base) -> Understood:
    """Leave out the tools that may be called where the model's chat template does not show them."""
    tools = found.options.get("tools")
    if tools is None or base.reads_tools:
        return found
    options = {key: value for key, value in found.options.items() if key != "tools"}
    left = {**found.left, tools: "holds tools, which the chat template of the model does not show"}
    return replace(found, options=options, inputs=tuple(name for name in found.inputs if name != tools), left=left)


def _group(columns: Sequence[Column], found: Understood, wishes: Wishes) -> tuple[str, str] | None:
    if wishes.group is not None:
        return (wishes.group, "as you said") if wishes.group else None
    return group_of(columns, found)


def _unused(columns: Sequence[Column], found: Understood, group: tuple[str, str] | None) -> Iterator[str]:
    """Name the columns that have no part in the recipe, and what they look like."""
    for column in columns:
        if column.name in {*found.used, *found.left, *(group[:1] if group else ())}:
            continue
        what = "numbers the rows" if column.is_index else "an id" if column.is_id else ""
        what = what or (
            "addresses" if column.is_link else {"constant": "says nothing", "time": "times"}.get(column.kind, "")
        )
        yield f"'{column.name}'" + (f" ({what})" if what else "")


def _count(asked: float, rows: int) -> int:
    return int(asked) if asked >= 1 else math.ceil(asked * rows)


def _split(
    read: Found, columns: Sequence[Column], found: Understood, group: tuple[str, str] | None
) -> tuple[dict[str, Any], str]:
    """Divide the file, as far as no files beside it are held out."""
    rows, written = read.data.num_rows, found.task in WRITES
    split: dict[str, Any] = {}
    most = {"test": MOST_WRITTEN if written else MOST_TEST, "validation": 50 if written else MOST_VALIDATION}
    for part, share in (("test", TEST), ("validation", VALIDATION)):
        if part not in read.beside:
            split[part] = share if share * rows <= most[part] else most[part]
    reasons = [f"{what} are a file beside it" for what in read.beside]
    if split:
        reasons.append(" and ".join(f"{value:g} for {part}" for part, value in split.items()) + " are held out")
    if written:
        reasons.append("few are scored, since writing answers takes long")
    if split and (column := _stratified(columns, found)):
        split["stratify"] = column
        reasons.append("each part has its share of every label")
    if split and group:
        split["group"] = group[0]
        reasons.append(f"no '{group[0]}' is on both sides")
    return split, "; ".join(reasons)


def _stratified(columns: Sequence[Column], found: Understood) -> str | None:
    label = found.options.get("label") if found.task in ("classification", "label-words") else None
    if label is None and found.task == "multi-label-classification" and "separator" not in found.options:
        label = found.options["labels"]
    column = next((column for column in columns if column.name == label), None)
    if column is None:
        return None
    return column.name if column.kind == "lists" or min(column.counts.values()) >= 4 else None


def _data(read: Found, found: Understood, split: dict[str, Any]) -> dict[str, Any]:
    made = {"columns": found.made} if found.made else {}
    data: dict[str, Any] = {"train": {**read.options, **made}}
    for part, options in read.beside.items():
        limit = {"limit": MOST_WRITTEN} if found.task in WRITES and part == "test" else {}
        data[part] = {**options, **made, **limit}
    if split:
        data["split"] = split
    if read.beside and _leaks(read, found):
        data["leaks"] = "drop"
    return data


def _leaks(read: Found, found: Understood) -> bool:
    """Tell whether examples of the files beside it are in the training file too."""
    from finetune.data.checks import overlap
    from finetune.data.options import Source
    from finetune.data.sources import read as load

    others = [load(Source(**options), f"data.{part}", 0) for part, options in read.beside.items()]
    return any(overlap(other, [read.data], found.inputs) for other in others)


def _task(
    columns: Sequence[Column],
    found: Understood,
    base: Base,
    settings: Settings,
    length: int,
    group: tuple[str, str] | None,
) -> dict[str, Any]:
    task: dict[str, Any] = {"type": found.task, **found.options, **settings.task}
    if group:
        task["group"] = group[0]
    if found.task == "seq2seq":
        return {**task, "max_length": length}
    if found.task == "question-answering":
        return {**task, "max_length": min(384, base.positions), "stride": min(128, base.positions // 4)}
    if found.task in ("classification", "label-words") and _commonest(columns, found) > UNEVEN:
        task["metrics"] = RARE
    task["max_length"] = length
    if found.preference:
        task |= {"max_new_tokens": 8, "metrics": ["preference_accuracy", "loss"]}
        task |= {"learn": "last"} if "messages" in task else {}
    elif found.task == "chat":
        task["max_new_tokens"] = _answer_length(columns, found, base)
    return task


def _commonest(columns: Sequence[Column], found: Understood) -> float:
    label = next(column for column in columns if column.name == found.options["label"])
    return max(label.counts.values()) / len(label.given)


def _answer_length(columns: Sequence[Column], found: Understood, base: Base) -> int:
    """Tokens that nearly all answers have at most."""
    answer = next((column for column in columns if found.answer and column.name == found.answer[0]), None)
    if answer is None:
        return 64
    counts = sorted(
        len(ids) for ids in base.tokenizer(answer.texts[:500], add_special_tokens=False, verbose=False)["input_ids"]
    )
    return min(max(8, -(-int(1.1 * counts[int(0.95 * (len(counts) - 1))] + 4) // 8) * 8), 256)
