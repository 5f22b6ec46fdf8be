"""Columns of a prediction store, made by hand."""

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


def columns(pairs, loss=None, weight=None, margin=None, score=None, margin_norm=None):
    """From (prediction, reference) pairs, and lists of numbers."""
    numbers = {
        "loss": loss,
        "weight": weight,
        "margin": margin,
        "score": score,
        "margin_norm": margin if margin_norm is None else margin_norm,
    }
    arrays = {name: None if values is None else np.array(values, float) for name, values in numbers.items()}
    return {"prediction": [pair[0] for pair in pairs], "reference": [pair[1] for pair in pairs], **arrays}


def value(name, pairs, **numbers):
    """The metric called ``name`` of such columns."""
    return find(name).value(columns(pairs, **numbers))


def contributions(name, pairs, **numbers):
    """What each example adds to it."""
    return find(name).contributions(columns(pairs, **numbers))
