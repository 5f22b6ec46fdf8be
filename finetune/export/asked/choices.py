"""Questions to models that choose among answers: by a head beside the question, or by the answers' likelihoods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from finetune.export.asked.rows import Rows, alone, batch_of
from finetune.export.questions import Asked

if TYPE_CHECKING:
    from finetune.core.examples import Example
    from finetune.export.trained import Trained

CUT = "its text is cut, which a prompt's reader would not do"
CONTROL = "it holds control tokens of the model as text"
OTHER = "its prompt and answer have other tokens together than one after the other"


def _scores(trained: Trained, example: Example, count: int) -> list[float]:
    """The score of each of the last ``count`` candidates, by our own code."""
    import torch

    task: Any = alone(trained.task)
    with torch.inference_mode():
        batch = batch_of(task, trained.model, example)
        found: list[float] = task.scorer.scores(trained.model, batch).double().tolist()
    return found[-count:]


def chosen(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """Choices that the rows bring."""
    task: Any = trained.task
    for row, example in zip(task.columns.rows(rows.data, rows.at), rows.examples, strict=True):
        if task.by_likelihood:
            prompt = task.prompted(row)
            yield from _asked(trained, prompt, row.choices, example, example.target, left_out)
            continue
        text, before = (row.context, f"{row.question} ") if task.options.context else (row.question, "")
        choices = [f"{before}{choice}" for choice in row.choices]
        tokens = [part.tolist() for part in example.parts(example.inputs["input_ids"])]
        expected = {"scores": _scores(trained, example, len(choices)), "tokens": tokens}
        question = {"kind": "choose", "text": text, "choices": choices, "beside": True}
        yield Asked(question, expected, reference=int(example.target))


def labelled(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """The words of labels, after a prompt."""
    task: Any = trained.task
    for text, example in rows.columns(task.options.text):
        yield from _asked(trained, task.prompted(text), task.words, example, example.target, left_out)


def _asked(
    trained: Trained, prompt: str, choices: Sequence[str], example: Example, right: Any, left_out: Counter[str]
) -> Iterator[Asked]:
    """One question whose choices are scored by their likelihood; none where a reader would read something else."""
    asking: Any = trained.task.asking  # type: ignore[attr-defined]
    if any(asking.marker.mark(each) != each for each in (prompt, *choices)):
        left_out[CONTROL] += 1
        return
    asked, answers = asking.tokens(prompt, choices)
    if len(asked) + max(map(len, answers)) > trained.task.options.max_length:
        left_out[CUT] += 1
        return
    said = [str(choice).strip() for choice in choices]
    tokens = [[*asked, *answer] for answer in answers]
    if tokens != _read(trained, prompt, choices):
        left_out[OTHER] += 1
        return
    place: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]} if asking.shown_by else {}
    if not place:
        place = {"prompt": prompt or str(trained.tokenizer.bos_token or trained.tokenizer.eos_token or "")}
    expected = {"scores": _scores(trained, example, len(choices)), "tokens": tokens}
    choices = said if asking.shown_by else list(choices)
    yield Asked({"kind": "choose", **place, "choices": choices}, expected, reference=int(right))


def _read(trained: Trained, prompt: str, choices: Sequence[str]) -> list[list[int]]:
    """The tokens of each choice with what asks for it, as a reader of the whole text has them."""
    asking: Any = trained.task.asking  # type: ignore[attr-defined]
    texts = [conversation.text for conversation in asking.conversations(prompt, choices)]
    plain = asking.shown_by is None
    found: list[list[int]] = [trained.tokenizer(text, add_special_tokens=plain)["input_ids"] for text in texts]
    return found
