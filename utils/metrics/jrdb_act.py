"""Social groups as JRDB-Act scores them: tasks 2 and 3 of its toolkit for people with true boxes, with the
same result down to ties.

    rows   one per person and keyframe, with the nine values of det_group.txt and gt_group.txt:
           sequence, keyframe, x1, y1, x2, y2, group, activity, score (truth: difficulty)

Source: README.md and JRDB_eval.py in Action&Social_grouping_eval of github.com/JRDB-dataset/jrdb_toolkit.
The toolkit counts people, not groups. The predicted groups of a keyframe are assigned to the true ones so
that the most people are right; a person in the wrong group is a miss but not a false alarm. Task 2 is the AP
over all people, task 3 the mean of the APs over people in groups of 1, 2, 3, 4 and 5 or more. With true boxes
there are no false alarms, so an AP is the share of people in the right group: with everybody alone, the APs
of task 3 are 1, 1/2, 1/3, 1/4 and so on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.metrics.groups import SIZE_BINS, best_match, size_bins

KEYFRAME = 15  # frames, one second
DIFFICULT = 2  # people of at least this difficulty count neither as found nor as missed
GROUP, LAST = 6, 8  # columns of the rows


def keyframe_rows(
    part: Any, groups: np.ndarray, people: np.ndarray, names: Sequence[str], last: float = 1.0
) -> np.ndarray:
    """(K, 9) rows of `people` (row numbers of a JRDBPairDataset) in groups (R,). Like the toolkit, this keeps
    only people in keyframes with boxes inside the panorama and numbers sequences by the sorted `names`.
    Groups are numbered from 1 in every keyframe. last: score or difficulty."""
    import pandas

    frames = part.people_frames[people]
    number = np.array([sorted(names).index(name) for name in part.sequences])
    sequences, times = number[part.frame_sequences[frames]], part.frame_times[frames]
    x, y, w, h = part.boxes[people].T
    width, height = np.array(part.pano_sizes)[part.frame_sequences[frames]].T
    kept = (times % KEYFRAME == 0) & (times >= KEYFRAME)
    kept &= (x >= 0) & (y >= 0) & (x + w <= width) & (y + h <= height)
    numbers = pandas.Series(groups[people]).groupby(frames).rank("dense")
    ones = np.ones(len(people))
    columns = (sequences, times, x, y, x + w, y + h, numbers, ones, last * ones)
    return np.stack(columns, axis=1)[kept]


def rows_text(rows: np.ndarray) -> str:
    """The text of det_group.txt or gt_group.txt."""
    return "".join(" ".join(format(value, ".10g") for value in row) + "\n" for row in rows)


def score_groups(truth: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """{"task_2": AP, "task_3": mAP, "by_size": {G1..G5+: AP}} from rows (K, 9) of the same people, in the
    same order, in true and in predicted groups. None for a size that no group has, or if nobody counts."""
    right, sizes = np.zeros(len(truth), bool), np.zeros(len(truth), np.int64)
    for keyframe in np.unique(truth[:, :2], axis=0):
        mine = (truth[:, :2] == keyframe).all(axis=1)
        true, guess = (rows[mine, GROUP].astype(int) for rows in (truth, found))
        shared = np.zeros((1 + max(true.max(), guess.max()),) * 2, np.int64)  # square: the toolkit's ties
        np.add.at(shared, (guess, true), 1)
        right[mine] = best_match(shared)[guess] == true
        sizes[mine] = shared.sum(axis=0)[true]
    easy = truth[:, LAST] < DIFFICULT
    right, bins = right[easy], size_bins(sizes[easy])
    aps = [float(right[bins == k].mean()) if k in bins else None for k in range(len(SIZE_BINS))]
    known = [ap for ap in aps if ap is not None]
    task_2, task_3 = (float(np.mean(values)) if len(values) else None for values in (right, known))
    return {"task_2": task_2, "task_3": task_3, "by_size": dict(zip(SIZE_BINS, aps, strict=True))}
