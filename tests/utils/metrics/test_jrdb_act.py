"""JRDB-Act's score of social groups: cases worked by hand, and figures of the toolkit's own script."""

from types import SimpleNamespace

import numpy as np
import pandas
import pytest

from utils.metrics.jrdb_act import keyframe_rows, rows_text, score_groups


def people(frames, boxes, times):
    """What is asked of a JRDBPairDataset of one sequence."""
    return SimpleNamespace(
        sequences=["a"], people_frames=np.array(frames), frame_sequences=np.zeros(len(times), int),
        frame_times=np.array(times), boxes=np.array(boxes, float), pano_sizes=[(3760, 480)],
    )  # fmt: skip


def rows(groups, last=1.0, frame=15):
    """People side by side, in these groups of one keyframe."""
    boxes = [[100 * k, 50, 60, 120] for k in range(len(groups))]
    part = people(np.zeros(len(groups), int), boxes, [frame])
    return keyframe_rows(part, np.array(groups), np.arange(len(groups)), ["a"], np.array(last))


def test_a_perfect_prediction_scores_one():
    truth = pandas.concat([rows([1, 2, 2, 3, 3, 3]), rows([4] * 4 + [9] * 6, frame=30)])
    truth["last"] = 0
    found = rows([7, 5, 5, 1, 1, 1]), rows([2] * 4 + [3] * 6, frame=30)
    assert score_groups(truth, pandas.concat(found)) == {
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


def test_difficult_people_count_neither_way():
    truth = rows([1, 1, 2], [0, 0, 3])
    assert score_groups(truth, rows([1, 1, 2]))["by_size"] == {
        "G1": None, "G2": 1.0, "G3": None, "G4": None, "G5+": None,
    }  # fmt: skip


def test_figures_of_the_toolkits_own_script():
    """JRDB_eval.py of jrdb_toolkit (4fbf7d6) on the true boxes: groups of many sizes, many ties."""
    rng = np.random.default_rng(7)
    truth, found = [], []
    for frame in range(15, 180, 15):
        groups = rng.integers(1, 9, 20)
        truth.append(rows(groups, rng.integers(0, 4, 20), frame))
        found.append(rows(np.where(rng.random(20) < 0.6, groups, rng.integers(1, 11, 20)), frame=frame))
    scores = score_groups(pandas.concat(truth), pandas.concat(found))
    assert scores["task_2"] == pytest.approx(0.6990291262135923, abs=1e-6)
    assert scores["task_3"] == pytest.approx(0.7533601123733951, abs=1e-6)


def test_rows_are_those_the_toolkit_keeps():
    """Keyframes alone, boxes inside the panorama alone; groups count from 1 in every frame."""
    boxes = [[0, 0, 60, 120], [3700, 50, 61, 120], [5, 400, 10, 81], [9.5, 50, 60, 120], [9, -1, 6, 7]]
    part = people([0, 0, 0, 0, 0, 1, 2], [*boxes, [9, 5, 6, 7], [9, 5, 6, 7]], [15, 16, 0])
    kept = keyframe_rows(part, np.array([-4, 8, 8, 8, 8, 8, 8]), np.arange(7), ["a", "3"], 0.25)
    assert rows_text(kept) == "1 15 0 0 60 120 1 1 0.25\n1 15 9.5 50 69.5 170 2 1 0.25\n"
