"""Figures of every task: training curves, confusion matrix, scores. English labels, Agg, atomic files."""

import functools
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from utils.metrics.verdict import Verdict
from utils.run.folder import write_bytes
from utils.run.log import LOG
from utils.tasks import metrics_shown, nothing_reaches

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

COLORS = {"train": "#4C72B0", "val": "#DD8452"}


@dataclass(frozen=True)
class Panel:
    """One panel of training_curves.png: the history keys train_KEY and val_KEY, and a baseline to beat."""

    key: str
    title: str
    baseline: float | None = None
    baseline_name: str = "baseline"


def curve_panels(
    task: Mapping[str, Any], counts: Mapping[str, int] | None = None, unit: str = "", **known: float | None
) -> list[Panel]:
    """The panels of a row of utils.tasks.TASKS; `counts` {class: samples of val}, `unit` of an age.

    `known` {metric: value}: what knowing nothing reaches, where only the script can say (loss=...).
    """
    return [
        Panel(name, metric.title.format(unit=unit), known.get(name, nothing_reaches(metric, counts)),
              metric.nothing_name)
        for name, metric in metrics_shown(task, "curves").items()
    ]  # fmt: skip


def to_beat(panels: Sequence[Panel]) -> str:
    """'to beat on val: loss 0.6931 (best constant), AUROC 0.5 (chance)': the baselines of the panels."""
    known = [panel for panel in panels if panel.baseline is not None]
    return "to beat on val: " + ", ".join(f"{p.title} {p.baseline:.4g} ({p.baseline_name})" for p in known)


def never_fatal(draw: Callable[..., None]) -> Callable[..., None]:
    """A figure that can not be drawn is a warning in the log: hours of training outweigh a picture."""

    @functools.wraps(draw)
    def drawn_or_warned(*args: Any, **options: Any) -> None:
        try:
            draw(*args, **options)
        except Exception as error:
            plt.close("all")  # the figure it was drawing would stay open
            LOG.warning(f"{draw.__name__} failed, the run goes on: {type(error).__name__}: {error}")

    return drawn_or_warned


def save_figure(figure: Figure, path: Path) -> None:
    """Write the PNG atomically and close the figure (open figures are memory that grows with every epoch)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    write_bytes(path, buffer.getbuffer())


@never_fatal
def plot_curves(
    history: list[dict[str, Any]],
    panels: Sequence[Panel],
    path: Path,
    best_epoch: int | None = None,
    verdict: Verdict | None = None,
) -> None:
    """Draw train and val over the epochs, one panel per metric and one for the learning rate.

    A dotted line marks `best_epoch`; a verdict of NOT LEARNED stands in red above, with its reason.
    """
    count = len(panels) + 1
    columns = 2 if count <= 4 else 3
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.5 * columns, 3.6 * rows), layout="constrained", squeeze=False
    )
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 20 else ""
    for axis, panel in zip(axes.flat, panels, strict=False):
        drawn = []
        for split, color in COLORS.items():
            values = [row.get(f"{split}_{panel.key}") for row in history]
            if any(value is not None for value in values):
                values = [np.nan if value is None else value for value in values]
                axis.plot(epochs, values, marker=marker, markersize=3, color=color, label=split)
                drawn += values
        if panel.baseline is not None:
            axis.axhline(panel.baseline, linestyle="--", color="0.4", linewidth=1, label=panel.baseline_name)
        finite = [value for value in drawn if np.isfinite(value) and value > 0]
        if len(finite) == len(drawn) and finite and max(finite) > 100 * min(finite):
            axis.set_yscale("log")
        finish_axis(axis, panel.title, epochs, best_epoch)
        axis.legend(fontsize=8)
    rate = axes.flat[len(panels)]
    rate.plot(epochs, [row["lr"] for row in history], marker=marker, markersize=3, color="0.3")
    rate.set_ylim(bottom=0)
    finish_axis(rate, "learning rate", epochs, best_epoch)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    if verdict is not None and not verdict.learned:
        reason = textwrap.fill(verdict.reason, width=50 * columns)
        figure.suptitle(f"NOT LEARNED\n{reason}", color="#B00020", fontsize=10)
    save_figure(figure, path)


def finish_axis(axis: plt.Axes, title: str, epochs: Sequence[int], best_epoch: int | None) -> None:
    """Title, whole-number epochs, grid, and a dotted line at the best epoch."""
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.25)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) == 1:
        axis.set_xlim(epochs[0] - 1, epochs[0] + 1)
    if best_epoch is not None:
        axis.axvline(best_epoch, linestyle=":", color="0.3", linewidth=1, label=f"best epoch {best_epoch}")


@never_fatal
def plot_confusion(counts: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Rows are the truth, columns the prediction; each cell has its count and its share of the row."""
    import seaborn

    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = [
        [f"{n}\n{s:.0%}" for n, s in zip(ns, ss, strict=True)] for ns, ss in zip(counts, share, strict=True)
    ]
    side = 2.2 + 1.1 * len(names)
    figure, axis = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
    labels = [f"{name} ({total})" for name, total in zip(names, counts.sum(axis=1), strict=True)]
    seaborn.heatmap(share, annot=text, fmt="", vmin=0, vmax=1, cmap="Blues", cbar=False, square=True, ax=axis,
                    xticklabels=list(names), yticklabels=labels)  # fmt: skip
    axis.set(xlabel="predicted", ylabel="true (support)", title=title)
    axis.tick_params(axis="x", rotation=30)
    axis.tick_params(axis="y", rotation=0)
    for label in axis.get_xticklabels():
        label.set_horizontalalignment("right")
    save_figure(figure, path)


