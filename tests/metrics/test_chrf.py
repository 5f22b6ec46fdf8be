"""chrF."""

import pytest
from sacrebleu import corpus_chrf

from finetune.metrics.chrf import ngram_counts
from tests.metrics.columns import SENTENCES, value


def test_it_is_that_of_the_library():
    written, wanted = zip(*SENTENCES, strict=True)
    assert value("chrf", SENTENCES) == pytest.approx(corpus_chrf(list(written), [list(wanted)]).score)


def test_ngrams_by_hand():
    """No gram spans two texts, and white space is not there; "ab" is in both once, because it is said once."""
    counts = ngram_counts(["a b", "b"], ["ababa", ""])
    assert counts[0].tolist() == [[2, 5, 2], [1, 4, 1], [0, 3, 0], [0, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert not counts[1].any()  # what is said where the reference has no gram does not count
