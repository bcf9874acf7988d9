"""Social groups from pair probabilities, and how well they match the true groups.

People are rows over any number of frames; a group never spans two frames. Groups are found in two ways.
Connected components link all pairs at or above a threshold, so one wrong pair chains two groups together.
Average linkage joins two groups if their people interact with an average probability of at least `cut`.

Whole groups are judged more strictly here than JRDB-Act judges people (utils/metrics/jrdb_act.py).
"""

import numpy as np
import pandas
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, shortest_path
from scipy.spatial.distance import squareform
from sklearn.metrics import average_precision_score

SIZE_BINS = ("G1", "G2", "G3", "G4", "G5+")
MEMBER_IOU = 0.5  # a predicted and a true group match if their members have at least this IoU
CUT = 0.45  # the best for pairs from models of other places; docs/results.md compares it with a choice on val


def find_components(people: int, pairs: np.ndarray) -> np.ndarray:
    """Group number of each person (people,): the connected components of these pairs (P, 2) of rows."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(people, people))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def find_clusters(
    frames: np.ndarray, pairs: np.ndarray, p: np.ndarray, threshold: float, cut: float = CUT
) -> np.ndarray:
    """Group number of each person (R,), by average linkage within each frame.

    frames (R,) non-decreasing; pairs (P, 2) of rows, sorted by frame, with probabilities p (P,) of
    interacting. These are first rescaled so that `threshold` becomes one half, since the sampling of training
    shifted them. Two people who are no pair (out of range) get the product along the best chain of pairs."""
    p, limit = (np.clip(values, 1e-9, 1 - 1e-9) for values in (p, threshold))
    cost = np.log1p(limit / (1 - limit) / (p / (1 - p)))  # -log of the scaled probability, above 0
    groups = np.arange(len(frames))
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    pair_starts = np.searchsorted(frames[pairs[:, 0]], frames[starts])
    ends, pair_ends = np.append(starts[1:], len(frames)), np.append(pair_starts[1:], len(pairs))
    for start, end, pair_start, pair_end in zip(starts, ends, pair_starts, pair_ends, strict=True):
        if pair_end > pair_start:
            first, second = pairs[pair_start:pair_end].T - start
            costs = np.full((end - start, end - start), np.inf)
            costs[first, second] = costs[second, first] = cost[pair_start:pair_end]
            chains = shortest_path(np.where(np.isfinite(costs), costs, 0), directed=False)
            apart = 1 - np.exp(-np.where(np.isfinite(costs), costs, chains))
            np.fill_diagonal(apart, 0)
            tree = linkage(squareform(apart, checks=False), "average")
            groups[start:end] = start + fcluster(tree, 1 - cut, "distance") - 1
    return groups


def number_groups(frames: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(R,) the groups of each frame numbered from 1, in order of `groups`."""
    return pandas.Series(groups).groupby(frames).rank("dense").to_numpy(np.int64)


def group_scores(groups: np.ndarray, pairs: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The confidence in each group (max + 1,): the mean probability of its pairs.
    For a person alone: 1 - the largest probability of a pair with this person, 1 if there is no pair."""
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    first, second = groups[pairs].T
    inside, count = first == second, groups.max(initial=-1) + 1
    pairs_of = np.bincount(first[inside], minlength=count)
    total = np.bincount(first[inside], weights=probabilities[inside], minlength=count)
    largest = np.zeros(len(groups))
    np.maximum.at(largest, pairs.ravel(), np.repeat(probabilities, 2))  # both people of each pair
    alone = np.zeros(count)
    alone[groups] = 1 - largest  # used for single people only, who have one row each
    return np.where(pairs_of > 0, total / np.maximum(pairs_of, 1), alone)


def group_metrics(
    frames: np.ndarray, predicted: np.ndarray, scores: np.ndarray, true: np.ndarray
) -> dict[str, dict[str, float | int | None]]:
    """Per size bin: ap (None if no true group has that size), true_groups, predicted_groups, matched.

    frames (R,) of each person; predicted (R,) group numbers, with the groups' scores (groups,); true (R,)
    social group ids, unique within a frame. People of group -1 (unknown) are left out on both sides.

    A predicted group is right if its members have an IoU of at least 0.5 with a true group of its frame and
    size bin that is not matched yet. Predictions choose in order of falling score, equal ones in the order
    given; each takes the first that fits (there is a choice only for G5+, of two at exactly 0.5). AP is
    the area under the stepwise precision-recall curve over all frames; equal scores form one step."""
    known = np.asarray(true) != -1
    frames, predicted, true = (np.asarray(values)[known] for values in (frames, predicted, true))
    kept, predicted = np.unique(predicted, return_inverse=True)
    scores = np.asarray(scores)[kept]
    _, true = np.unique(np.stack([frames, true]), axis=1, return_inverse=True)
    true = true.ravel()
    sizes, true_sizes = np.bincount(predicted), np.bincount(true)
    bins, true_bins = size_bins(sizes), size_bins(true_sizes)

    (p, t), shared = np.unique(np.stack([predicted, true]), axis=1, return_counts=True)
    iou = shared / (sizes[p] + true_sizes[t] - shared)
    fits = (bins[p] == true_bins[t]) & (iou >= MEMBER_IOU)
    p, t = p[fits], t[fits]
    matched, taken = np.zeros(len(sizes), bool), np.zeros(len(true_sizes), bool)
    for k in np.lexsort((t, p, -scores[p])):
        if not matched[p[k]] and not taken[t[k]]:
            matched[p[k]] = taken[t[k]] = True

    metrics = {}
    for number, name in enumerate(SIZE_BINS):
        mine, truth = bins == number, int((true_bins == number).sum())
        hits = int(matched[mine].sum())
        ap = 0.0 if truth else None
        if hits:  # sklearn's recall divides by the matched groups, this one by the true groups
            ap = average_precision_score(matched[mine], scores[mine]) * hits / truth
        counts = {"true_groups": truth, "predicted_groups": int(mine.sum()), "matched": hits}
        metrics[name] = {"ap": ap, **counts}
    return metrics


def size_bins(sizes: np.ndarray) -> np.ndarray:
    """Index into SIZE_BINS for groups of these sizes (1 or more)."""
    return np.minimum(sizes, len(SIZE_BINS)) - 1
