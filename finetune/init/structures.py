"""Tasks that a file's structure gives away: conversations, tags, spans, answers in a context, choices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from finetune.init.columns import Column
from finetune.init.names import hinting, hints
from finetune.init.relations import ALWAYS, as_long, share_within, siblings
from finetune.init.understood import Understood

TAG = re.compile(r"O|[BIESLU]-.+")
ASKS = re.compile(
    r"\?|^(?:who|what|when|where|why|how|which|whose|is|are|was|were|did|does|do|can|in what|at what)\b", re.IGNORECASE
)


def by_structure(columns: Sequence[Column]) -> Iterator[Understood]:
    """Yield what the columns are by their structure, the surest first."""
    detectors: tuple[Callable[[Sequence[Column]], Understood | None], ...] = (
        _conversations,
        _alpaca,
        _tags,
        _spans,
        _choices,
        _answers,
        _preferred_texts,
        _triplets,
    )
    yield from (found for detect in detectors if (found := detect(columns)) is not None)


def _conversations(columns: Sequence[Column]) -> Understood | None:
    lists = [column for column in columns if column.kind == "messages"]
    if not lists:
        return None
    worse = hinting(lists, "rejected")
    better = [column for column in lists if column not in worse]
    if len(lists) == 2 and len(worse) == 1:
        why = f"'{better[0].name}' and '{worse[0].name}' are conversations with a better and a worse end"
        options = {"messages": better[0].name, "rejected": worse[0].name}
        return Understood("chat", options, why, (better[0].name,), (worse[0].name,), preference=True)
    longest = max(lists, key=lambda column: sum(map(len, column.lists)))
    tools = [column.name for column in columns if column.name == "tools"]
    options = {"messages": longest.name, **({"tools": tools[0]} if tools else {})}
    return Understood("chat", options, f"'{longest.name}' holds conversations: lists of turns", (longest.name, *tools))


def _alpaca(columns: Sequence[Column]) -> Understood | None:
    names = {column.name for column in columns if column.kind in ("text", "constant")}
    if not {"instruction", "output"} <= names:
        return None
    asked = tuple(name for name in ("instruction", "input") if name in names)
    return Understood("chat", {}, "instruction and output are known by name, as in Alpaca", asked, ("output",))


def _tags(columns: Sequence[Column]) -> Understood | None:
    lists = [column for column in columns if column.kind == "lists"]
    tags = [
        column
        for column in lists
        if all(TAG.fullmatch(tag) for value in column.lists for tag in value)
        and any(tag != "O" for value in column.lists for tag in value)
    ]
    for tag in sorted(tags, key=lambda column: not hints(column, "label")):
        words = [column for column in lists if column not in tags and as_long(column, tag)]
        if words:
            word = max(words, key=lambda column: len({item for value in column.lists for item in value}))
            why = f"'{tag.name}' has a tag such as {_example(tag)} for each word of '{word.name}'"
            options = {"words": word.name, "tags": tag.name}
            return Understood("token-classification", options, why, (word.name,), (tag.name,))
    return None


def _example(tags: Column) -> str:
    return next(tag for value in tags.lists for tag in value if tag != "O")


def _spans(columns: Sequence[Column]) -> Understood | None:
    for spans in [column for column in columns if column.kind == "spans"]:
        texts = [column for column in columns if column.kind == "text" and _holds(column, spans)]
        if texts:
            text = max(texts, key=lambda column: column.words)
            why = f"'{spans.name}' marks parts of '{text.name}', from a character to another, with a label"
            options = {"text": text.name, "spans": spans.name}
            return Understood("token-classification", options, why, (text.name,), (spans.name,))
    return None


def _holds(text: Column, spans: Column) -> bool:
    """Tell whether the texts are as long as the spans ask for."""
    from finetune.data.json_text import parsed

    rows = [(said, parsed(value)) for said, value in zip(text.texts, spans.values, strict=True) if value]
    ends = [
        (len(said), max(item["end"] if isinstance(item, dict) else item[1] for item in value))
        for said, value in rows
        if value
    ]
    return bool(ends) and all(end <= length for length, end in ends)


LETTERS = "ABCDEFGH"


def _choices(columns: Sequence[Column]) -> Understood | None:
    known = [[column] for column in columns if column.kind in ("lists", "choices")]
    for group in [*known, *siblings([column for column in columns if column.kind == "text"])]:
        if len(group) == 1 and (group[0].kind == "lists" and min(map(len, group[0].lists)) < 2):
            continue
        for answer in [column for column in columns if column not in group]:
            if _answers_choices(group, answer):
                return _chosen(columns, group, answer)
    return None


def _rows_of_choices(group: Sequence[Column]) -> list[list[str]]:
    from finetune.data.json_text import parsed

    if len(group) > 1:
        return [list(row) for row in zip(*(column.texts for column in group), strict=True)]
    values = [parsed(value) or [] for value in group[0].values]
    return [value["text"] if isinstance(value, dict) else value for value in values]


def _answers_choices(group: Sequence[Column], answer: Column) -> bool:
    """Tell whether a column says which of the choices is right: by its text, its letter, its place or its label."""
    rows = _rows_of_choices(group)
    said = [(value, row) for value, row in zip(answer.values, rows, strict=True) if value is not None and value != ""]
    if not said or answer.kind not in ("text", "whole", "flag"):
        return False
    if group[0].kind == "choices":
        labels = [{str(each) for each in value["label"]} for value in group[0].lists]
        if len(labels) == len(answer.given) and all(
            str(v) in each for v, each in zip(answer.given, labels, strict=True)
        ):
            return True
    if answer.kind == "text" and sum(value in row for value, row in said) >= ALWAYS * len(said):
        return True
    sizes = [len(row) for _, row in said]
    if answer.kind == "text":
        return all(
            value.strip().upper() in LETTERS[:size] for (value, _), size in zip(said, sizes, strict=True) if value
        )
    numbers = [int(value) for value, _ in said]
    fits = max(numbers) < max(sizes) if min(numbers) == 0 else min(numbers) == 1 and max(numbers) <= max(sizes)
    return fits and answer.distinct >= min(2, max(sizes)) and len(columns_named(answer)) > 0


def columns_named(answer: Column) -> list[str]:
    """The words by which a column of numbers may name the right choice."""
    return [
        word for word in ("answer", "label", "correct", "gold", "target", "right", "key") if word in answer.name.lower()
    ]


def _chosen(columns: Sequence[Column], group: Sequence[Column], answer: Column) -> Understood | None:
    texts = [each for each in columns if each.kind == "text" and each not in group and each is not answer]
    texts = [each for each in texts if not each.is_id and (each.is_prose or each.words >= 2) and not each.is_category]
    if not texts:
        return None
    asking = [each for each in texts if _asking(each)] or hinting(texts, "asked") or [min(texts, key=lambda e: e.words)]
    question = asking[0]
    context = [each for each in texts if each is not question and each.words > question.words]
    choices = group[0].name if len(group) == 1 else [each.name for each in group]
    shown = choices if isinstance(choices, str) else ", ".join(choices)
    options = {"question": question.name, "choices": choices, "answer": answer.name}
    if context:
        options["context"] = max(context, key=lambda each: each.words).name
    why = f"'{answer.name}' names one of the choices of its row, in {shown}"
    read = (question.name, *([options["context"]] if context else []), *(each.name for each in group))
    return Understood("multiple-choice", options, why, tuple(map(str, read)), (answer.name,))


def _asking(column: Column) -> bool:
    """Tell whether most of its texts are questions."""
    return sum(bool(ASKS.search(text)) for text in column.given) >= 0.5 * max(len(column.given), 1)


def _answers(columns: Sequence[Column]) -> Understood | None:
    texts = [column for column in columns if column.kind == "text" and not column.is_id]
    known = [column for column in columns if column.kind == "answers"]
    for answers in [*known, *texts]:
        others = [column for column in texts if column is not answers and column.words >= 10]
        for context in sorted(others, key=lambda column: -column.words):
            questions = [each for each in texts if each not in (answers, context) and _asking(each)]
            if questions and _parts_of(answers, context):
                question = questions[0]
                why = f"what '{answers.name}' says stands in '{context.name}', and '{question.name}' asks for it"
                options = {"question": question.name, "context": context.name, "answers": answers.name}
                return Understood("question-answering", options, why, (question.name, context.name), (answers.name,))
    return None


def _parts_of(answers: Column, context: Column) -> bool:
    """Tell whether answers are short parts of their contexts."""
    if answers.kind == "answers":
        from finetune.data.json_text import parsed

        rows = [(text, parsed(value)) for text, value in zip(context.texts, answers.values, strict=True)]
        said = [(each, text) for text, value in rows if value for each in value["text"]]
        return bool(said) and sum(each in text for each, text in said) >= ALWAYS * len(said)
    return answers.words <= 0.3 * context.words and share_within(answers, context) >= 0.9


def _preferred_texts(columns: Sequence[Column]) -> Understood | None:
    texts = [column for column in columns if column.kind == "text"]
    better, worse = hinting(texts, "chosen"), hinting(texts, "rejected")
    if len(better) != 1 or len(worse) != 1 or better == worse:
        return None
    rest = [column for column in texts if column not in (*better, *worse) and column.words >= 2 and not column.is_id]
    prompts = hinting(rest, "asked") or rest
    if not prompts:
        return None
    options = {"prompt": prompts[0].name, "completion": better[0].name, "rejected": worse[0].name}
    why = f"'{better[0].name}' and '{worse[0].name}' are a better and a worse answer to '{prompts[0].name}'"
    answers = (better[0].name, worse[0].name)
    return Understood("chat", options, why, (prompts[0].name,), answers, preference=True)


def _triplets(columns: Sequence[Column]) -> Understood | None:
    """Texts of which the second means what the first does, and the third does not: nothing but names tells that."""
    texts = [column for column in columns if column.kind == "text" and column.words >= 2]
    negative, positive = hinting(texts, "negative"), hinting(texts, "positive")
    anchors = [text for text in hinting(texts, "anchor") if text not in (*negative, *positive)]
    if len(negative) != 1 or len(positive) != 1 or not anchors:
        return None
    names = (anchors[0].name, positive[0].name, negative[0].name)
    options = dict(zip(("text", "pair", "negative"), names, strict=True))
    why = f"'{names[1]}' goes with '{names[0]}', and '{names[2]}' does not"
    return Understood("embedding", options, why, names)
