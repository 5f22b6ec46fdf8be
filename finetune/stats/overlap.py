"""How much less than new data the data of another seed are, where each seed draws its own out of one pool."""

from __future__ import annotations


def own_test_overlap(train: int, test: int, pool: int) -> float:
    """Compute what is added to 1 / runs where each run draws ``train`` and, apart from them, ``test`` of ``pool``
    examples.

    It is r / (1 - r) for runs whose scores correlate by r. Nadeau and Bengio ("Inference for the generalization
    error", Machine Learning 2003, section 3) take for r the share of ``test`` in what a run draws, which makes
    ``test`` / ``train``, and suppose that a run draws all. Of a pool of which much is left, two runs share less: of
    their test examples the share that a draw takes of the pool, of their training examples too, and the larger of the
    two bounds r. The smaller of both factors is given; where a run draws everything it is Nadeau and Bengio's.
    """
    if not train:
        return 0.0
    larger = max(train, test)
    return min(test / train, larger / (pool - larger)) if pool > larger else test / train


def fixed_test_overlap(train: int, pool: int) -> float:
    """Compute what is added to 1 / runs where each run draws ``train`` of ``pool`` examples and all are scored on the
    same others.

    Where a score is a sum over its training examples, runs correlate by the share that a draw takes. Real learners
    need less than the factor that this makes; the share itself would not be enough (`scripts/simulate`).
    """
    return train / (pool - train) if pool > train else 0.0
