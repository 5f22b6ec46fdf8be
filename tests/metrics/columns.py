"""Columns of a prediction store, made by hand."""

from zlib import crc32

import numpy as np

from finetune.metrics import find

BINARY = [("a", "a"), ("a", "a"), ("b", "a"), ("b", "b"), ("a", "b")]
"""(prediction, reference): a->a twice, a->b once, b->b once, b->a once."""

SENTENCES = [
    ("The cat sat on the mat.", "A cat sat on a mat."),
    ("stocks rise", "Stocks fall sharply as banks warn"),
    ("", "England win the Ashes"),
    ("Blair wins third term", "Blair wins third term"),
]


NUMBERS = {"cat": "-1.5", "dog": "0.25", "mat": "2", "the": "7e1"}
"""A number for each word."""


def as_numbers(text):
    """A text of such words as a number, the same for the same text."""
    return repr(float(sum(place * float(NUMBERS.get(word, 1e3)) for place, word in enumerate(text.split(), start=1))))


def believed(prediction, sure=1.0):
    """Probabilities of a model that is so ``sure`` of its predictions, and the labels that they are of."""
    labels = tuple(sorted(set(prediction)))
    rest = (1 - sure) / max(len(labels) - 1, 1)
    rows = [[sure if label == said else rest for label in labels] for said in prediction]
    return np.array(rows, np.float32).reshape(len(prediction), len(labels)), labels


def written(name, text):
    """A text as the metric called ``name`` reads it: another number for each other text, where it reads numbers."""
    return str(1 + 20 * crc32(text.encode())) if find(name).numeric else text


def columns(pairs, loss=None, weight=None, margin=None, extracted=None, size=None, sure=1.0, **more):
    """From (prediction, reference) pairs, and lists of numbers; and of the answers found in predictions."""
    probabilities, labels = believed([pair[0] for pair in pairs], sure)
    numbers = {"loss": loss, "weight": weight, "margin": margin, "bytes": size}
    numbers |= {"score": None, "reward": None, "margin_norm": margin} | more
    arrays = {name: None if values is None else np.array(values, float) for name, values in numbers.items()}
    texts = {"prediction": [pair[0] for pair in pairs], "reference": [pair[1] for pair in pairs]}
    return {**texts, **arrays, "probabilities": probabilities, "labels": labels, "extracted": extracted}


def value(name, pairs, **numbers):
    """The metric called ``name`` of such columns; of one that compares numbers, with one for each text."""
    if find(name).numeric and not all(_is_number(text) for pair in pairs for text in pair):
        pairs = [(written(name, said), written(name, wanted)) for said, wanted in pairs]
    return find(name).value(columns(pairs, **numbers))


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def contributions(name, pairs, **numbers):
    """What each example adds to it."""
    return find(name).contributions(columns(pairs, **numbers))
