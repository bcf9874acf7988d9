"""Balancing by hand-counted classes, and weights against scikit-learn."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from datasets.jrdb.class_balance import balance_classes, class_weights

LABELS = np.array([0] * 100 + [1] * 20 + [3] * 70)


def test_oversampling_lifts_every_class_to_half_the_largest():
    chosen = balance_classes(LABELS, "oversample", seed=1)
    assert np.bincount(LABELS[chosen]).tolist() == [100, 50, 0, 70]
    assert set(chosen) == set(range(len(LABELS)))  # nothing is lost
    assert np.array_equal(chosen, balance_classes(LABELS, "oversample", seed=1))
    assert not np.array_equal(chosen, balance_classes(LABELS, "oversample", seed=2))


def test_undersampling_keeps_at_most_twice_the_smallest():
    chosen = balance_classes(LABELS, "undersample", seed=1)
    assert np.bincount(LABELS[chosen]).tolist() == [40, 20, 0, 40]
    assert len(np.unique(chosen)) == len(chosen)


def test_none_changes_nothing():
    assert np.array_equal(balance_classes(LABELS, "none", seed=1), np.arange(len(LABELS)))


def test_weights_are_scikit_learns_balanced_ones_and_average_to_one():
    weights = class_weights(LABELS, 5)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS)
    assert weights[[0, 1, 3]] == pytest.approx(expected) and weights[[2, 4]].tolist() == [0, 0]
    assert weights[LABELS].mean() == pytest.approx(1)