@never_fatal
def plot_distributions(
    labels: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    title: str,
    path: Path,
    threshold: float | None = None,
) -> None:
    """Histograms of the score by true class, each normalised to its class; dashed, the threshold."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for k, name in enumerate(names):
        mine = scores[labels == k]
        if len(mine):
            axis.hist(mine, np.linspace(0, 1, 41), weights=np.full(len(mine), 1 / len(mine)), alpha=0.5,
                      histtype="stepfilled", label=f"{name} ({len(mine)})")  # fmt: skip
    if threshold is not None:
        axis.axvline(threshold, linestyle="--", color="0.2", linewidth=1, label=f"threshold {threshold:.3f}")
    axis.set(xlabel="score", ylabel="share of the class", title=title)
    axis.legend(fontsize=9)
    save_figure(figure, path)


@never_fatal
def plot_class_probabilities(
    labels: np.ndarray, scores: np.ndarray, names: Sequence[str], title: str, path: Path
) -> None:
    """One panel per class: its probability (N, K) for samples of the class and for all others."""
    figure, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 3), sharey=True, layout="constrained")
    for k, (axis, name) in enumerate(zip(axes, names, strict=True)):
        for chosen, label in ((labels == k, name), (labels != k, "others")):
            if chosen.any():
                weights = np.full(chosen.sum(), 1 / chosen.sum())
                axis.hist(scores[chosen, k], np.linspace(0, 1, 21), weights=weights, alpha=0.5, label=label)
        axis.set(title=f"{name} ({(labels == k).sum()})", xlabel="probability", ylim=(0, 1))
    axes[0].set_ylabel("share")
    axes[0].legend(["of the class", "of the others"], fontsize=8)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


@never_fatal
def plot_class_distribution(before: dict[str, int], after: dict[str, int], path: Path) -> None:
    """Samples per class of the train split, as it is and after balancing."""
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    places = np.arange(len(before))
    for shift, counts, label in ((-0.2, before, "train split"), (0.2, after, "after balancing")):
        bars = axis.bar(places + shift, list(counts.values()), width=0.4, label=label)
        axis.bar_label(bars, fontsize=8)
    axis.set_xticks(places, list(before))
    axis.set(ylabel="pairs", title="class distribution")
    axis.margins(y=0.12)
    axis.legend()
    save_figure(figure, path)
