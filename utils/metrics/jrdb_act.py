"""Social groups as JRDB-Act scores them: tasks 2 and 3 of its toolkit for people with true boxes, with the
same result down to ties.

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
from pandas import DataFrame
from scipy.optimize import linear_sum_assignment

from utils.metrics.groups import SIZE_BINS, number_groups, size_bins

KEYFRAME = 15  # frames, one second
DIFFICULT = 2  # people of at least this difficulty count neither as found nor as missed


def keyframe_rows(
    part: Any, groups: np.ndarray, people: np.ndarray, names: Sequence[str], last: float = 1.0
) -> DataFrame:
    """The values of det_group.txt or gt_group.txt, a row for each of `people` (row numbers of a
    JRDBPairDataset) in groups (R,). Like the toolkit, this keeps only people in keyframes with boxes inside
    the panorama, numbers sequences by the sorted `names`, and groups from 1 in every keyframe. last: score
    or difficulty."""
    frames = part.people_frames[people]
    number = np.array([sorted(names).index(name) for name in part.sequences])
    sequences, times = number[part.frame_sequences[frames]], part.frame_times[frames]
    x, y, w, h = part.boxes[people].T
    width, height = np.array(part.pano_sizes)[part.frame_sequences[frames]].T
    kept = (times % KEYFRAME == 0) & (times >= KEYFRAME)
    kept &= (x >= 0) & (y >= 0) & (x + w <= width) & (y + h <= height)
    numbers = number_groups(frames, groups[people])
    rows = {"sequence": sequences, "keyframe": times, "x1": x, "y1": y, "x2": x + w, "y2": y + h}
    return DataFrame(rows | {"group": numbers, "activity": 1, "last": last})[kept]


def rows_text(rows: DataFrame) -> str:
    """The text of det_group.txt or gt_group.txt."""
    return rows.to_csv(sep=" ", header=False, index=False, float_format="%.10g", lineterminator="\n")


def score_groups(truth: DataFrame, found: DataFrame) -> dict[str, Any]:
    """{"task_2": AP, "task_3": mAP, "by_size": {G1..G5+: AP}} from rows of the same people, in the same
    order, in true and in predicted groups. None for a size that no group has, or if nobody counts."""
    right, sizes = np.zeros(len(truth), bool), np.zeros(len(truth), np.int64)
    for mine in truth.groupby(["sequence", "keyframe"]).indices.values():
        true, guess = (rows["group"].to_numpy()[mine] for rows in (truth, found))
        shared = np.zeros((1 + max(true.max(), guess.max()),) * 2, np.int64)  # square: the toolkit's ties
        np.add.at(shared, (guess, true), 1)
        right[mine] = linear_sum_assignment(shared, maximize=True)[1][guess] == true
        sizes[mine] = shared.sum(axis=0)[true]
    easy = (truth["last"] < DIFFICULT).to_numpy()
    right, bins = right[easy], size_bins(sizes[easy])
    aps = [float(right[bins == k].mean()) if k in bins else None for k in range(len(SIZE_BINS))]
    known = [ap for ap in aps if ap is not None]
    task_2, task_3 = (float(np.mean(values)) if len(values) else None for values in (right, known))
    return {"task_2": task_2, "task_3": task_3, "by_size": dict(zip(SIZE_BINS, aps, strict=True))}
