"""What counts as the same answer."""

import pytest

from finetune.export.agreement import compare
from finetune.export.questions import Asked, Asking

EXPECTED = {"next": [1, 2, 3, 4], "second": [5, 6, 7, 8], "behind": [0.05, 0.05, 3.0, 0.0]}
LOGS = {"log_probabilities": [-1.0, -1.0, -1.0, -1.0]}


@pytest.mark.parametrize(("tolerance", "same", "ties"), [(0.1, 2, 1), (0.01, 1, 0)])
def test_a_second_choice_that_is_as_likely_is_a_tie(tolerance, same, ties):
    """And no third one is, and none that the trained model finds less likely."""
    asking = Asking({}, [Asked({"kind": "fill"}, {**EXPECTED, **LOGS})], 1, {})
    found = compare(asking, {"ends": []}, [{"next": [1, 6, 7, 9], **LOGS}], tolerance)
    assert (found.same * found.answers, found.ties, found.answers) == (same, ties, 4)
    assert f"{same / 4:.2%} of 4 answers are the same" in " ".join(found.objections(exact=True))
