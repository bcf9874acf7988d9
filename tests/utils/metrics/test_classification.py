"""Every number of a report against scikit-learn or a brute-force count."""

import numpy as np
import pytest
from sklearn import metrics as reference

from utils.metrics.classification import binary_metrics, choose_threshold, confusion, multiclass_metrics


def two_classes(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and rounded scores, so that ties occur."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    return labels, np.round(0.4 * labels + rng.random(n), 1) / 1.4


@pytest.mark.parametrize("seed", range(10))
def test_threshold_has_the_best_f1(seed):
    labels, scores = two_classes(seed=seed)
    best = max(reference.f1_score(labels, scores >= cut) for cut in np.unique(scores))
    assert reference.f1_score(labels, scores >= choose_threshold(labels, scores)) == pytest.approx(
        best, abs=1e-12
    )


def test_threshold_lies_between_two_scores_and_needs_two_classes():
    assert choose_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)
    assert choose_threshold(np.array([1, 1]), np.array([0.2, 0.9])) == 0.5


def test_one_class_is_undefined_not_zero():
    ranks = np.linspace(0, 1, 5)
    found = binary_metrics(np.zeros(5, int), ranks, ranks >= 0.5)
    assert found["ap"] is None and found["auroc"] is None and found["f1"] is None
    assert found["accuracy"] == pytest.approx(0.4)


def test_absent_class_is_shown_as_absent():
    labels = np.array([0, 0, 1, 1])
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1]])
    found = multiclass_metrics(labels, scores, ["a", "b", "c"])
    assert found["per_class"]["c"] == {
        "precision": None,
        "recall": None,
        "f1": None,
        "ap": None,
        "support": 0,
    }
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)  # a: precision 1, recall 1/2; b: 1
    assert found["balanced_accuracy"] == pytest.approx(0.75)


def test_confusion_counts():
    assert confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]
