"""Six outcomes against scikit-learn on pairs written out; groups and their AP worked by hand."""

import numpy as np
import pytest
from sklearn import metrics as reference

from utils.metrics.interaction import end_to_end_metrics, find_groups, group_metrics, six_outcomes


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


def test_a_group_is_a_component_and_scores_the_mean_of_its_edges():
    """0-1 .9 and 1-2 .7 join three people although 0-2 is .1; 3 has only weak pairs; 4 has no pair at all."""
    pairs = np.array([[0, 1], [1, 2], [0, 2], [2, 3], [1, 3]])
    members, scores = find_groups(5, pairs, np.array([0.9, 0.7, 0.1, 0.3, 0.2]), threshold=0.5)
    assert members[0] == members[1] == members[2] and len(set(members[[0, 3, 4]])) == 3
    assert scores[members[0]] == pytest.approx(0.8)  # (.9 + .7) / 2: the pair below the threshold is no edge
    assert scores[members[3]] == pytest.approx(0.7)  # 1 - .3
    assert scores[members[4]] == 1.0


def test_an_edge_at_the_threshold_counts_and_no_pairs_are_no_groups():
    assert len(find_groups(2, np.array([[0, 1]]), np.array([0.5]), threshold=0.5)[1]) == 1
    members, scores = find_groups(3, np.empty((0, 2)), np.empty(0), threshold=0.5)
    assert len(set(members)) == 3 and (scores == 1).all()
    members, scores = find_groups(0, np.empty((0, 2)), np.empty(0), threshold=0.5)
    assert members.shape == scores.shape == (0,)


def worked_example():
    """Two frames, ten people.

    Frame 0: true {0,1}, {2,3}, {4}, {5};  predicted {0,1} .9, {2} .8, {3} .6, {4,5} .7
    Frame 1: true {6,7,8}, {9};            predicted {6,7,8} .6, {9} .5
    """
    frames = np.array([0] * 6 + [1] * 4)
    true = np.array([7, 7, 3, 3, 4, 5, 3, 3, 3, 9])  # id 3 is in both frames and is not one group
    predicted = np.array([0, 0, 1, 2, 3, 3, 4, 4, 4, 5])
    return frames, predicted, np.array([0.9, 0.8, 0.6, 0.7, 0.6, 0.5]), true


def test_average_precision_of_the_worked_example():
    found = group_metrics(*worked_example())
    # G1, three true: .8 wrong, .6 wrong, .5 right -> precision 1/3 at recall 1/3 -> AP 1/9.
    assert found["G1"] == {"ap": pytest.approx(1 / 9), "true_groups": 3, "predicted_groups": 3, "matched": 1}
    # G2, two true: .9 right -> precision 1 at recall 1/2; .7 wrong.
    assert found["G2"] == {"ap": pytest.approx(1 / 2), "true_groups": 2, "predicted_groups": 2, "matched": 1}
    assert found["G3"] == {"ap": pytest.approx(1.0), "true_groups": 1, "predicted_groups": 1, "matched": 1}
    for name in ("G4", "G5+"):
        assert found[name] == {"ap": None, "true_groups": 0, "predicted_groups": 0, "matched": 0}


def test_order_of_people_changes_nothing():
    frames, predicted, scores, true = worked_example()
    order = np.random.default_rng(0).permutation(len(true))
    assert group_metrics(frames[order], predicted[order], scores, true[order]) == group_metrics(
        frames, predicted, scores, true
    )


def test_members_may_differ_up_to_an_iou_of_one_half():
    """Three of four the same is 3/5; the true group of 7 and the predicted 5 of it are 5/7, both G5+."""
    true = np.array([0, 0, 0, 0, 1] + [2] * 7)
    predicted = np.array([0, 0, 0, 1, 0] + [2] * 5 + [3, 4])
    found = group_metrics(np.zeros(12, int), predicted, np.array([0.9, 0.5, 0.8, 0.5, 0.5]), true)
    assert found["G4"]["matched"] == 1 and found["G5+"] == {
        "ap": 1.0,
        "true_groups": 1,
        "predicted_groups": 1,
        "matched": 1,
    }


def test_two_of_four_is_not_enough_and_another_bin_is_no_match():
    frames = np.zeros(8, int)
    true = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    swapped = group_metrics(frames, np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array([0.9, 0.9]), true)
    assert swapped["G4"]["ap"] == 0.0 and swapped["G4"]["matched"] == 0  # IoU 2/6
    smaller = group_metrics(frames, np.array([0, 0, 0, 2, 1, 1, 1, 1]), np.array([0.9, 0.9, 0.1]), true)
    assert smaller["G4"]["matched"] == 1 and smaller["G3"]["matched"] == 0  # IoU 3/4, but G3 is not G4


def test_a_true_group_is_matched_once():
    """A true group of ten, predicted as two of five: both have an IoU of exactly one half, the surer gets
    it."""
    predicted = np.array([0] * 5 + [1] * 5)
    found = group_metrics(np.zeros(10, int), predicted, np.array([0.6, 0.9]), np.zeros(10, int))
    assert found["G5+"]["matched"] == 1 and found["G5+"]["ap"] == 1.0
    tied = group_metrics(np.zeros(10, int), predicted, np.array([0.9, 0.9]), np.zeros(10, int))
    assert tied["G5+"]["ap"] == 0.5  # equal scores are one step: one of two is right


def test_people_of_unknown_group_are_left_out():
    frames, predicted, scores, true = worked_example()
    wider = [np.r_[a, b] for a, b in ((frames, [1, 1]), (predicted, [5, 6]), (true, [-1, -1]))]
    assert group_metrics(wider[0], wider[1], np.r_[scores, 0.99], wider[2]) == group_metrics(
        frames, predicted, scores, true
    )


def test_perfect_prediction_is_perfect_in_every_bin():
    sizes = [1, 2, 3, 4, 5, 9, 1, 2]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    pairs = np.array([(i, j) for i in range(len(groups)) for j in range(i)])
    together = groups[pairs[:, 0]] == groups[pairs[:, 1]]
    members, scores = find_groups(len(groups), pairs, together.astype(float), threshold=0.5)
    found = group_metrics(np.zeros(len(groups), int), members, scores, groups)
    assert [bin_["ap"] for bin_ in found.values()] == [1.0] * 5
