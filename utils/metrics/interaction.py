"""What a frame's pairs add up to: six outcomes of both stages, and social groups with their AP by size.

End to end, a pair beyond the distance limit is never scored: it counts as predicted "none" with score 0, so
people who interact from far apart are misses of the whole system.

Groups are judged as in JRDB-Act. The two ways to err about one are judged apart: how sure the pairs were (the
score, which orders the groups) and who belongs to it (the members, which decide between right and wrong).
People are rows over any number of frames, a group never reaches over two frames.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import average_precision_score

from utils.metrics.classification import confusion

NONE = "none"
SIZE_BINS = ("G1", "G2", "G3", "G4", "G5+")
MEMBER_IOU = 0.5  # of the members of a predicted and a true group, for the two to match


def six_outcomes(
    p_interaction: np.ndarray, p_types: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes (N,) ints, 0 = none, k + 1 = type k, and scores (N, K) = p(interaction) * p(type)."""
    outcomes = np.where(p_interaction >= threshold, p_types.argmax(axis=1) + 1, 0)
    return outcomes, p_interaction[:, None] * p_types


def end_to_end_metrics(
    truth: np.ndarray,
    outcomes: np.ndarray,
    scores: np.ndarray,
    far_types: np.ndarray,
    far_others: int,
    types: Sequence[str],
) -> dict:
    """Six-way confusion matrix, macro F1 and a row per outcome.

    truth, outcomes (N,): the pairs in range, 0 = none, k + 1 = type k; scores (N, K). far_types (M,): the
    types of interacting pairs beyond the distance limit; far_others: how many other pairs lie beyond it.
    AP of a type ranks all pairs by p(interaction) * p(type), those beyond the limit last.
    """
    names = [NONE, *types]
    counts = confusion(truth, outcomes, len(names))
    counts[0, 0] += far_others
    counts[1:, 0] += np.bincount(far_types, minlength=len(types))
    hits, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    rows = {}
    for k, name in enumerate(names):
        known = support[k] > 0
        rows[name] = {
            "support": int(support[k]),
            "precision": float(hits[k] / predicted[k]) if predicted[k] else None,
            "recall": float(hits[k] / support[k]) if known else None,
            "f1": float(2 * hits[k] / (support[k] + predicted[k])) if known else None,
            "ap": None,
        }
        if k and known:
            positive = np.concatenate([truth == k, far_types == k - 1, [False]])
            ranked = np.concatenate([scores[:, k - 1], np.zeros(len(far_types) + 1)])
            weights = np.concatenate([np.ones(len(truth) + len(far_types)), [far_others]])
            rows[name]["ap"] = float(average_precision_score(positive, ranked, sample_weight=weights))
    present = [row["f1"] for row in rows.values() if row["support"]]
    return {
        "macro_f1": float(np.mean(present)),
        "accuracy": float(hits.sum() / counts.sum()),
        "per_outcome": rows,
        "confusion": counts,
    }


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
