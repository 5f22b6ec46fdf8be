"""Questions to models that write: conversations, texts, what is hidden in them, and targets of an encoder-decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.examples import Example
from finetune.export.asked.choices import CONTROL, OTHER
from finetune.export.asked.rows import Rows, alone, batch_of, tokens_of
from finetune.export.questions import Asked
from finetune.tasks.batching import Batching
from finetune.tasks.texts import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.export.trained import Trained

GENERATED, LONGEST = 8, 24
"""Examples whose answer is generated too, by the export's own generation config, and its tokens at most."""
HIDDEN = 7
"""Every so manieth word is hidden where hidden words are asked for."""


def header(trained: Trained) -> dict[str, Any]:
    """What engines have to know of every question of the task."""
    task: Any = trained.task
    found: dict[str, Any] = {"today": str(task.today)} if task.today else {}
    if task.name == "language":
        found |= {"max_length": task.options.max_length, "end": task.tokenizer.eos_token_id is not None}
    return found


def ends(trained: Trained, asked: Sequence[Asked]) -> frozenset[int]:
    """The tokens with which answers end that are generated; none where nothing is."""
    return frozenset(each.expected["end"] for each in asked if "end" in each.expected)


def _said(trained: Trained, example: Example) -> dict[str, Any]:
    """What the model says at each place that is learnt, teacher-forced: the likeliest token, and the log-probability
    of the right one, in nats."""
    import torch

    task = alone(trained.task)
    with torch.inference_mode():
        found = task.outputs(trained.model, batch_of(task, trained.model, example))
        logs = found.logits.double().log_softmax(-1)
        right = logs.gather(1, found.targets[:, None])[:, 0]
    return {**_likeliest(found.logits), "log_probabilities": right.tolist()}


def _likeliest(logits: Tensor) -> dict[str, Any]:
    """Of each row the likeliest token, the second one, and how far that is behind, in nats."""
    values, tokens = logits.double().topk(2)
    first, second = tokens.T.tolist()
    return {"next": first, "second": second, "behind": (values[:, 0] - values[:, 1]).tolist()}


def _generated(trained: Trained, example: Example, number: int, ends: set[int]) -> dict[str, Any]:
    """For the first examples, what our own code generates as the beginning of the answer; nothing where answers are
    drawn, or searched for along several beams."""
    options: Any = trained.task.options
    searched = getattr(options, "sampling", None) is not None or getattr(options, "num_beams", 1) > 1
    if number >= GENERATED or searched or example.prompt is None:
        return {}
    import torch

    from finetune.tasks.causal.generation import answers

    most, filler = min(LONGEST, options.max_new_tokens), int(trained.tokenizer.pad_token_id)
    settings = trained.task.generating() if hasattr(trained.task, "generating") else {}
    with torch.inference_mode():
        [tokens] = answers(trained.model, [example.prompt], filler, sorted(ends), most, Batching.SINGLE, **settings)
    return {"generated": upto(tokens, ends)}


def upto(tokens: Sequence[int], ends: Collection[int]) -> list[int]:
    """Keep tokens up to the first of ``ends``."""
    place = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[: place + 1])


def conversed(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """Conversations, or prompts and their completions."""
    task: Any = trained.task
    given, number = task.columns.rows(rows.data, False, Counter()), 0
    for row, example in zip(given, rows.examples, strict=True):
        read = _conversation(trained, row) if task.shown_by else _joined(trained, row)
        tokens, (labels, *_) = tokens_of(example), example.parts(example.target)
        if read is None:
            left_out[CONTROL] += 1
            continue
        question, whole, prompt = read
        if whole[: len(tokens)] != tokens and tokens[:-1] != whole:
            left_out[OTHER] += 1
            continue
        labelled = np.flatnonzero(labels != IGNORED).tolist()
        expected = {"tokens": whole, "prompt": prompt, "labelled": labelled, **_said(trained, example)}
        expected |= {"end": tokens[-1]}
        if example.prompt is not None and prompt == len(example.prompt):
            generated = _generated(trained, example, number, {*trained.ends})
            question |= {"generate": min(LONGEST, task.options.max_new_tokens)} if generated else {}
            expected |= generated
        number += 1
        yield Asked({"kind": "continue", **question}, expected)


def _conversation(trained: Trained, row: Any) -> tuple[dict[str, Any], list[int], int] | None:
    """The question, all tokens that the template makes of it, and how many of them ask for the last answer; None where
    what is learnt is not what a reader of the text would read."""
    from finetune.tasks.chat_columns import as_tools

    task: Any = trained.task
    shown = task.shown_by.asked(row.messages, as_tools(row.tools))
    if shown is None:
        return None
    messages, tools, text, asking = shown
    whole, prompt = (trained.tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, asking))
    question = {"messages": messages, **({"tools": tools} if tools else {})}
    return question, whole, len(prompt) if whole[: len(prompt)] == prompt else -1


