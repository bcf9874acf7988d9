"""The definition of every number in a report.

scikit-learn computes the points, one group bootstrap the intervals. Scores are probabilities of the positive
class (N,) or of each class (N, K); labels are integers. A metric that is undefined (one class only) is None,
never 0 or NaN.
"""

from collections.abc import Callable, Sequence

import numpy as np


def choose_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the best F1 of the positive class: predict 1 where score >= threshold.

    Midway between the best score and the next one below, so that rounding on another machine does not move a
    sample across it. With one class only there is nothing to choose: 0.5.
    """
    if len(np.unique(labels)) < 2:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(labels[order] == 1)
    last_of_ties = np.flatnonzero(np.append(np.diff(sorted_scores) != 0, True))
    f1 = 2 * hits[last_of_ties] / (last_of_ties + 1 + hits[-1])
    cut = last_of_ties[np.argmax(f1)]
    below = sorted_scores[cut + 1] if cut + 1 < len(scores) else sorted_scores[cut]
    return float((float(sorted_scores[cut]) + float(below)) / 2)


def binary_metrics(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float | None]:
    """AP, AUROC, and F1, balanced accuracy, accuracy, precision and recall at `threshold`."""
    from sklearn import metrics

    preds = (scores >= threshold).astype(int)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, preds, labels=[0, 1], zero_division=0
    )
    known, both = np.any(labels == 1), len(np.unique(labels)) == 2
    return {
        "ap": float(metrics.average_precision_score(labels, scores)) if both else None,
        "auroc": float(metrics.roc_auc_score(labels, scores)) if both else None,
        "f1": float(f1[1]) if known else None,
        "balanced_accuracy": float(recall.mean()) if both else None,
        "accuracy": float(np.mean(labels == preds)),
        "precision": float(precision[1]) if preds.any() else None,
        "recall": float(recall[1]) if known else None,
    }


def multiclass_metrics(labels: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> dict:
    """Macro F1 and balanced accuracy over the classes present, accuracy, and a row per class.

    A class absent from `labels` has support 0 and None for its figures; it is not part of any mean.
    """
    from sklearn import metrics

    preds = scores.argmax(axis=1)
    present = np.unique(labels)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, preds, labels=range(len(names)), zero_division=0
    )
    rows = {}
    for k, name in enumerate(names):
        known = k in present
        ap = float(metrics.average_precision_score(labels == k, scores[:, k])) if known else None
        figures = {"precision": precision[k], "recall": recall[k], "f1": f1[k]}
        rows[name] = {key: float(v) if known else None for key, v in figures.items()}
        rows[name] |= {"ap": ap, "support": int(support[k])}
    return {
        "macro_f1": float(f1[present].mean()),
        "balanced_accuracy": float(recall[present].mean()),
        "accuracy": float(np.mean(labels == preds)),
        "per_class": rows,
    }


def confusion(labels: np.ndarray, preds: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts, rows = truth, columns = prediction."""
    return np.bincount(labels * classes + preds, minlength=classes * classes).reshape(classes, classes)


