"""Figures of the anomaly task: ROC and precision-recall curves, and one frame with its heat map and points
from above.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from utils.plotting import save_figure


def plot_roc_pr(labels: np.ndarray, scores: dict[str, np.ndarray], path: Path) -> None:
    """ROC and precision-recall curves of each scorer (name -> scores (N,)); no file with one class only."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    if len(np.unique(labels)) < 2:
        return
    figure, (roc, pr) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for name, values in scores.items():
        false, true, _ = roc_curve(labels, values)
        precision, recall, _ = precision_recall_curve(labels, values)
        roc.plot(false, true, label=f"{name}: AUROC {roc_auc_score(labels, values):.3f}")
        pr.plot(recall, precision, label=f"{name}: AP {average_precision_score(labels, values):.3f}")
    roc.plot([0, 1], [0, 1], "--", color="0.4", linewidth=1, label="chance")
    pr.axhline(
        labels.mean(),
        linestyle="--",
        color="0.4",
        linewidth=1,
        label=f"share of anomalies {labels.mean():.3f}",
    )
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    pr.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    for axis in (roc, pr):
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    save_figure(figure, path)


def plot_frame(
    image: np.ndarray, heat: np.ndarray, points: np.ndarray, point_scores: np.ndarray, title: str, path: Path
) -> None:
    """Image (H, W, 3), the same under its heat map (H, W), and the points (N, 4) from above, coloured by
    their score (N,).
    """
    figure, axes = plt.subplots(1, 3, figsize=(15, 3.9), layout="constrained", width_ratios=(1.5, 1.5, 1))
    axes[0].imshow(image)
    axes[0].set_title("camera", fontsize=10)
    axes[1].imshow(image)
    axes[1].imshow(heat, cmap="inferno", alpha=0.55, vmin=0, vmax=max(float(heat.max()), 1e-9))
    axes[1].set_title("heat map", fontsize=10)
    for axis in axes[:2]:
        axis.set_axis_off()
    order = np.argsort(point_scores)  # the highest on top
    axes[2].scatter(
        -points[order, 1],
        points[order, 0],
        c=point_scores[order],
        s=4,
        cmap="inferno_r",
        vmin=0,
        vmax=max(float(point_scores.max(initial=0)), 1e-9),
    )
    axes[2].set(xlim=(-15, 15), ylim=(0, 40), aspect="equal", xlabel="right (m)", ylabel="ahead (m)")
    axes[2].set_title("LiDAR from above", fontsize=10)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)
