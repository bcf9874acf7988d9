"""Did the model learn? The verdict, and the jackknife intervals over whole groups that it rests on.

`python -m benchmarks.verdict` measures how often a model that learned nothing is called LEARNED;
benchmarks/tables.md has the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from utils.run.errors import counted

MINIMUM = 5  # groups: with 2, chance alone is called LEARNED in 8% of data sets, with 3 in almost 5%
RANGES = {"mae": (0, np.inf), "subject_mae": (0, np.inf), "skill": (-np.inf, 1)}  # other metrics: 0 to 1
BLOCKS = 200  # of frames, at most, to leave out where groups are too few; enough, and still quick


@dataclass(frozen=True)
class Verdict:
    """LEARNED, NOT LEARNED or NOT JUDGED, and why.
    reference: how the model compares with the strongest reference; does not affect the word; may be empty."""

    word: str
    reason: str
    reference: str = ""

    @property
    def learned(self) -> bool:
        return self.word == "LEARNED"

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" + (f"; {self.reference}" if self.reference else "")


def judge(
    metric: str, model: np.ndarray, trivial: np.ndarray, trivial_name: str, split: str,
    jackknife: "GroupJackknife", *, unit: str, higher_is_better: bool = True, truncated: bool = False,
    reference: "Comparison | None" = None,
) -> Verdict:  # fmt: skip
    """LEARNED iff the 95% interval of the paired difference model - trivial lies on the better side of 0.

    `model` and `trivial` (1 + n,) are jackknife rows of the metric on the same samples of `split`. The train
    split, which a model can know by heart, and a run cut by --max_batches are never LEARNED. With fewer than
    MINIMUM groups (`unit` is their plural) learning cannot be told from luck: NOT JUDGED. reference: the
    comparison with the strongest reference, to be reported beside the verdict."""
    found = Comparison.of(metric, model, trivial, trivial_name, jackknife, higher_is_better)
    word = "LEARNED" if found.better else "NOT LEARNED"
    reason, against = f"{'beats' if found.better else 'does not beat'} {found}", f"against {found}"
    beside = reference.words() if reference else ""
    if not jackknife.enough:
        word, groups = "NOT JUDGED", counted(jackknife.count, unit)
        if jackknife.count < jackknife.total:
            groups = f"{jackknife.count} of {jackknife.total} {unit} hold the rarer class"
        optimistic = f" (interval over frames, not {unit}: optimistic)" if jackknife.over_frames else ""
        reason = f"{groups}, {MINIMUM} are needed to tell learning from luck; {against}{optimistic}"
        beside = f"against {reference}{optimistic}" if reference else ""
    if split == "train":
        word, reason = "NOT LEARNED", f"never judged on train, which a model can know by heart; {against}"
    if truncated:
        word, reason = "NOT LEARNED", f"truncated by --max_batches or --dry_run; {against}"
    if split == "val":
        reason += "; val is the split that selects the best epoch: the figure is optimistic"
    return Verdict(word, reason, beside)


@dataclass(frozen=True)
class Comparison:
    """A model compared with one other scorer: the paired difference model - other of a metric."""

    name: str
    metric: str
    model: float
    other: float
    low: float
    high: float
    higher_is_better: bool = True

    @classmethod
    def of(
        cls, metric: str, model: np.ndarray, other: np.ndarray, name: str, jackknife: "GroupJackknife",
        higher_is_better: bool = True, *scatter: tuple[float, float],
    ) -> "Comparison":  # fmt: skip
        """From the jackknife rows (1 + n,) of the metric for both; scatter: more of it, see `interval`. The
        interval is cut at what a difference can be: -1 to 1 for scores from 0 to 1; errors have no limit."""
        top = 1 if higher_is_better else np.inf
        low, high = np.clip(jackknife.interval(model - other, *scatter), -top, top).tolist()
        return cls(name, metric, float(model[0]), float(other[0]), low, high, higher_is_better)

    @property
    def better(self) -> bool:
        """Better with 95% confidence; False if there is no interval."""
        return self.low > 0 if self.higher_is_better else self.high < 0

    @property
    def worse(self) -> bool:
        return self.high < 0 if self.higher_is_better else self.low > 0

    @property
    def gain(self) -> str:
        """'+0.120 [+0.080, +0.240]'."""
        if not np.isfinite(self.model - self.other):
            return "undefined"
        interval = f"[{self.low:+.3f}, {self.high:+.3f}]" if np.isfinite(self.low) else "(no interval)"
        return f"{self.model - self.other:+.3f} {interval}"

    def __str__(self) -> str:
        return f"{self.name}: {self.metric} {self.gain}"

    def warnings(self) -> list[str]:
        """One if the other is or may be better, by at least half of the third digit."""
        behind = (self.other - self.model) * (1 if self.higher_is_better else -1)
        both = f"{self.metric} {self.other:.3f}, the model's {self.model:.3f}"
        better = "is better" if self.worse else "may be better"
        return [f"a reference {better}: {both}; model minus {self}"] if behind >= 0.0005 else []

    def words(self) -> str:
        """'not better than boosted trees (AP -0.019 [-0.050, +0.010])'."""
        word = "better than" if self.better else "worse than" if self.worse else "not better than"
        return f"{word} {self.name} ({self.metric} {self.gain})"


class GroupJackknife:
    """Recomputes a metric with one whole group left out at a time, the same groups for every metric.

    Groups are sequences, scenarios or subjects; n of them give rows (1 + n, ...): the metric on all samples,
    then without each group. The spread of the rows gives its standard error (Tukey 1958; Efron and Tibshirani
    1993, chapter 11).

    labels: the two classes, for metrics that rank. Then the number of independent observations is `count`,
    the groups (of `total`) that hold the rarer class. If `count` is below MINIMUM, `enough` is False, and the
    finer `fallback` groups (frames), if given, are left out in up to BLOCKS consecutive blocks (over_frames).
    """

    def __init__(
        self, groups: np.ndarray, labels: np.ndarray | None = None, fallback: np.ndarray | None = None
    ):
        def holding(group: np.ndarray) -> int:
            """The number of groups, or of those that hold the rarer class."""
            sides = [group] if labels is None else [group[labels == k] for k in np.unique(labels)]
            return min(len(np.unique(side)) for side in sides)

        names, self.group = np.unique(groups, return_inverse=True)
        self.total, self.count = len(names), holding(self.group)
        self.enough = self.count >= MINIMUM
        self.over_frames = not self.enough and fallback is not None
        if self.over_frames:
            import pandas

            frame, names = pandas.factorize(fallback)  # numbered as they come: names may not sort by time
            self.group = frame * min(len(names), BLOCKS) // len(names)
        self.n, self.degrees = int(self.group.max()) + 1, holding(self.group) - 1

    def interval(self, rows: np.ndarray, *others: tuple[float, float]) -> list[float]:
        """The 95% interval of a metric by Student's t, from its rows (1 + n,); NaN where it is not defined.
        others: (variance, degrees of freedom) of other sources of scatter, such as seeds (Welch 1947)."""
        from scipy.stats import t

        parts = [(float((self.n - 1) * np.var(rows[1:])), self.degrees), *others]
        total = sum(variance for variance, _ in parts)
        if any(degrees < 1 for _, degrees in parts) or not np.isfinite(total):
            return [float("nan"), float("nan")]
        freedom = total**2 / sum(v**2 / d for v, d in parts) if total > 0 else self.degrees
        reach = float(t.ppf(0.975, freedom)) * total**0.5
        return [float(rows[0]) - reach, float(rows[0]) + reach]

    def intervals(self, **rows: np.ndarray) -> dict[str, list[float]]:
        """The 95% interval of each metric that has one, cut at the metric's own range."""
        bounds = {k: np.clip(self.interval(v), *RANGES.get(k, (0, 1))) for k, v in rows.items()}
        return {name: ends.tolist() for name, ends in bounds.items() if np.isfinite(ends).all()}

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Rows (1 + n, ...) of the sum of `values` (N,) or (N, ...) over samples."""
        flat = values.reshape(len(values), -1).astype(float)
        parts = np.stack([np.bincount(self.group, column, self.n) for column in flat.T], axis=1)
        whole = parts.sum(axis=0)
        return np.vstack([whole, whole - parts]).reshape(1 + self.n, *values.shape[1:])

    def means(self, values: np.ndarray) -> np.ndarray:
        return divide(self.sums(values), self.sums(np.ones(len(values))))

    def ranking(self, metric: Callable, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Rows of `weighted_auroc` or `weighted_ap`, 50 at a time to bound the memory."""
        order = np.argsort(-scores, kind="stable")
        last_of_ties = np.append(np.diff(scores[order]) != 0, True)
        left_out = np.arange(-1, self.n)[:, None]  # -1 is no group
        kept = (part != self.group[order] for part in np.array_split(left_out, 1 + self.n // 50))
        return np.concatenate([metric(labels[order], last_of_ties, part.astype(int)) for part in kept])

    def auroc(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return self.ranking(weighted_auroc, labels, scores)

    def ap(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return self.ranking(weighted_ap, labels, scores)

    def macro_f1(self, labels: np.ndarray, guess: np.ndarray, weights: np.ndarray | float = 1) -> np.ndarray:
        """Rows of the macro F1 over the classes present in all of `labels`.
        `guess` (N, K): one-hot, or probabilities (expected counts); weights (N,): samples each stands for."""
        each = np.broadcast_to(weights, len(labels))[:, None]
        truth = np.eye(guess.shape[1])[labels] * each
        hits, support, guessed = (self.sums(values) for values in (truth * guess, truth, guess * each))
        return (2 * hits / np.maximum(support + guessed, 1e-9))[:, np.unique(labels)].mean(axis=1)

    def f1(self, labels: np.ndarray, preds: np.ndarray) -> np.ndarray:
        hits, support, guessed = (self.sums(v) for v in (labels * preds, labels, preds))
        return 2 * hits / np.maximum(support + guessed, 1)


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN, without a warning, where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator != 0)


def weighted_auroc(labels: np.ndarray, last_of_ties: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC (R,) of samples sorted by falling score, one per row of `weights` (R, N); ties count half.
    The area under the ROC polygon, as in sklearn.metrics.roc_auc_score with sample_weight."""
    true, false = (np.cumsum(weights * side, axis=1)[:, last_of_ties] for side in (labels, 1 - labels))
    zero = np.zeros((len(weights), 1))
    true, false = np.hstack([zero, true]), np.hstack([zero, false])
    area = (np.diff(false, axis=1) * (true[:, 1:] + true[:, :-1])).sum(axis=1) / 2
    return divide(area, true[:, -1] * false[:, -1])


def weighted_ap(labels: np.ndarray, last_of_ties: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision (R,) per row of `weights` (R, N): sum over thresholds of recall step * precision."""
    true, total = (np.cumsum(values, axis=1)[:, last_of_ties] for values in (weights * labels, weights))
    precision = true / np.maximum(total, 1)
    steps = np.diff(true, axis=1, prepend=0)
    return divide((steps * precision).sum(axis=1), true[:, -1])
