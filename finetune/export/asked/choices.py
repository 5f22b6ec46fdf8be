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
    from finetune.tasks.choice_columns import Question

CUT = "its text is cut, which a prompt's reader would not do"
CONTROL = "it holds control tokens of the model as text"
OTHER = "its prompt and answer have other tokens together than one after the other"


def _scores(trained: Trained, example: Example) -> list[float]:
    """What each choice is chosen by, by our own code: calibrated, or by token, where the task does so."""
    import torch

    task: Any = alone(trained.task)
    with torch.inference_mode():
        batch = batch_of(task, trained.model, example)
        found: list[float] = task.outputs(trained.model, batch).logits[0].double().tolist()
    return found


def _says(trained: Trained, scores: Sequence[float]) -> str:
    """How the choice with the highest score is stored."""
    return trained.labels[max(range(len(scores)), key=scores.__getitem__)]


def chosen(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """Choices that the rows bring."""
    task: Any = trained.task
    for row, example in zip(_questions(trained, rows), rows.examples, strict=True):
        if task.by_likelihood:
            prompt = task.prompted(row)
            more = {"mean": True} if task.options.likelihood == "mean" else {}
            yield from _asked(trained, prompt, row.choices, example, left_out, more)
            continue
        text, before = (row.context, f"{row.question} ") if task.options.context else (row.question, "")
        choices = [f"{before}{choice}" for choice in row.choices]
        tokens = [part.tolist() for part in example.parts(example.inputs["input_ids"])]
        scores = _scores(trained, example)
        question = {"kind": "choose", "text": text, "choices": choices, "beside": True}
        expected = {"scores": scores, "tokens": tokens}
        yield Asked(question, expected, example.number, _says(trained, scores), int(example.target))


def _questions(trained: Trained, rows: Rows) -> list[Question]:
    """Read the rows. Where wrong choices are drawn among the answers of other rows, it takes all of them."""
    task: Any = trained.task
    if not task.options.draw:
        found: list[Question] = task.columns.rows(rows.data, rows.at)
        return found
    every = task.columns.rows(rows.whole, rows.at)
    return [every[place] for place in rows.places]


def labelled(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """The words of labels, after a prompt."""
    task: Any = trained.task
    free = [] if task.options.calibrate == "none" else [task.prompted(task.options.content_free)]
    more = {"free": _place(trained, free[0])} if free else {}
    for text, example in rows.columns(task.options.text):
        yield from _asked(trained, task.prompted(text), task.words, example, left_out, more, free)


def _asked(
    trained: Trained,
    prompt: str,
    choices: Sequence[str],
    example: Example,
    left_out: Counter[str],
    more: dict[str, Any],
    free: Sequence[str] = (),
) -> Iterator[Asked]:
    """One question whose choices are scored by their likelihood; none where a reader would read something else.
    ``more``: how likelihoods become scores, with the prompt without content, if there is one, in ``free``."""
    asking: Any = trained.task.asking  # type: ignore[attr-defined]
    if any(asking.marker.mark(each) != each for each in (prompt, *free, *choices)):
        left_out[CONTROL] += 1
        return
    asked, answers = asking.tokens(prompt, choices)
    if len(asked) + max(map(len, answers)) > trained.task.options.max_length:
        left_out[CUT] += 1
        return
    said = [str(choice).strip() for choice in choices] if asking.shown_by else list(choices)
    written = [(asked, answers), *(asking.tokens(each, choices) for each in free)]
    tokens = [[*begin, *answer] for begin, ends in written for answer in ends]
    if tokens != [ids for each in (prompt, *free) for ids in _read(trained, each, choices)]:
        left_out[OTHER] += 1
        return
    scores = _scores(trained, example)
    question = {"kind": "choose", **_place(trained, prompt), "choices": said, **more}
    expected = {"scores": scores, "tokens": tokens}
    yield Asked(question, expected, example.number, _says(trained, scores), int(example.target))


def _place(trained: Trained, prompt: str) -> dict[str, Any]:
    """What a question has of the prompt that its choices follow."""
    if trained.task.asking.shown_by:  # type: ignore[attr-defined]
        return {"messages": [{"role": "user", "content": prompt}]}
    return {"prompt": prompt or str(trained.tokenizer.bos_token or trained.tokenizer.eos_token or "")}


def _read(trained: Trained, prompt: str, choices: Sequence[str]) -> list[list[int]]:
    """The tokens of each choice with what asks for it, as a reader of the whole text has them."""
    asking: Any = trained.task.asking  # type: ignore[attr-defined]
    texts = [conversation.text for conversation in asking.conversations(prompt, choices)]
    plain = asking.shown_by is None
    found: list[list[int]] = [trained.tokenizer(text, add_special_tokens=plain)["input_ids"] for text in texts]
    return found
