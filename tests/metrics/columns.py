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


def believed(prediction, sure=1.0):
    """Probabilities of a model that is so ``sure`` of its predictions, and the labels that they are of."""
    labels = tuple(sorted(set(prediction)))
    rest = (1 - sure) / max(len(labels) - 1, 1)
    rows = [[sure if label == said else rest for label in labels] for said in prediction]
    return np.array(rows, np.float32).reshape(len(prediction), len(labels)), labels


def written(name, text):
    """A text as the metric called ``name`` reads it: another number for each other text, where it reads numbers."""
    return str(1 + 20 * crc32(text.encode())) if find(name).numeric else text


def columns(pairs, loss=None, weight=None, margin=None, score=None, sure=1.0):
    """From (prediction, reference) pairs, and lists of numbers."""
    probabilities, labels = believed([pair[0] for pair in pairs], sure)
    numbers = {"loss": loss, "weight": weight, "margin": margin, "score": score}
    arrays = {name: None if values is None else np.array(values, float) for name, values in numbers.items()}
    texts = {"prediction": [pair[0] for pair in pairs], "reference": [pair[1] for pair in pairs]}
    return {**texts, **arrays, "probabilities": probabilities, "labels": labels}


def value(name, pairs, **numbers):
    """The metric called ``name`` of such columns."""
    return find(name).value(columns([[written(name, text) for text in pair] for pair in pairs], **numbers))


def contributions(name, pairs, **numbers):
    """What each example adds to it."""
    return find(name).contributions(columns(pairs, **numbers))
