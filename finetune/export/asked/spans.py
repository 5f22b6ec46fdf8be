"""Questions to models that find answers in a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finetune.export.asked.rows import Rows, alone, batch_of
from finetune.export.questions import Asked

if TYPE_CHECKING:
    from finetune.export.trained import Trained


def answered(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """The likeliest span, and by how much it is likelier than none."""
    import torch

    from finetune.tasks.spans import questions_of

    task: Any = alone(trained.task)
    for row, example in zip(questions_of(rows.data, task.options, rows.at), rows.examples, strict=True):
        with torch.inference_mode():
            [found] = task.predict(trained.model, [example], batch_of(task, trained.model, example))
        windows = [part.tolist() for part in example.parts(example.inputs["input_ids"])]
        [said] = task.decided([found], trained.decision)
        expected = {"answer": found.text, "margin": found.margin, "said": said.text, "tokens": windows}
        question = {"kind": "answer", "question": row.question, "context": row.context}
        yield Asked(question, expected, example.number, said.text, example.reference)
