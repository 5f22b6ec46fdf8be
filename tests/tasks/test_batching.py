"""What may share a batch."""

import numpy as np
import pytest

from finetune.tasks.batching import Batching, cut

LENGTHS = np.array([3, 9, 3, 5, 9, 9, 9])
ORDER = np.argsort(LENGTHS, kind="stable")


@pytest.mark.parametrize(
    "batching, wanted",
    [
        (Batching.PACKED, [[0, 2, 3], [1, 4, 5], [6]]),
        (Batching.PADDED, [[0, 2, 3], [1, 4, 5], [6]]),
        (Batching.SAME_LENGTH, [[0, 2], [3], [1, 4, 5], [6]]),
        (Batching.SINGLE, [[0], [2], [3], [1], [4], [5], [6]]),
    ],
)
def test_batches_hold_every_example_once_in_order(batching, wanted):
    assert [batch.tolist() for batch in cut(ORDER, LENGTHS, 3, batching)] == wanted
