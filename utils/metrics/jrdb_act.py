"""Social groups as JRDB-Act scores them: tasks 2 and 3 of its toolkit, to the last tie.

    rows   one per person and keyframe, the nine values of det_group.txt and gt_group.txt:
           sequence, keyframe, x1, y1, x2, y2, group, activity, score (truth: difficulty)

Source: README.md and JRDB_eval.py in Action&Social_grouping_eval of github.com/JRDB-dataset/jrdb_toolkit.
Every person counts, not every group: predicted groups of a keyframe are assigned to true ones (the assignment
that puts the most people right), a person in the wrong one is a miss but no false alarm. Task 2 is the AP of
all people, task 3 the mean of the APs of people in groups of 1, 2, 3, 4 and 5 or more. With true boxes no
person is a false alarm and an AP is the share of people put right: everybody alone scores 1, 1/2, 1/3, 1/4
and so on in task 3.
"""

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.metrics.groups import SIZE_BINS

KEYFRAME = 15  # frames, one second
DIFFICULT = 2  # people of this difficulty or more count neither as found nor as missed
BOX_IOU = 0.5
BOX, GROUP, LAST = slice(2, 6), 6, 8  # columns of the rows
WRONG = 6  # the class of people in a wrong group, which is none of the classes scored


def keyframe_rows(
    part: Any, groups: np.ndarray, people: np.ndarray, names: Sequence[str], last: float = 1.0
) -> np.ndarray:
    """The rows of these `people` (rows) of a JRDBPairDataset, in groups (R,).
    Sequences are numbered as the toolkit numbers a folder, by the sorted `names`; last: score or difficulty.
    """
    frames = part.people_frames[people]
    number = np.array([sorted(names).index(name) for name in part.sequences])
    sequences, times = number[part.frame_sequences[frames]], part.frame_times[frames]
    scores = np.full(len(people), last)
    return group_rows(sequences, times, part.boxes[people], groups[people], scores, part.pano_size)


def group_rows(
    sequences: np.ndarray, times: np.ndarray, boxes: np.ndarray, groups: np.ndarray, last: np.ndarray,
    size: tuple[int, int],
) -> np.ndarray:  # fmt: skip
    """(K, 9) rows of the people (R,) that the toolkit keeps: in keyframes, boxes inside the panorama.
    boxes (R, 4) x, y, w, h; groups become numbers from 1 in every keyframe; size (width, height)."""
    x, y, w, h = boxes.T
    kept = (times % KEYFRAME == 0) & (times >= KEYFRAME)
    kept &= (x >= 0) & (y >= 0) & (x + w <= size[0]) & (y + h <= size[1])
    _, frame = np.unique(np.stack([sequences, times]), axis=1, return_inverse=True)
    _, number = np.unique(np.stack([frame.ravel(), groups]), axis=1, return_inverse=True)
    first = np.full(len(times) + 1, len(times))
    np.minimum.at(first, frame.ravel(), number.ravel())  # the first group of each keyframe
    numbers = number.ravel() - first[frame.ravel()] + 1
    columns = (sequences, times, x, y, x + w, y + h, numbers, np.ones(len(times)), last)
    return np.stack(columns, axis=1)[kept]


def rows_text(rows: np.ndarray) -> str:
    """The text of det_group.txt or gt_group.txt."""
    return "".join(" ".join(format(value, ".10g") for value in row) + "\n" for row in rows)


def score_groups(truth: np.ndarray, found: np.ndarray) -> dict[str, float | dict[str, float | None]]:
    """{"task_2": mAP, "task_3": mAP, "by_size": {G1..G5+: AP}} of rows (K, 9), (M, 9); None: no truth."""
    true_frames, found_frames = by_keyframe(truth, is_truth=True), by_keyframe(found, is_truth=False)
    scores = {}
    for task, classes in (("task_2", 1), ("task_3", len(SIZE_BINS))):
        kinds_of = {key: true_kinds(rows[:, GROUP], classes) for key, rows in true_frames.items()}
        easy = [kinds[true_frames[key][:, LAST] < DIFFICULT] for key, kinds in kinds_of.items()]
        totals = np.bincount(np.concatenate(easy), minlength=classes + 1)
        judged = {kind: [(np.empty(0), np.empty(0, bool))] for kind in range(1, classes + 1)}
        for key, rows in found_frames.items():
            true, kinds = true_frames.get(key, rows[:0]), kinds_of.get(key, np.empty(0, np.int64))
            guessed = found_kinds(true, kinds, rows, classes)
            for kind, people in judged.items():
                people.append(find_people(true[kinds == kind], rows[guessed == kind]))
        aps = []
        for kind, people in judged.items():
            ranked, right = (np.concatenate(part) for part in zip(*people, strict=True))
            aps.append(average_precision(ranked, right, totals[kind]))
        known = [ap for ap in aps if ap is not None]
        scores[task] = float(np.mean(known)) if known else None
    return scores | {"by_size": dict(zip(SIZE_BINS, aps, strict=True))}


