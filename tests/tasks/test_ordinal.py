"""Ordered classes by conditional probabilities."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from finetune.tasks.ordinal import log_probabilities, median, outputs_for

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 3


def test_probabilities_add_up_to_one_and_never_rise():
    chances = log_probabilities(LOGITS).exp()
    assert torch.allclose(chances.sum(1), torch.ones(6))
    beyond = LOGITS.sigmoid().cumprod(1)  # P(y > k), the authors' equation
    assert torch.allclose(1 - chances.cumsum(1)[:, :-1], beyond, atol=1e-6)


@pytest.mark.parametrize("rank", range(4))
def test_the_loss_is_that_of_the_conditional_subsets(rank):
    """An example of rank r belongs to the subsets 0..r: it is beyond the first r of them, and not beyond the next."""
    found = -log_probabilities(LOGITS)[:, rank]
    wanted = torch.zeros(6)
    for k in range(3):
        if k == 0 or rank > k - 1:
            target = torch.full((6,), float(rank > k))
            wanted += binary_cross_entropy_with_logits(LOGITS[:, k], target, reduction="none")
    assert torch.allclose(found, wanted, atol=1e-5)


def test_the_answer_counts_chances_above_one_half():
    for row in log_probabilities(LOGITS).exp().numpy():
        assert median(row) == int((LOGITS.sigmoid().cumprod(1) > 0.5).sum(1)[_row(row)])
    assert median(np.array([0.4, 0.25, 0.35])) == 1, "not the likeliest, but the middle"


def _row(chances):
    return int(np.abs(log_probabilities(LOGITS).exp().numpy() - chances).sum(1).argmin())


def test_sure_outputs_stay_finite():
    assert torch.isfinite(log_probabilities(torch.tensor([[200.0, -200.0]]))).all()


def test_outputs_have_names():
    assert outputs_for(["low", "medium", "high"]) == ["> low", "> medium"]
