"""Social groups from pair probabilities, and their average precision by size, as in JRDB-Act.

The two ways to err about a group are judged apart: how sure the pairs were (the score, which orders the
groups) and who belongs to it (the members, which decide between right and wrong). Arrays only: people are
rows over any number of frames, a group never reaches over two frames.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import average_precision_score

SIZE_BINS = ("G1", "G2", "G3", "G4", "G5+")
MEMBER_IOU = 0.5  # of the members of a predicted and a true group, for the two to match


def find_groups(
    people: int, pairs: np.ndarray, probabilities: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Group number of everybody (people,) int64, and the score of every group (groups,) float64.

    pairs (P, 2) rows, probabilities (P,) of interacting. Edges are the pairs at or above the threshold, a
    group is a connected component of them. Its score is the mean probability of its edges; that of a single
    person is 1 - the largest probability of a pair with this person, 1 where there is no such pair.
    """
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    edges = probabilities >= threshold
    first, second = pairs[edges].T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(people, people))
    count, members = connected_components(graph, directed=False)
    members = members.astype(np.int64)
    total = np.bincount(members[first], weights=probabilities[edges], minlength=count)
    edge_count = np.bincount(members[first], minlength=count)
    largest = np.zeros(people)
    np.maximum.at(largest, pairs.ravel(), np.repeat(probabilities, 2))  # pairs.ravel(): both people of each
    alone = np.zeros(count)
    alone[members] = 1 - largest  # read for single people only: one row each
    return members, np.where(edge_count > 0, total / np.maximum(edge_count, 1), alone)


def group_metrics(
    frames: np.ndarray, predicted: np.ndarray, scores: np.ndarray, true: np.ndarray
) -> dict[str, dict[str, float | int | None]]:
    """Per size bin: ap, true_groups, predicted_groups, matched. `ap` is None where the truth has no such
    group.

    frames (R,) frame of each person; predicted (R,) group numbers and scores (groups,) of `find_groups`; true
    (R,) social group ids, unique within a frame. A person whose true id is below 0 is unknown and left out on
    both sides.

    A predicted group is right when the IoU of its members with a true group of its own frame and size bin,
    not matched yet, is at least 0.5. Predictions choose by falling score, equal ones in the order given; each
    takes the largest IoU, then the first. Groups do not overlap, so a choice exists for G5+ at exactly 0.5
    alone. AP is the area under the steps of precision over recall, over all frames, equal scores one step.
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
        ap = None
        if truth:  # sklearn's recall is of the matched groups; ours is of the true ones
            ap = average_precision_score(matched[mine], scores[mine]) * hits / truth if hits else 0.0
        counts = {"true_groups": truth, "predicted_groups": int(mine.sum()), "matched": hits}
        metrics[name] = {"ap": ap, **counts}
    return metrics


def size_bins(sizes: np.ndarray) -> np.ndarray:
    """Index into SIZE_BINS of groups of these sizes (1 or more)."""
    return np.minimum(sizes, len(SIZE_BINS)) - 1
