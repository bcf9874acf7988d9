"""Did it learn? Intervals that resample whole groups, and the verdict that rests on one of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """LEARNED or NOT LEARNED, why, and the interval of the paired difference it rests on."""

    learned: bool
    reason: str
    difference: list[float]

    @property
    def word(self) -> str:
        return "LEARNED" if self.learned else "NOT LEARNED"


def judge(
    metric: str,
    model: np.ndarray,
    trivial: np.ndarray,
    trivial_name: str,
    split: str,
    *,
    higher_is_better: bool = True,
    optimistic: bool = False,
    truncated: bool = False,
) -> Verdict:
    """LEARNED iff the lower 95% bound of the paired bootstrap difference model - trivial is above 0.

    `model` and `trivial` (replicates,) hold the metric on the same resampled groups of `split`; for an error
    metric (higher_is_better False) the difference is trivial - model. The train split, which can be known by
    heart, and a run cut by --max_batches are never LEARNED.
    """
    low, high = interval(model - trivial if higher_is_better else trivial - model)
    learned = low > 0 and not truncated and split != "train"
    reason = (
        f"{metric} against {trivial_name}: paired difference 95% interval [{low:.3f}, {high:.3f}] "
        f"{'is above 0' if low > 0 else 'does not exclude 0'}"
    )
    if split == "train":
        reason = "never judged on train, which a model can know by heart; " + reason
    if truncated:
        reason = "truncated by --max_batches; " + reason
    if optimistic:
        reason += "; fewer than five groups, so frames were resampled and the interval is optimistic"
    if split == "val":
        reason += "; val is the split that selects the best epoch: the figure is optimistic"
    return Verdict(learned, reason, [low, high])


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
