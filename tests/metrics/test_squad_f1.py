"""F1 by SQuAD's rules."""

import pytest

from tests.metrics.columns import contributions, value
from tests.metrics.spans import pairs


def test_f1_counts_words_and_takes_the_nearest_answer():
    found = contributions("squad_f1", pairs())
    assert found.tolist() == pytest.approx([1, 0.5, 1, 0, 0, 1, 2 / 3])
    # Of "north of france": 1 of 3 words with "france" (F1 0.5), 1 of 3 with "in france" (F1 0.4).
    assert value("squad_f1", pairs()) == pytest.approx(found.mean())
