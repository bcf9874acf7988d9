"""Both stages judged together over all pairs of every frame: none, or one of the types.

A pair beyond the distance limit is never scored: it counts as predicted "none" with score 0, so people who
interact from far apart are misses of the whole system.
"""

from collections.abc import Sequence

import numpy as np

from utils.metrics.classification import confusion

NONE = "none"


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
    from sklearn.metrics import average_precision_score

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
