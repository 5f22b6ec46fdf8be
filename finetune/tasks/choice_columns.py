"""The columns of multiple choice: the question, its choices, and how the right one is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from random import Random
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.core.errors import bad_input
from finetune.core.progress import PART
from finetune.data.json_text import parsed

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("text", "label", "index", "number", "letter")
"""How an answer may name a choice, in the order in which they are tried."""

SAID = {
    "text": "the text of a choice",
    "label": "the label that the choices bring",
    "index": "the place of a choice, counted from 0",
    "number": "the place of a choice, counted from 1",
    "letter": "the letter of a choice, A for the first",
}

MOST_CHOICES = 1000
"""Names of choices that a model in use has: questions may have more of them than in training."""

SEED = 0
"""Draws wrong choices: the same for every study."""


class Question(NamedTuple):
    """The contents of one row."""

    question: str
    context: str
    choices: tuple[str, ...]
    labels: tuple[str, ...]
    """What the data call the choices; empty where they do not."""
    answer: Any

    def right(self, form: str) -> int | None:
        """Find the place of the right choice, from 0, if the answer is read as ``form``; None: it names none."""
        said = str(self.answer).strip()
        if form in ("text", "label"):
            known = self.choices if form == "text" else self.labels
            return known.index(said) if said in known else None
        if form == "letter":
            place = ascii_uppercase.find(said.upper()) if len(said) == 1 else -1
        else:
            place = int(said) - (form == "number") if said.isdecimal() else -1
        return place if 0 <= place < len(self.choices) else None


def name_of(place: int) -> str:
    """Call a choice by its letter, from A; past Z by its number, from 1."""
    return ascii_uppercase[place] if place < len(ascii_uppercase) else str(place + 1)


def listed(choices: Sequence[str]) -> str:
    """List ``choices`` with their letters, a line each."""
    return "\n".join(f"{name_of(place)}. {choice}" for place, choice in enumerate(choices))


class ChoiceColumns:
    """Reads the columns that the ``options`` of a multiple choice task name."""

    form: str
    """How answers name the right choice."""
    wider: Mapping[Any, list[str]] | None = None
    """Of the whole set that rows are a part of, the answers to draw from where the part's are too few, by the value of
    `draw_within`; None: the rows are the whole set."""

    def __init__(self, options: Any):
        self.options = options

    def inputs(self) -> list[str]:
        """Name the columns that make two examples the same one."""
        several = [] if self.options.draw else self.options.choices
        named = [several] if isinstance(several, str) else list(several)
        return [self.options.question, *([self.options.context] if self.options.context else []), *named]

    def check(self, data: Dataset, at: str) -> None:
        """Refuse columns that are missing or have gaps, and rows whose choices are none."""
        from finetune.data.columns import refuse_missing, require_text
        from finetune.data.rows import places_of

        require_text(data, self.options.question, at, "task.question")
        if self.options.context:
            require_text(data, self.options.context, at, "task.context")
        for name in self.inputs()[1 + bool(self.options.context) :]:
            refuse_missing(data, name, at, "task.choices")
        refuse_missing(data, self.options.answer, at, "task.answer")
        if self.options.draw_within:
            refuse_missing(data, self.options.draw_within, at, "task.draw_within")
        for where, found in zip(places_of(data, at), self.rows(data, at), strict=True):
            if mistake := _mistake_in(found):
                advice = "correct the row, or take it out of the file"
                raise bad_input("task.choices", f"{where}: {mistake}", advice)

    def rows(self, data: Dataset, at: str) -> list[Question]:
        """Read all rows. Raises InputError for choices that are no list of texts, and where too few can be drawn."""
        from finetune.data.nested import values_of
        from finetune.data.rows import places_of

        options, found = self.options, []
        contexts = data[options.context][:] if options.context else [""] * data.num_rows
        answers = values_of(data, options.answer)
        if options.draw:
            given: Sequence[Any] = self._drawn(data, at)
        elif isinstance(options.choices, str):
            given = list(map(parsed, values_of(data, options.choices)))
        else:
            given = list(zip(*(values_of(data, name) for name in options.choices), strict=True))
        for row in zip(places_of(data, at), data[options.question][:], contexts, given, answers, strict=True):
            where, question, context, choices, answer = row
            texts, labels = _taken_apart(choices)
            if texts is None:
                what = f"{where}: {choices!r:.60} where a list of choices is wanted"
                advice = 'name a column of lists (in csv as JSON: ["a", "b"]), or several columns: [option_a, option_b]'

                raise bad_input("task.choices", what, advice)
            found.append(Question(question, context, texts, labels, answer))
        return found

    def over(self, data: Dataset) -> ChoiceColumns:
        """Give the same columns for rows of ``data``, some at a time."""
        found = copy(self)
        found.wider = self._wider(*self._pooled(data)) if self.options.draw else {}
        return found

    def _pooled(self, data: Dataset) -> tuple[list[Any], list[str]]:
        """Give what rows have in common that are drawn for each other, and their answers."""
        from finetune.data.nested import values_of

        texts = [str(answer).strip() for answer in values_of(data, self.options.answer)]
        within = values_of(data, self.options.draw_within) if self.options.draw_within else [None] * len(texts)
        return list(within), texts

    def _wider(self, within: Sequence[Any], texts: Sequence[str]) -> dict[Any, list[str]]:
        """Find the answers of a whole set, for those values of ``within`` of which some part has too few."""
        parts = [_pools(within[part : part + PART], texts[part : part + PART]) for part in range(0, len(texts), PART)]
        short = {value for pools in parts for value, pool in pools.items() if len(pool) <= self.options.draw}
        return {value: pool for value, pool in (_pools(within, texts) if short else {}).items() if value in short}

    def _drawn(self, data: Dataset, at: str) -> list[list[str]]:
        """Draw wrong choices for each row among the answers of the rows around it, and the right one's place."""
        from finetune.data.rows import places_of

        (within, texts), numbers, found = self._pooled(data), data["example"][:], list[list[str]]()
        wider = self._wider(within, texts) if self.wider is None else self.wider
        for start in range(0, len(texts), PART):  # as rows are encoded, so that each is drawn for alike by itself
            pools = _pools(within[start : start + PART], texts[start : start + PART])
            for row in range(start, min(start + PART, len(texts))):
                rng, pool = Random(f"{SEED} {numbers[row]}"), pools[within[row]]
                if len(pool) <= self.options.draw:
                    pool = wider[within[row]]
                others = [
                    each for each in rng.sample(pool, min(self.options.draw + 1, len(pool))) if each != texts[row]
                ]
                if len(others) < self.options.draw:
                    where = list(places_of(data, at))[row]
                    what = f"{where}: there are {len(pool) - 1} other answers to draw from"
                    advice = f"lower task.draw, which is {self.options.draw}, or leave task.draw_within out"
                    raise bad_input("task.draw", what, advice)
                others = others[: self.options.draw]
                others.insert(rng.randrange(len(others) + 1), texts[row])
                found.append(others)
        return found

    def read(self, sets: dict[str, Dataset]) -> dict[str, list[Question]]:
        """Read the rows of all ``sets``, by their recipe path, and find out how their answers name a choice, which
        has to be the same in all. Raises InputError where one names none, and where they may be read in two ways."""
        found = {at: self.rows(data, at) for at, data in sets.items()}
        every = [row for rows in found.values() for row in rows]
        if self.options.draw:
            self.form = "text"
        elif self.options.answer_is is not None:
            self.form = self.options.answer_is
        else:
            counts = {form: sum(row.right(form) is not None for row in every) for form in FORMS}
            best = max(counts.values())
            likely = [form for form in FORMS if counts[form] == best]
            if len(likely) > 1 and best and self._differ(likely, every):
                ways = f"both as {SAID[likely[0]]} and as {SAID[likely[1]]}"
                advice = f"say which: task.answer_is: {likely[0]} or {likely[1]}"
                raise bad_input(
                    "task.answer", f"all answers in column '{self.options.answer}' can be read {ways}", advice
                )
            self.form = likely[0]
        for at, rows in found.items():
            self._refuse_outside(sets[at], rows, at)
        return found

    @staticmethod
    def _differ(forms: Sequence[str], rows: Sequence[Question]) -> bool:
        """Tell whether two ways to read answers ever name different choices."""
        return any(len({row.right(form) for form in forms}) > 1 for row in rows)

    def right(self, row: Question) -> int:
        """Find the place of a row's right choice, which :meth:`_refuse_outside` has let pass."""
        place = row.right(self.form)
        if place is None:
            raise ValueError("an answer that names no choice was not refused")
        return place

    def told(self, counts: Mapping[int, int]) -> tuple[str, ...]:
        """Tell how answers are read, and, where that is so, that ``counts`` have several numbers of choices, each with
        how many questions have it."""
        notes = [f"answers in column '{self.options.answer}' are read as {SAID[self.form]}"]
        if len(counts) > 1:
            many = ", ".join(f"{number:,} have {count}" for count, number in sorted(counts.items()))
            notes.append(f"questions have different numbers of choices ({many}), so no probabilities are stored")
        return tuple(notes)

    def _refuse_outside(self, data: Dataset, rows: Sequence[Question], at: str) -> None:
        from finetune.data.rows import places_of

        for where, row in zip(places_of(data, at), rows, strict=True):
            if row.right(self.form) is None:
                found = f"{where}: the answer {row.answer!r:.60} is none of its {len(row.choices)} choices"
                advice = f"answers are read as {SAID[self.form]}; correct the row, or write task.answer_is"
                raise bad_input("task.answer", found, advice)


