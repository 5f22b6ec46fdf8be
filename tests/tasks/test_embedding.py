"""Vectors of texts: what is drawn with an example, what is saved, how held-out sets are ranked, and bad input."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from finetune.core.errors import InputError
from finetune.models import ModelOptions, Pooling, declared, load_tokenizer
from finetune.tasks.embedding import Embedding
from tests import tiny
from tests.examples import TaskExample


def _pairs(count):
    """(text, pair, score): two texts of one topic, whose score is 1, or of two."""
    firsts, seconds = tiny.sentences(count), tiny.sentences(count + 1, seed=7)
    rows = []
    for number, (text, topic) in enumerate(firsts):
        other, found = seconds[number + number % 2]
        rows.append((text, other, 0.9 if found == topic else 0.1 + 0.01 * (number % 5)))
    return rows


def _write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_scored(folder, count):
    return _write(folder / "data.csv", ("text", "pair", "score"), _pairs(count))


def write_pairs(folder, count):
    """Texts and their own last words, in which their topic is."""
    rows = [(text, " ".join(text.split()[1:] + text.split()[:1])) for text, _ in tiny.sentences(count)]
    return _write(folder / "data.csv", ("text", "pair"), rows)


def write_labels(folder, count):
    return tiny.write_csv(folder / "data.csv", tiny.sentences(count))


EXAMPLES = {
    "embedding": TaskExample(
        {"pair": "pair", "score": "score", "max_length": 48}, write_scored, models=("encoder", "decoder")
    ),
    "embedding/ranking": TaskExample({"pair": "pair", "drawn": 3, "max_length": 48}, write_pairs, models=("encoder",)),
    "embedding/labels": TaskExample(
        {"label": "label", "drawn": 5, "max_length": 48}, write_labels, models=("encoder",)
    ),
}
