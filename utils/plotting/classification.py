"""Figures of a classifier: confusion matrix, scores by class, ROC and precision-recall curves."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.metrics.calibration import BINS, calibration_bins, calibration_error
from utils.plotting.figures import COLORS, never_fatal, plt, save_figure


@never_fatal
def plot_confusion(counts: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Rows are true, columns predicted classes; each cell shows its count and its share of the row."""
    import seaborn

    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = np.vectorize("{}\n{:.0%}".format)(counts, share)
    labels = [f"{name} ({total})" for name, total in zip(names, counts.sum(axis=1), strict=True)]
    side, room = 2.2 + 1.1 * len(names), 0.09 * max(map(len, labels))  # inches; `room` is for the row names
    figure, axis = plt.subplots(figsize=(side + room, side), layout="constrained")
    seaborn.heatmap(share, annot=text, fmt="", vmin=0, vmax=1, cmap="Blues", cbar=False, square=True, ax=axis,
                    xticklabels=list(names), yticklabels=labels)  # fmt: skip
    axis.set(xlabel="predicted", ylabel="true (samples)")
    plt.setp(axis.get_xticklabels(), rotation=30, ha="right")
    plt.setp(axis.get_yticklabels(), rotation=0)
    save_figure(figure, path, title)


@never_fatal
def plot_distributions(
    labels: np.ndarray, scores: np.ndarray, names: Sequence[str], title: str, path: Path,
    threshold: float | None = None,
) -> None:  # fmt: skip
    """One panel per class with its probability, scores (N, K), for samples of the class and for all others,
    each normalised to 1. Of two classes only the second, scores (N,), with a dashed threshold."""
    panels = {1: scores} if scores.ndim == 1 else dict(enumerate(scores.T))
    size = 2 + 3 * len(panels), 3.4
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharey=True, layout="constrained", squeeze=False
    )
    for axis, (k, values) in zip(axes.flat, panels.items(), strict=True):
        for chosen, name in ((labels == k, "samples of this class"), (labels != k, "all other samples")):
            weights = np.full(chosen.sum(), 1 / max(1, chosen.sum()))
            axis.hist(values[chosen], np.linspace(0, 1, 21), weights=weights, alpha=0.5, label=name)
        axis.set(title=f"{names[k]} ({(labels == k).sum()})", xlabel="probability")
        if threshold is not None:
            axis.axvline(threshold, linestyle="--", color="0.2", label=f"threshold {threshold:.3f}")
    axes[0, 0].set_ylabel("share")
    axes[0, 0].legend(fontsize=8)
    save_figure(figure, path, title)


@never_fatal
def plot_class_distribution(before: dict[str, int], after: dict[str, int], path: Path) -> None:
    """Samples per class of the train split, before and after balancing."""
    import pandas

    names = [textwrap.fill(name, 10, break_long_words=False) for name in before]
    counts = {"train split": list(before.values()), "after balancing": list(after.values())}
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    pandas.DataFrame(counts, names).plot.bar(ax=axis, rot=0, width=0.8)
    for bars in axis.containers:
        axis.bar_label(bars, fontsize=8)
    axis.set(ylabel="pairs", title="class distribution")
    axis.margins(y=0.22)
    axis.legend(ncols=2, loc="upper center")  # above the label of the highest bar
    save_figure(figure, path)


@never_fatal
def plot_roc_pr(
    labels: np.ndarray, scores: dict[str, np.ndarray], alarms: np.ndarray, title: str, path: Path
) -> None:
    """ROC and precision-recall curves of each scorer (name -> scores (N,)); no file if labels have one class.
    A dot marks the first scorer's threshold, at which it predicts `alarms` (N,) bool."""
    from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

    if len(np.unique(labels)) < 2:
        return
    figure, (roc, pr) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for k, (name, values) in enumerate(scores.items()):
        last = {"name": name, "plot_chance_level": k == len(scores) - 1}
        RocCurveDisplay.from_predictions(labels, values, ax=roc, **last)
        PrecisionRecallDisplay.from_predictions(labels, values, ax=pr, **last)
    recall, right = alarms[labels == 1].mean(), labels[alarms].mean() if alarms.any() else 1
    for axis, place in ((roc, (alarms[labels == 0].mean(), recall)), (pr, (recall, right))):
        axis.plot(*place, "o", color="0.15", label="at the threshold", zorder=3)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    pr.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    for axis in (roc, pr):
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    save_figure(figure, path, title)


@never_fatal
def plot_reliability(labels: np.ndarray, scores: np.ndarray, what: str, title: str, path: Path) -> None:
    """Reliability diagram: share of positive labels by score; the area of a dot is the size of its bin.
    labels, scores: as in calibration_bins; `what` names a positive: 'the predicted class is right'."""
    bins = calibration_bins(labels, scores)
    kept = bins["count"] > 0
    figure, (axis, below) = plt.subplots(
        2, 1, figsize=(5.6, 6.4), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    axis.plot([0, 1], [0, 1], "--", color="0.4", linewidth=1, label="perfect calibration")
    area = 80 * bins["count"][kept] / bins["count"].max() + 3  # a bin of one sample says little
    axis.plot(bins["score"][kept], bins["share"][kept], color=COLORS["train"], label="the model")
    axis.scatter(bins["score"][kept], bins["share"][kept], area, color=COLORS["train"])
    axis.set(ylabel=f"share: {what}", xlim=(0, 1), ylim=(-0.03, 1.08))
    axis.set_title(f"{title}\ncalibration error {calibration_error(labels, scores):.3f}", fontsize=10)
    axis.legend(fontsize=8, loc="upper left")
    edges = np.linspace(0, 1, BINS + 1)[:-1]
    below.bar(edges, bins["count"], 1 / BINS, align="edge", color=COLORS["train"], edgecolor="white")
    below.set(xlabel="score", ylabel="samples", yscale="log")
    below.set_ylim(bottom=0.8)
    below.yaxis.set_major_formatter("{x:g}")
    below.minorticks_off()
    for each in (axis, below):
        each.grid(alpha=0.25)
    save_figure(figure, path)