def by_keyframe(rows: np.ndarray, is_truth: bool) -> dict[tuple[float, float], np.ndarray]:
    """The rows of every keyframe in the toolkit's order, a heap then by falling score: ties need it."""
    heaps: dict[tuple[float, float], list] = {}
    for k, (sequence, frame, x1, y1, x2, y2, group, activity, last) in enumerate(rows.tolist()):
        score, difficulty = (1.0, last) if is_truth else (last, 0.0)
        person = score, group, activity, difficulty, y1, x1, y2, x2, k
        heapq.heappush(heaps.setdefault((sequence, frame), []), person)
    ordered = {key: sorted(heap, key=lambda person: -person[0]) for key, heap in heaps.items()}
    return {key: rows[[person[-1] for person in people]] for key, people in ordered.items()}


def true_kinds(groups: np.ndarray, classes: int) -> np.ndarray:
    """The class of everybody: 1, or of task 3 the size of their group, 5 at most."""
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.minimum(sizes[place], classes)


def found_kinds(true: np.ndarray, kinds: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """The class that everybody found counts for: that of their true group if they are in it, WRONG if not.
    A box that is nobody's counts for the group it was put in, by its true size or else by its own."""
    best, matched = best_boxes(true, found)
    true_groups, renamed = true[:, GROUP].astype(int), found[:, GROUP].astype(int)
    true_group, group = true_groups[best[matched]], renamed[matched]
    guessed = np.full(len(found), WRONG)
    if matched.any():
        size = max(group.max(), true_group.max()) + 1
        shared = np.zeros((size, size), np.int64)
        np.add.at(shared, (group, true_group), 1)
        assigned = linear_sum_assignment(shared.max() - shared)[1]
        known = np.isin(renamed, group)
        renamed[known] = assigned[renamed[known]]
        right = assigned[group] == true_group
        guessed[matched] = np.where(right, kinds[best[matched]], WRONG)
    own = true_kinds(renamed, classes)
    kind_of = dict(zip(true_groups.tolist(), kinds.tolist(), strict=True))
    for k in np.flatnonzero(~matched):
        guessed[k] = kind_of.get(renamed[k], own[k])
    return guessed


def best_boxes(true: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The true person each box overlaps most, and whether by enough, (M,) each."""
    if not len(true):
        return np.zeros(len(found), np.int64), np.zeros(len(found), bool)
    a, b = found[:, None, BOX], true[None, :, BOX]  # x1, y1, x2, y2
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(axis=2)  # (M, K)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(axis=2) for box in (a, b))
    iou = shared / (area_a + area_b - shared)
    return iou.argmax(axis=1), iou.max(axis=1) >= BOX_IOU


def find_people(true: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the people found in one class, and who is right: the first on every true person of it."""
    best, matched = best_boxes(true, found)
    difficult = matched & (true[best, LAST] >= DIFFICULT) if len(true) else matched
    right = np.zeros(len(found), bool)
    candidates = np.flatnonzero(matched & ~difficult)
    right[candidates[np.unique(best[candidates], return_index=True)[1]]] = True
    return found[~difficult, LAST], right[~difficult]


def average_precision(scores: np.ndarray, right: np.ndarray, total: int) -> float | None:
    """Area under the precision made non-increasing (PASCAL VOC 2010); None without true people."""
    if not total:
        return None
    right = right[np.argsort(scores)[::-1]].astype(int)
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(right) + 1))[::-1])[::-1]
    return float((right * precision).sum() / total)