def _pools(within: Sequence[Any], texts: Sequence[str]) -> dict[Any, list[str]]:
    """List the different ``texts`` of each value of ``within``, in their order."""
    pools: dict[Any, dict[str, None]] = {}
    for value, text in zip(within, texts, strict=True):
        pools.setdefault(value, {})[text] = None
    return {value: list(pool) for value, pool in pools.items()}


def _taken_apart(choices: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Give the texts of a row's choices, None where they are no list of values, and their labels, where they have
    some: `{text: [...], label: [...]}`, as ARC and its kin write them."""
    labels: Any = ()
    if isinstance(choices, dict):
        choices, labels = choices.get("text"), choices.get("label") or ()
    lists = all(isinstance(each, list | tuple) for each in (choices, labels))
    if not lists or any(isinstance(each, list | dict) for each in [*choices, *labels]):
        return None, ()
    texts = tuple("" if _absent(each) else str(each).strip() for each in choices)
    return texts, tuple(str(each).strip() for each in labels)


def _absent(value: Any) -> bool:
    return value is None or value != value  # NaN


def _mistake_in(row: Question) -> str | None:
    """Say in words what is wrong with the choices of a question; None when nothing is."""
    choices = row.choices
    if row.labels and len(row.labels) != len(choices):
        return f"has {len(choices)} choices and {len(row.labels)} label{'' if len(row.labels) == 1 else 's'}"
    if len(choices) < 2:
        return f"has {len(choices)} choice{'' if len(choices) == 1 else 's'}, and two or more are needed to choose"
    if "" in choices:
        return f"choice {name_of(choices.index(''))} is empty"
    twice = next((each for place, each in enumerate(choices) if each in choices[:place]), None)
    return None if twice is None else f"the choice {twice!r:.60} is there twice"
