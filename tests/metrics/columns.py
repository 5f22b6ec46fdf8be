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


NUMBERS = {"cat": "-1.5", "dog": "0.25", "mat": "2", "the": "7e1"}
"""A number for each word."""


def as_numbers(text):
    """A text of such words as a number, the same for the same text."""
    return repr(float(sum(place * float(NUMBERS.get(word, 1e3)) for place, word in enumerate(text.split(), start=1))))


def columns(pairs, loss=None, weight=None, margin=None, score=None):
    """From (prediction, reference) pairs, and lists of numbers."""
    numbers = {"loss": loss, "weight": weight, "margin": margin, "score": score}
    arrays = {name: None if values is None else np.array(values, float) for name, values in numbers.items()}
    return {"prediction": [pair[0] for pair in pairs], "reference": [pair[1] for pair in pairs], **arrays}


def value(name, pairs, **numbers):
    """The metric called ``name`` of such columns; of one that compares numbers, with one for each text."""
    if find(name).numeric and not all(_is_number(text) for pair in pairs for text in pair):
        pairs = [(as_numbers(said), as_numbers(wanted)) for said, wanted in pairs]
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