def _joined(trained: Trained, row: Any) -> tuple[dict[str, Any], list[int], int] | None:
    from finetune.tasks.conversation import joined

    task: Any = trained.task
    if any(task.marker.mark(text) != text for text in (row.prompt, row.answer)):
        return None
    conversation = joined(row.prompt, row.answer, trained.tokenizer)
    [(begin, _)] = conversation.answers
    asked = conversation.text[:begin]
    prompt, whole = (trained.tokenizer(text)["input_ids"] for text in (asked, conversation.text))
    if whole[: len(prompt)] != prompt:  # a token spans the place where the answer begins: it is split there
        whole = [*prompt, *trained.tokenizer(conversation.text[begin:], add_special_tokens=False)["input_ids"]]
    return {"prompt": asked, "target": row.answer}, whole, len(prompt)


def continued(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """Texts that are continued, or in which words are hidden."""
    task: Any = trained.task
    if task.spans:
        yield from _spanned(trained, rows, left_out)
        return
    for text, example in rows.columns(task.options.text):
        if task.masked:
            yield from _hidden(trained, text)
            continue
        tokens, (labels, *_) = tokens_of(example), example.parts(example.target)
        labelled = np.flatnonzero(labels != IGNORED).tolist()
        yield Asked(
            {"kind": "continue", "text": text}, {"tokens": tokens, "labelled": labelled, **_said(trained, example)}
        )


def _hidden(trained: Trained, text: str) -> Iterator[Asked]:
    """A text of which every so manieth token that is no special one is hidden."""
    import torch

    tokenizer: Any = trained.tokenizer
    limit = trained.task.options.max_length
    ids = np.array(tokenizer(text, truncation=True, max_length=limit)["input_ids"])
    places = np.flatnonzero(~np.isin(ids, tokenizer.all_special_ids))[::HIDDEN]
    if not len(places):
        return
    shown = ids.copy()
    shown[places] = tokenizer.mask_token_id
    given = torch.tensor(shown)[None]
    with torch.inference_mode():
        logits = trained.model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0, places].double()
    right = logits.log_softmax(-1)[range(len(places)), ids[places]]
    said = {**_likeliest(logits), "log_probabilities": right.tolist(), "tokens": shown.tolist()}
    yield Asked({"kind": "fill", "text": text, "hidden": places.tolist()}, said)


def _spanned(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """Texts of which every so manieth word is written down behind the token that stands for it."""
    task: Any = trained.task
    tokenizer: Any = trained.tokenizer
    names = tokenizer.convert_ids_to_tokens(task.sentinels)
    for text, _ in rows.columns(task.options.text):
        words = text.split()[: task.options.max_length // 3]
        hidden = range(HIDDEN // 2, len(words), HIDDEN)[: len(names) - 1]
        if not hidden:
            left_out["it has too few words to hide some"] += 1
            continue
        marks = dict(zip(hidden, names, strict=False))
        source = " ".join(marks.get(place, word) for place, word in enumerate(words))
        target = " ".join(f"{mark} {words[place]}" for place, mark in marks.items())
        yield _forced(trained, source, target, tokenizer(source)["input_ids"], tokenizer(target)["input_ids"])


def _forced(trained: Trained, source: str, target: str, ids: list[int], labels: list[int]) -> Asked:
    """A source with its target, whose tokens are these."""
    end = trained.tokenizer.eos_token_id
    labels = labels if labels[-1:] == [end] else [*labels, end]
    example = Example(0, {"input_ids": np.asarray(ids, np.int32)}, np.asarray(labels, np.int64), len(labels), "")
    said = {"tokens": ids, "target": labels, **_said(trained, example)}
    return Asked({"kind": "translate", "text": source, "target": target}, said)


def translated(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """Sources with their targets."""
    options: Any = trained.task.options
    for number, (source, target, example) in enumerate(rows.columns(options.source, options.target)):
        question = {"kind": "translate", "text": f"{options.prefix}{source}", "target": target}
        generated = _generated(trained, example, number, {trained.task.end})  # type: ignore[attr-defined]
        question |= {"generate": min(LONGEST, options.max_new_tokens)} if generated else {}
        labels = example.target.tolist()
        said = {"tokens": tokens_of(example), "target": labels, "end": labels[-1], **_said(trained, example)}
        yield Asked(question, said | generated)
