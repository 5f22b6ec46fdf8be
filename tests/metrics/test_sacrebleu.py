"""BLEU."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from finetune.metrics import find
from tests.metrics.columns import SENTENCES, columns, contributions, value

LONG = [
    ("the cat sat on the mat , it is said", "a cat sat on the mat , they say"),
    ("stocks rise as banks warn of losses", "stocks fall sharply as banks warn of losses to come"),
    ("England win the Ashes", "England win the Ashes at last"),
    ("Blair wins a third term", "Blair wins a third term in office"),
    ("", "nothing at all was said"),
]


@pytest.mark.parametrize("pairs", [SENTENCES, LONG, LONG[:1], [("a cat", "a cat")], [("", "a")]])
def test_it_is_that_of_the_library(pairs):
    said, wanted = zip(*pairs, strict=True)
    assert value("sacrebleu", pairs) == pytest.approx(BLEU().corpus_score(said, [wanted]).score)


def test_its_counts_are_those_of_the_library():
    from finetune.metrics.sacrebleu import word_counts

    said, wanted = zip(*LONG, strict=True)
    found = BLEU().corpus_score(said, [wanted])
    matched, total, lengths = word_counts(said, wanted)
    assert matched.sum(0).tolist() == found.counts and total.sum(0).tolist() == found.totals
    assert lengths.sum(0).tolist() == [found.sys_len, found.ref_len]


def times(pairs, weights):
    return [pair for pair, count in zip(pairs, weights, strict=True) for _ in range(count)]


@pytest.mark.parametrize("longer", [False, True], ids=["brief", "long enough"])
def test_contributions_are_derivatives_by_an_examples_weight(longer):
    """Central differences: every example 200 times, one of them once more or less."""
    pairs = [(wanted, said) for said, wanted in LONG if said] if longer else LONG
    found, score = contributions("sacrebleu", pairs), value("sacrebleu", pairs)
    assert score > 20 and found.mean() == pytest.approx(score)
    for example in range(len(pairs)):
        more, less = (np.full(len(pairs), 200) for _ in range(2))
        more[example] += 1
        less[example] -= 1
        slope = (value("sacrebleu", times(pairs, more)) - value("sacrebleu", times(pairs, less))) / (2 / 200)
        assert found[example] == pytest.approx(score + len(pairs) * slope, rel=1e-3, abs=1e-3)


def test_an_order_without_a_match_is_smoothed():
    pairs = [("a b c d e", "a b c x y"), ("p q r s t", "p q z r s"), ("a b q r t", "a b q x y z")]
    assert value("sacrebleu", pairs) > 0
    found = contributions("sacrebleu", pairs)
    assert found.mean() == pytest.approx(value("sacrebleu", pairs)) and np.ptp(found) > 0


def test_without_long_enough_texts_it_is_nothing():
    assert value("sacrebleu", [("a cat", "a cat")]) == 0 and contributions("sacrebleu", [("a", "a")]).tolist() == [0]
    assert find("sacrebleu").value(columns(LONG)) <= 100
