"""JRDB-Act's score of social groups: cases worked by hand, and figures of the toolkit's own script."""

import numpy as np
import pytest

from utils.metrics.jrdb_act import group_rows, rows_text, score_groups

SIZE = (3760, 480)


def rows(groups, last=1.0, frame=15, boxes=None, sequence=0):
    """People side by side, in these groups of one keyframe."""
    count = len(groups)
    boxes = np.array([[100 * k, 50, 60, 120] for k in range(count)]) if boxes is None else np.array(boxes)
    return group_rows(
        np.full(count, sequence), np.full(count, frame), boxes, np.array(groups),
        np.broadcast_to(last, count), SIZE,
    )  # fmt: skip


def test_a_perfect_prediction_scores_one():
    truth = np.concatenate([rows([1, 2, 2, 3, 3, 3]), rows([4] * 4 + [9] * 6, frame=30)])
    truth[:, 8] = 0
    found = rows([7, 5, 5, 1, 1, 1]), rows([2] * 4 + [3] * 6, frame=30)
    assert score_groups(truth, np.concatenate(found)) == {
        "task_2": 1.0, "task_3": 1.0, "by_size": {"G1": 1.0, "G2": 1.0, "G3": 1.0, "G4": 1.0, "G5+": 1.0},
    }  # fmt: skip


def test_everybody_alone_finds_one_of_each_group():
    scores = score_groups(rows([1, 2, 2, 3, 3, 3], 0), rows(range(6)))
    assert scores["by_size"] == {
        "G1": 1.0, "G2": pytest.approx(1 / 2), "G3": pytest.approx(1 / 3), "G4": None, "G5+": None,
    }  # fmt: skip
    assert scores["task_2"] == pytest.approx(3 / 6)
    assert scores["task_3"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_a_wrong_group_is_a_miss_but_no_false_alarm():
    """True {0, 1, 2}, {3}; predicted {0, 1}, {2, 3}: 0, 1 and 3 are right, 2 counts nowhere."""
    scores = score_groups(rows([1, 1, 1, 2], 0), rows([1, 1, 2, 2]))
    assert scores["by_size"]["G3"] == pytest.approx(2 / 3) and scores["by_size"]["G1"] == 1.0
    assert scores["task_2"] == pytest.approx(3 / 4)


def test_a_box_of_nobody_is_a_false_alarm_where_its_score_is_high():
    """Two pairs found; a box on nobody, put in the first group, ranks first: precision 1/2, 2/3, 3/4, 4/5."""
    boxes = [[100 * k, 50, 60, 120] for k in range(4)]
    found = rows([1, 1, 2, 2, 1], [0.8, 0.7, 0.6, 0.5, 0.9], boxes=[*boxes, [900, 50, 60, 120]])
    scores = score_groups(rows([1, 1, 2, 2], 0), found)
    assert scores["task_3"] == scores["by_size"]["G2"] == pytest.approx(4 / 5)  # made non-increasing
    assert scores["task_2"] == pytest.approx(4 / 5)


def test_difficult_people_count_neither_way():
    truth = rows([1, 1, 2], [0, 0, 3])
    assert score_groups(truth, rows([1, 1, 2]))["by_size"] == {
        "G1": None, "G2": 1.0, "G3": None, "G4": None, "G5+": None,
    }  # fmt: skip


def test_figures_of_the_toolkits_own_script():
    """JRDB_eval.py of jrdb_toolkit (4fbf7d6) on these rows: jittered boxes, false alarms, ties."""
    rng = np.random.default_rng(7)
    truth, found = [], []
    for frame in (15, 30):
        corners = rng.integers(0, 700, (20, 2))
        corners = np.hstack([corners, corners + rng.integers(40, 120, (20, 2))])
        groups = rng.integers(1, 9, 20)
        for k in range(32):
            if k < 20:
                truth.append([0, frame, *corners[k], groups[k], 1, rng.integers(0, 4)])
            box = corners[k % 26 % 20] + rng.integers(-12, 13, 4) + (k > 25) * 900
            group = groups[k % 26 % 20] if rng.random() < 0.6 else rng.integers(1, 11)
            found.append([0, frame, *box, group, 1, round(rng.random(), 1)])
    scores = score_groups(np.array(truth, float), np.array(found, float))
    assert scores["task_2"] == pytest.approx(0.4747619047619047, abs=1e-6)
    assert scores["task_3"] == pytest.approx(0.5066666666666666, abs=1e-6)


def test_rows_are_those_the_toolkit_keeps():
    """Keyframes alone, boxes inside the panorama alone; groups count from 1 in every frame."""
    boxes = np.array(
        [[0, 0, 60, 120], [3700, 50, 61, 120], [5, 400, 10, 81], [9.5, 50, 60, 120], [9, 5, 6, 7]]
    )
    times, groups = np.array([15, 15, 15, 15, 16]), np.array([-4, 8, 8, 8, 8])
    kept = group_rows(np.full(5, 3), times, boxes, groups, np.full(5, 0.25), SIZE)
    assert rows_text(kept) == "3 15 0 0 60 120 1 1 0.25\n3 15 9.5 50 69.5 170 2 1 0.25\n"
