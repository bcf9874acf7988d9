"""Groups from pairs and how well they are found, worked by hand."""

import numpy as np
import pytest

from utils.metrics.groups import find_clusters, find_components, group_metrics, group_scores


def test_components_are_joined_by_pairs_at_the_threshold_or_above():
    """0-1 .9 and 1-2 .5 join three people although 0-2 is .1; 3 has only weak pairs; 4 has no pair at all."""
    pairs = np.array([[0, 1], [1, 2], [0, 2], [2, 3], [1, 3]])
    p = np.array([0.9, 0.5, 0.1, 0.3, 0.2])
    groups = find_components(5, pairs[p >= 0.5])
    assert groups[0] == groups[1] == groups[2] and len(set(groups[[0, 3, 4]])) == 3
    scores = group_scores(groups, pairs, p)
    assert scores[groups[0]] == pytest.approx(0.5)  # the mean of its three pairs
    assert scores[groups[3]] == pytest.approx(0.7)  # 1 - .3
    assert scores[groups[4]] == 1.0
    assert find_components(0, np.empty((0, 2), int)).shape == (0,)
    assert len(set(find_components(4, np.empty((0, 2), int)))) == 4


def test_one_pair_too_many_chains_components_but_not_clusters():
    """Two groups of three, and one wrong pair between them."""
    inside = [(i, j) for start in (0, 3) for i in range(start, start + 3) for j in range(i) if j >= start]
    pairs = np.array([*inside, (2, 3)])
    p = np.array([0.9] * len(inside) + [0.8])
    assert len(set(find_components(6, pairs))) == 1
    groups = find_clusters(np.zeros(6, int), pairs, p, 0.5, cut=0.75)
    assert len(set(groups)) == 2 and len(set(groups[:3])) == 1


def test_clusters_equal_average_linkage_by_hand():
    """Pairs .9, .6 and .3 of three people: 0 and 1 join at .9, the third at .45, the mean of .6 and .3."""
    pairs, p = np.array([[0, 1], [1, 2], [0, 2]]), np.array([0.9, 0.6, 0.3])
    cuts = [0.91, 0.89, 0.46, 0.44]
    counts = [len(set(find_clusters(np.zeros(3, int), pairs, p, 0.5, cut))) for cut in cuts]
    assert counts == [3, 2, 2, 1]


def test_people_out_of_range_of_each_other_are_joined_by_a_chain():
    """0-1 and 1-2 are .9, 0-2 is no pair and counts .81: the third joins at .855."""
    pairs, p = np.array([[0, 1], [1, 2]]), np.array([0.9, 0.9])
    counts = [len(set(find_clusters(np.zeros(3, int), pairs, p, 0.5, cut))) for cut in (0.86, 0.85)]
    assert counts == [2, 1]


def test_the_threshold_stands_at_one_half():
    """Where training made .8 the even chance, .8 counts .5; frames never share a group."""
    pairs, p = np.array([[0, 1], [2, 3]]), np.array([0.8, 0.8])
    frames = np.array([0, 0, 1, 1])
    counts = [len(set(find_clusters(frames, pairs, p, 0.8, cut))) for cut in (0.51, 0.49)]
    assert counts == [4, 2]
    alone = find_clusters(np.array([0, 0, 3]), np.empty((0, 2), int), np.empty(0), 0.5)
    assert len(set(alone)) == 3


def worked_example():
    """Two frames, ten people.

    Frame 0: true {0,1}, {2,3}, {4}, {5};  predicted {0,1} .9, {2} .8, {3} .6, {4,5} .7
    Frame 1: true {6,7,8}, {9};            predicted {6,7,8} .6, {9} .5"""
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


def test_a_perfect_prediction_is_perfect_in_every_bin():
    sizes = [1, 2, 3, 4, 5, 9, 1, 2]
    true = np.repeat(np.arange(len(sizes)), sizes)
    pairs = np.array([(i, j) for i in range(len(true)) for j in range(i)])
    p, frames = (true[pairs[:, 0]] == true[pairs[:, 1]]).astype(float), np.zeros(len(true), int)
    for groups in (find_components(len(true), pairs[p > 0]), find_clusters(frames, pairs, p, 0.5)):
        found = group_metrics(frames, groups, group_scores(groups, pairs, p), true)
        assert [bin_["ap"] for bin_ in found.values()] == [1.0] * 5
