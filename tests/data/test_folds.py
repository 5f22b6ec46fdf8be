"""Folds inside the training examples: each class in equal parts, and none without an example to learn from."""

import numpy as np

from finetune.data.folds import stratified_folds

FOLDS = 5


def test_folds_hold_each_class_in_equal_parts():
    classes = np.repeat([0, 1, 2], [50, 20, 7])
    found = stratified_folds(classes, FOLDS, np.random.default_rng(0))
    for kind in (0, 1, 2):
        counts = np.bincount(found[classes == kind], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(found, minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1


def test_the_only_example_of_a_class_is_always_learnt_from():
    classes = np.array([0, 0, 0, 1, 2, 2])
    found = stratified_folds(classes, FOLDS, np.random.default_rng(0))
    assert found[3] == -1 and (found[classes != 1] >= 0).all()
    assert len(set(found[classes == 2].tolist())) == 2
