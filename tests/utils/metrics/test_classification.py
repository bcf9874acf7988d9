"""Every number of a report against scikit-learn or a brute-force count."""

import numpy as np
import pytest
from sklearn import metrics as reference

from utils.metrics.classification import (
    binary_metrics,
    choose_threshold,
    confusion,
    multiclass_metrics,
    reference_scores,
    trivial_guesses,
)


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
    assert choose_threshold(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.4])) == 0.4  # F1 .8, not 2/3


def test_two_classes_are_measured_as_in_scikit_learn():
    labels, scores = two_classes()
    preds = (scores >= 0.6).astype(int)
    assert binary_metrics(labels, scores, preds) == pytest.approx({
        "ap": reference.average_precision_score(labels, scores),
        "auroc": reference.roc_auc_score(labels, scores),
        **{name: getattr(reference, f"{name}_score")(labels, preds)
           for name in ("f1", "balanced_accuracy", "accuracy", "precision", "recall")},
    })  # fmt: skip


def test_one_class_is_undefined_not_zero():
    ranks = np.linspace(0, 1, 5)
    found = binary_metrics(np.zeros(5, int), ranks, ranks >= 0.5)
    assert found["ap"] is None and found["auroc"] is None and found["f1"] is None
    assert found["accuracy"] == pytest.approx(0.4)
    assert binary_metrics(np.array([0, 1]), np.array([0.1, 0.2]), np.zeros(2, int))["precision"] is None


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
    assert found["per_class"]["b"]["ap"] == pytest.approx(
        reference.average_precision_score(labels == 1, scores[:, 1])
    )


def test_confusion_counts():
    assert confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_references_know_what_is_unknown_how_much_a_sample_weighs_and_which_classes_there_are():
    labels = np.arange(200) % 2
    inputs = np.random.default_rng(0).normal(size=(200, 3))
    inputs[labels == 1, 0] = np.nan  # that it is unknown tells the class
    inputs[:, 1] = np.nan
    for name, scores in reference_scores(inputs, 2 * labels, inputs, classes=4).items():
        assert np.array_equal(scores.argmax(axis=1), 2 * labels), name  # classes 0 and 2 of four
        assert not scores[:, [1, 3]].any(), name
    weights = np.where(labels == 1, 3.0, 1.0)
    for name, scores in reference_scores(inputs[:, 2:], labels, inputs[:, 2:], weights=weights).items():
        assert scores[:, 1].mean() == pytest.approx(0.75, abs=0.02), name


def test_guesses_ignore_the_sample():
    guesses = trivial_guesses(np.array([2, 2, 0]), 3)
    assert {name: p.tolist() for name, p in guesses.items()} == {
        "majority class": [0, 0, 1], "uniform guess": pytest.approx([1 / 3] * 3),
        "guess by train shares": pytest.approx([1 / 3, 0, 2 / 3]),
    }  # fmt: skip
