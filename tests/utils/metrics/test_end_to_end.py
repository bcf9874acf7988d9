"""Six outcomes against scikit-learn on the pairs written out one by one."""

import numpy as np
import pytest
from sklearn import metrics as reference

from utils.metrics.end_to_end import end_to_end_metrics, six_outcomes


def test_equals_scikit_learn_on_all_pairs_written_out():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    p_interaction, p_types = rng.random(300), rng.dirichlet(np.ones(3), 300)
    outcomes, scores = six_outcomes(p_interaction, p_types, 0.4)
    far_types, far_others = np.array([0, 0, 2]), 50
    found = end_to_end_metrics(truth, outcomes, scores, far_types, far_others, ["a", "b", "c"])

    all_truth = np.concatenate([truth, far_types + 1, np.zeros(far_others, int)])
    all_outcomes = np.concatenate([outcomes, np.zeros(3 + far_others, int)])
    all_scores = np.concatenate([scores, np.zeros((3 + far_others, 3))])
    assert np.array_equal(found["confusion"], reference.confusion_matrix(all_truth, all_outcomes))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(all_truth, all_outcomes, average="macro"))
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(all_truth, all_outcomes))
    for k, name in enumerate("abc", start=1):
        row = found["per_outcome"][name]
        assert row["ap"] == pytest.approx(
            reference.average_precision_score(all_truth == k, all_scores[:, k - 1])
        )
        assert row["recall"] == pytest.approx(reference.recall_score(all_truth == k, all_outcomes == k))


def test_threshold_decides_between_none_and_the_likeliest_type():
    outcomes, scores = six_outcomes(np.array([0.3, 0.6]), np.array([[0.9, 0.1], [0.2, 0.8]]), 0.5)
    assert outcomes.tolist() == [0, 2]
    assert scores[1].tolist() == pytest.approx([0.12, 0.48])


def test_absent_type_is_absent():
    found = end_to_end_metrics(
        np.array([0, 1]),
        np.array([0, 1]),
        np.array([[0.1, 0.0], [0.9, 0.0]]),
        np.empty(0, int),
        0,
        ["a", "b"],
    )
    assert found["per_outcome"]["b"]["f1"] is None and found["per_outcome"]["b"]["ap"] is None
    assert found["macro_f1"] == 1.0