class GroupBootstrap:
    """Resamples whole groups with replacement, the same draws for every statistic.

    Groups are sequences, scenarios or subjects. Classes are fixed to those present in `labels`; a replicate
    that lacks one is drawn again (labels None: no rule). With fewer than five groups the finer `fallback`
    groups (frames) are resampled and `optimistic` is True.

    `counts` (replicates, groups) says how often each group was drawn; `group` (N,) is each sample's group.
    """

    def __init__(
        self,
        groups: np.ndarray,
        labels: np.ndarray | None = None,
        fallback: np.ndarray | None = None,
        replicates: int = 1000,
        seed: int = 0,
    ):
        names, group = np.unique(groups, return_inverse=True)
        self.optimistic = len(names) < 5
        if self.optimistic and fallback is not None:
            names, group = np.unique(fallback, return_inverse=True)
        self.group, n = group, len(names)
        has_class = np.ones((n, 1), dtype=bool)
        if labels is not None:
            has_class = np.stack([np.bincount(group, labels == k, n) > 0 for k in np.unique(labels)], axis=1)
        rng = np.random.default_rng(seed)
        kept: list[np.ndarray] = []
        while len(kept) < replicates:
            drawn = rng.multinomial(n, np.full(n, 1 / n), size=replicates)
            complete = ((drawn @ has_class.astype(int)) > 0).all(axis=1)
            kept.extend(drawn[complete])
        self.counts = np.array(kept[:replicates])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Replicates of the sum over samples of `values` (N,) or (N, ...): (replicates, ...)."""
        flat = values.reshape(len(values), -1).astype(float)
        per_group = np.stack(
            [np.bincount(self.group, column, self.counts.shape[1]) for column in flat.T], axis=1
        )
        return (self.counts @ per_group).reshape(len(self.counts), *values.shape[1:])

    def means(self, values: np.ndarray) -> np.ndarray:
        """Replicates of the mean of `values` (N,)."""
        return self.sums(values) / self.sums(np.ones(len(values)))

    def ranking(self, metric: Callable, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Replicates of `weighted_auroc` or `weighted_ap`, 50 at a time to bound the memory."""
        order = np.argsort(-scores, kind="stable")
        last_of_ties = np.append(np.diff(scores[order]) != 0, True)
        parts = [
            metric(labels[order], last_of_ties, counts[:, self.group[order]])
            for counts in np.array_split(self.counts, max(1, len(self.counts) // 50))
        ]
        return np.concatenate(parts)

    def auroc(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return self.ranking(weighted_auroc, labels, scores)

    def ap(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return self.ranking(weighted_ap, labels, scores)

    def macro_f1(self, labels: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """Replicates of the macro F1 over the classes present in all of `labels`.

        `guess` (N, K): one-hot predictions, or the probabilities of a random guess (its expected counts are
        used).
        """
        truth = np.eye(guess.shape[1])[labels]
        hits, support, guessed = (self.sums(v) for v in (truth * guess, truth, guess))
        present = np.unique(labels)
        return (2 * hits / np.maximum(support + guessed, 1e-9))[:, present].mean(axis=1)

    def f1(self, labels: np.ndarray, preds: np.ndarray) -> np.ndarray:
        """Replicates of the F1 of class 1."""
        hits, support, guessed = (self.sums(v) for v in (labels * preds, labels, preds))
        return 2 * hits / np.maximum(support + guessed, 1)


def interval(replicates: np.ndarray) -> list[float]:
    """The central 95% of the replicates: [low, high]."""
    low, high = np.percentile(replicates, [2.5, 97.5])
    return [float(low), float(high)]


def weighted_auroc(labels: np.ndarray, last_of_ties: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC (R,) of samples sorted by falling score, once per row of `weights` (R, N); ties count half.

    The area under the ROC polygon, as sklearn.metrics.roc_auc_score with sample_weight.
    """
    true, false = (np.cumsum(weights * side, axis=1)[:, last_of_ties] for side in (labels, 1 - labels))
    zero = np.zeros((len(weights), 1))
    true, false = np.hstack([zero, true]), np.hstack([zero, false])
    area = (np.diff(false, axis=1) * (true[:, 1:] + true[:, :-1])).sum(axis=1) / 2
    return area / (true[:, -1] * false[:, -1])


def weighted_ap(labels: np.ndarray, last_of_ties: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision (R,) per row of `weights` (R, N): sum over thresholds of recall step * precision."""
    true, total = (
        np.cumsum(weights * side, axis=1)[:, last_of_ties] for side in (labels, np.ones_like(labels))
    )
    precision = true / np.maximum(total, 1)
    steps = np.diff(true, axis=1, prepend=0)
    return (steps * precision).sum(axis=1) / true[:, -1]
