"""Questions to models with a head: labels, numbers, tags and vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.examples import PART
from finetune.export.asked.rows import Rows, alone, batch_of, tokens_of
from finetune.export.questions import Asked

if TYPE_CHECKING:
    import torch

    from finetune.core.examples import Example
    from finetune.export.trained import Trained


def header(trained: Trained) -> dict[str, Any]:
    """What engines have to know of every question of the task."""
    options = trained.task.options
    names = ("stride", "max_answer_length")
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _logits(model: torch.nn.Module, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The head's outputs for one text alone: (outputs,), or (tokens, outputs), float64."""
    import torch

    given = {name: torch.tensor(values).long()[None] for name, values in inputs.items()}
    with torch.inference_mode():
        found: np.ndarray = (
            model(**given, attention_mask=torch.ones_like(given["input_ids"])).logits[0].double().numpy()
        )
    return found


def _texts(trained: Trained, row: tuple[Any, ...]) -> dict[str, Any]:
    return {"text": row[0], **({"pair": row[1]} if trained.task.options.pair else {})}


def classified(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """Labels, of which one is right or any number; of an ordinal head, what each of its outputs says."""
    config = trained.task.model_config()
    names = [config["id2label"][number] for number in range(config["num_labels"])]
    one = config["problem_type"] == "single_label_classification"
    for *texts, example in rows.columns(*trained.task.inputs()):
        logits = _logits(trained.model, example.inputs)
        shares = _softmax(logits) if one else 1 / (1 + np.exp(-logits))
        expected = {"probabilities": dict(zip(names, shares.tolist(), strict=True)), "tokens": tokens_of(example)}
        question = {"kind": "classify" if one else "multi_label", **_texts(trained, tuple(texts))}
        says = names[int(logits.argmax())] if one else None
        yield Asked(question, expected, example.number, says, example.reference if one else None)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    found: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return found


def numbers(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """Numbers, in SDs of the training examples; :func:`finetune.export.agreement.judge` knows of an export's unit."""
    scale = trained.task.scale  # type: ignore[attr-defined]
    for *texts, example in rows.columns(*trained.task.inputs()):
        value = float(_logits(trained.model, example.inputs)[0])
        expected = {"value": value, "mean": scale.mean, "sd": scale.sd, "tokens": tokens_of(example)}
        yield Asked(
            {"kind": "regress", **_texts(trained, tuple(texts))},
            expected,
            example.number,
            None,
            float(example.reference),
        )


def tagged(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """A tag for each word."""
    task: Any = trained.task
    for sentence, example in zip(task.sentences(rows.data, rows.at), rows.examples, strict=True):
        said = _predicted(trained, example).split()
        words = [list(place) for place in sentence.words]
        expected = {"tags": said, "tokens": tokens_of(example)}
        question = {"kind": "tag", "text": sentence.text, "words": words}
        yield Asked(question, expected, example.number, " ".join(said), example.reference.split())


def _predicted(trained: Trained, example: Example) -> str:
    """What our own scoring says of one example."""
    import torch

    task = alone(trained.task)
    with torch.inference_mode():
        [found] = task.predict(trained.model, [example], batch_of(task, trained.model, example))
    return found.text


def embedded(trained: Trained, rows: Rows, left_out: Counter[str]) -> Iterator[Asked]:
    """A vector for each text of a row."""
    columns = trained.task.inputs()
    for *texts, example in rows.columns(*columns):
        split = {name: example.parts(values) for name, values in example.inputs.items() if name != PART}
        for place, text in enumerate(texts):
            inputs = {name: parts[place] for name, parts in split.items()}
            vector = _logits(trained.model, inputs)
            yield Asked(
                {"kind": "embed", "text": text},
                {"vector": vector.tolist(), "tokens": inputs["input_ids"].tolist()},
            )
