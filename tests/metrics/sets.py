"""Label sets, made by hand and drawn."""

import json

import numpy as np

LABELS = ("a", "b", "c")

SETS = [('["b", "d"]', '["a", "b"]'), ('["b", "d"]', "[]"), ("[]", "[]"), ('["c"]', '["c"]')]
"""(prediction, reference)."""


def drawn(n=50):
    """Pairs of sets, and their marks (n, labels), said and wanted."""
    random = np.random.default_rng(3)
    said, wanted = random.random((2, n, len(LABELS))) < 0.4

    def text(row):
        return json.dumps([label for label, chosen in zip(LABELS, row, strict=True) if chosen])

    return [(text(one), text(other)) for one, other in zip(said, wanted, strict=True)], said, wanted
