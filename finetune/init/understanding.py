"""From columns to a task: by structure, by an answer beside texts, or by texts alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from finetune.core.errors import bad_input, did_you_mean
from finetune.init.answers import by_answer
from finetune.init.columns import Column
from finetune.init.structures import by_structure
from finetune.init.texts import by_text
from finetune.init.understood import Understood

FEW_EACH = 8
"""Examples of a label up to which a model that writes learns its words sooner than a new head."""


def understand(
    columns: Sequence[Column], family: str | None = None, task: str | None = None, answer: Sequence[str] = ()
) -> Understood:
    """Say what a file of these ``columns`` is for.

    ``family`` is the model's (`encoder`, `decoder`, `encoder-decoder`), where one is given; ``task`` and ``answer``
    (columns) are what a person has said. Raises InputError where nothing fits.
    """
    for each in _readings(columns, family, task, answer):
        found = _fitted(each, columns, family)
        if answer and found.answer != tuple(answer):
            continue
        if task is None or found.task == task or (found := _as_asked(found, task, columns)).task == task:
            return found
    names = ", ".join(f"{column.name} ({column.kind})" for column in columns)
    unknown = [name for name in answer if name not in {column.name for column in columns}]
    if unknown:
        raise bad_input(None, f"there is no column '{unknown[0]}'", did_you_mean(unknown[0], [c.name for c in columns]))
    what = f"from which {task} could be learnt" if task else "with texts to learn from"
    advice = "write the recipe by hand: finetune list names the tasks, and finetune explain what each one needs"
    raise bad_input(None, f"the file has no columns {what}: {names}", advice)


def _readings(
    columns: Sequence[Column], family: str | None, task: str | None, answer: Sequence[str]
) -> Iterator[Understood]:
    """Yield everything that the columns may be for, the likeliest first; each only once it is asked for."""
    yield from by_structure(columns)
    yield from by_answer(columns, answer)
    said = {"embedding": "encoder", "seq2seq": "encoder-decoder", "chat": "decoder"}.get(task or "", family)
    if found := by_text(columns, said):
        yield found


def _as_asked(found: Understood, task: str, columns: Sequence[Column]) -> Understood:
    """Take labels as numbers, numbers as labels, or labels as words, where a person says so and they can be; otherwise
    what was ``found`` stays."""
    options, why = (
        {key: value for key, value in found.options.items() if key not in ("label", "target", "ordinal")},
        "as you said",
    )
    if {found.task, task} == {"classification", "label-words"}:
        return replace(found, task=task, why=why)
    if {found.task, task} == {"classification", "regression"}:
        name = str(found.options.get("label", found.options.get("target")))
        column = next(column for column in columns if column.name == name)
        if column.kind in ("whole", "number", "flag") and (task == "regression" or column.kind != "number"):
            role = "target" if task == "regression" else "label"
            return replace(found, task=task, options={**options, role: name}, why=why)
    return found


def _fitted(found: Understood, columns: Sequence[Column], family: str | None) -> Understood:
    """Let a model that writes choose by the words of labels, where there are few examples of each."""
    if found.task != "classification" or family != "decoder" or set(found.options) != {"text", "label"}:
        return found
    label = next(column for column in columns if column.name == found.options["label"])
    each = len(label.given) / label.distinct
    if label.kind != "text" or each > FEW_EACH:
        return found
    why = f"{found.why}; of {each:.0f} examples each, a model that writes learns the labels' words sooner than a head"
    return replace(found, task="label-words", why=why)
