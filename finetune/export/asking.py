"""Questions on a study's held-out examples, one way for each kind of task, and what the trained model says to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from finetune.core.errors import bad_input
from finetune.export.asked import choices, heads, spans, texts
from finetune.export.questions import Asked, Asking

if TYPE_CHECKING:
    from finetune.export.asked.rows import Rows
    from finetune.export.trained import Trained

Ask = Callable[["Trained", "Rows", Counter[str]], Iterator[Asked]]

KINDS: dict[str, Ask] = {
    "classification": heads.classified,
    "multi-label-classification": heads.classified,
    "regression": heads.numbers,
    "token-classification": heads.tagged,
    "embedding": heads.embedded,
    "question-answering": spans.answered,
    "multiple-choice": choices.chosen,
    "label-words": choices.labelled,
    "chat": texts.conversed,
    "language": texts.continued,
    "seq2seq": texts.translated,
}
"""By the name of the task. Tasks of other packages are asked as the task of ours that they are a class of."""

WRITES, READS = 100, 500
"""Examples that are asked by default, of tasks that write and of others."""


def kind_of(trained: Trained) -> Ask | None:
    """Find how the task of a trained model is asked; None: there is no way."""
    from finetune.core.registry import TASKS

    known = TASKS.all()
    names = (name for name in KINDS if name in known and isinstance(trained.task, known[name]))
    return next((KINDS[name] for name in names), None)


def ask(trained: Trained, most: int | None = None) -> Asking:
    """Ask the trained model about at most ``most`` held-out examples, evenly spaced; None: as many as are usual.

    Raises :class:`InputError` where nothing is held out on the task that was learnt, or no example can be asked.
    """
    from finetune.export.asked.rows import Rows

    kind, shared = kind_of(trained), trained.data.shared
    if kind is None:
        found = f"task '{trained.task.name}' has no questions that another engine could be asked"
        raise bad_input(None, found, "finetune.load_model opens the run as it is")
    name = next((each for each in shared if shared[each].examples), None)
    if name is None:
        found = "nothing is held out on the task that was learnt, by which an export could be certified"
        raise bad_input(None, found, "give data.split.test, and run the recipe again")
    left_out: Counter[str] = Counter()
    limit = most or (WRITES if trained.writes or trained.generates else READS)
    rows = Rows.of(trained, name, limit)
    asked = list(kind(trained, rows, left_out))
    if not asked:
        why = "; ".join(f"{count} because {reason}" for reason, count in left_out.items())
        raise bad_input(None, f"no held-out example of '{name}' can be asked: {why}", "nothing was written")
    header = {"task": trained.task.name, "set": name, **heads.header(trained), **texts.header(trained)}
    ends = texts.ends(trained, asked)
    return Asking(header, asked, len(shared[name].examples), dict(left_out), name, ends)
