"""Social groups from pair probabilities, and how well they are found.

People are rows over any number of frames; a group never reaches over two frames. Two ways from pairs to
groups: connected components of the pairs at or above a threshold, where one pair too many chains two groups,
and average linkage, where two groups join as long as their people interact with probability `cut` on average.

Whole groups are judged more strictly than JRDB-Act judges people (utils/metrics/jrdb_act.py).
"""

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, shortest_path
from scipy.spatial.distance import squareform
from sklearn.metrics import average_precision_score

SIZE_BINS = ("G1", "G2", "G3", "G4", "G5+")
MEMBER_IOU = 0.5  # of the members of a predicted and a true group, for the two to match
CUTS = np.linspace(0.05, 0.95, 19)


def find_components(
    people: int, pairs: np.ndarray, probabilities: np.ndarray, threshold: float
) -> np.ndarray:
    """Group number of everybody (people,): connected by pairs (P, 2) of rows at or above the threshold."""
    first, second = np.asarray(pairs, np.int64).reshape(-1, 2)[probabilities >= threshold].T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(people, people))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def find_clusters(
    frames: np.ndarray, pairs: np.ndarray, p: np.ndarray, threshold: float, cuts: Sequence[float]
) -> np.ndarray:
    """Group numbers (cuts, R) by average linkage within each frame, one row per cut.

    frames (R,) non-decreasing; pairs (P, 2) rows, by frame, with probabilities p (P,) of interacting. These
    are scaled first so that `threshold` stands at one half: the sampling of training moved them. People who
    are no pair (out of range) interact as surely as the best chain of pairs between them, their product.
    """
    odds = np.clip(p, 1e-9, 1 - 1e-9) / (1 - np.clip(p, 1e-9, 1 - 1e-9))
    limit = np.clip(threshold, 1e-9, 1 - 1e-9)
    cost = np.log1p(limit / (1 - limit) / odds)  # -log of the scaled probability, above 0
    groups = np.tile(np.arange(len(frames)), (len(cuts), 1))
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
            for k, cut in enumerate(cuts):
                groups[k, start:end] = start + fcluster(tree, 1 - cut, "distance") - 1
    return groups


def choose_cut(
    frames: np.ndarray, pairs: np.ndarray, p: np.ndarray, threshold: float, true: np.ndarray
) -> float:
    """The one of CUTS that puts the most people right, of all and over the sizes of groups; ties: the middle.
    true (R,): social group ids, below 0 unknown."""
    known, shares = true >= 0, []
    if not known.any():
        return 0.5
    for groups in find_clusters(frames, pairs, p, threshold, CUTS):
        by_size = share_right(frames[known], groups[known], true[known])
        shares.append(by_size["all"] + np.mean([by_size[name] for name in SIZE_BINS if name in by_size]))
    best = np.flatnonzero(shares == np.max(shares))
    return float(CUTS[best[len(best) // 2]])


def share_right(frames: np.ndarray, groups: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Of all people and of those in true groups of each size, how many are in the right predicted group.
    Predicted groups of a frame stand for the true ones in the assignment that puts the most people right."""
    right, sizes = np.zeros(len(frames), bool), np.zeros(len(frames), np.int64)
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(frames)), strict=True):
        (_, p), (_, t) = (np.unique(ids[start:end], return_inverse=True) for ids in (groups, true))
        shared = coo_array((np.ones(len(p)), (p, t))).toarray()
        assigned = np.full(len(shared), -1)
        rows, columns = linear_sum_assignment(shared, maximize=True)
        assigned[rows] = columns
        right[start:end] = assigned[p] == t
        sizes[start:end] = shared.sum(axis=0)[t]
    bins = size_bins(sizes)
    by_size = {SIZE_BINS[k]: float(right[bins == k].mean()) for k in np.unique(bins)}
    return {"all": float(right.mean()), **by_size}


def group_scores(groups: np.ndarray, pairs: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How sure each group is (max + 1,): the mean probability of its pairs.
    Of one person: 1 - the largest probability of a pair with this person, 1 where there is no such pair."""
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    first, second = groups[pairs].T
    inside, count = first == second, groups.max(initial=-1) + 1
    pairs_of = np.bincount(first[inside], minlength=count)
    total = np.bincount(first[inside], weights=probabilities[inside], minlength=count)
    largest = np.zeros(len(groups))
    np.maximum.at(largest, pairs.ravel(), np.repeat(probabilities, 2))  # pairs.ravel(): both people of each
    alone = np.zeros(count)
    alone[groups] = 1 - largest  # read for single people only: one row each
    return np.where(pairs_of > 0, total / np.maximum(pairs_of, 1), alone)


def group_metrics(
    frames: np.ndarray, predicted: np.ndarray, scores: np.ndarray, true: np.ndarray
) -> dict[str, dict[str, float | int | None]]:
    """Per size bin: ap (None where the truth has no such group), true_groups, predicted_groups, matched.

    frames (R,) frame of each person; predicted (R,) group numbers, their scores (groups,); true (R,) social
    group ids, unique within a frame, below 0 where unknown: left out on both sides.

    A predicted group is right when the IoU of its members with a true group of its own frame and size bin,
    not matched yet, is at least 0.5. Predictions choose by falling score, equal ones in the order given; each
    takes the largest IoU, then the first (G5+ at exactly 0.5 alone leave a choice). AP is the area under the
    steps of precision over recall, over all frames, equal scores one step.
    """
    known = np.asarray(true) >= 0
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
    p, t, iou = p[fits], t[fits], iou[fits]
    matched, taken = np.zeros(len(sizes), bool), np.zeros(len(true_sizes), bool)
    for k in np.lexsort((t, -iou, p, -scores[p])):
        if not matched[p[k]] and not taken[t[k]]:
            matched[p[k]] = taken[t[k]] = True

    metrics = {}
    for number, name in enumerate(SIZE_BINS):
        mine, truth = bins == number, int((true_bins == number).sum())
        hits = int(matched[mine].sum())
        ap = 0.0 if truth else None
        if hits:  # sklearn's recall is of the matched groups; ours is of the true ones
            ap = average_precision_score(matched[mine], scores[mine]) * hits / truth
        counts = {"true_groups": truth, "predicted_groups": int(mine.sum()), "matched": hits}
        metrics[name] = {"ap": ap, **counts}
    return metrics


def size_bins(sizes: np.ndarray) -> np.ndarray:
    """Index into SIZE_BINS of groups of these sizes (1 or more)."""
    return np.minimum(sizes, len(SIZE_BINS)) - 1
