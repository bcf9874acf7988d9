"""Figures of the anomaly task: frames with heat map and LiDAR points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from scipy.ndimage import binary_dilation

from utils.plotting.figures import overlay, save_figure

OUTLINE = (0, 255, 255)
SUSPICION = LinearSegmentedColormap.from_list("suspicion", ["0.75", "#F28E2B", "#B00020"])  # grey to red


def explained(
    batch: dict[str, Any], where: Callable[[dict[str, Any]], Any], truth: np.ndarray | None = None
) -> list[np.ndarray]:
    """For a batch of one frame: the image with the true anomaly outlined, and the image under heat map and
    points, coloured by score. Both colour scales begin at the lowest value.

    where(batch) -> probabilities of the image (1, H, W) and of the points (1, N); truth (H, W): 1 = anomaly,
    None if unknown."""
    heat, scores = (values[0].numpy() for values in where(batch))
    image, pixels = batch["images"][0].permute(1, 2, 0).numpy(), batch["point_pixels"][0].numpy()
    inside = (np.abs(pixels) < 1).all(axis=1)
    x, y = ((pixels[inside] + 1) / 2 * image.shape[1::-1]).astype(int).T
    scores = scores[inside] - scores[inside].min(initial=1)
    order, drawn = np.argsort(scores, kind="stable"), overlay(image, heat)  # the highest on top
    drawn[y[order], x[order]] = (SUSPICION(np.sqrt(scores[order]))[:, :3] * 255).astype(np.uint8)
    if truth is not None:
        image = image.copy()
        image[binary_dilation(truth == 1, iterations=2) & (truth != 1)] = OUTLINE
    return [image, drawn]


def plot_frame(
    image: np.ndarray, heat: np.ndarray, points: np.ndarray, point_scores: np.ndarray, title: str, path: Path
) -> None:
    """The image, its heat map and, if there are points, a top view of them coloured by score.
    image (H, W, 3), heat (h, w) of any size, points (N, 4), point_scores (N,). Heat and scores are
    probabilities on the fixed scale 0..1, so that a frame without suspicion looks so."""
    aspect = image.shape[1] / image.shape[0]
    height = 3.4 * min(1, 1.8 / aspect)  # of the images, in inches: lower than the scan if they are wide
    widths = [height * aspect, height * (aspect + 0.2), 3.4][: 3 if len(points) else 2]
    size = (sum(widths), 3.9)
    figure, axes = plt.subplots(1, len(widths), figsize=size, layout="constrained", width_ratios=widths)
    titles = ("camera", "probability of an anomaly (square-root scale)", "LiDAR from above")
    for axis, what in zip(axes, titles, strict=False):
        axis.set_title(what, fontsize=10)
    for axis in axes[:2]:
        axis.imshow(image)
        axis.set_axis_off()
    scale = PowerNorm(0.5, 0, 1)  # .25 is in the middle of the scale
    frame = axes[1].images[0].get_extent()  # the heat map covers the image
    shown = axes[1].imshow(heat, cmap="inferno", alpha=0.55, norm=scale, extent=frame)
    figure.colorbar(shown, ax=axes[1], shrink=0.8, ticks=[0, 0.05, 0.25, 0.5, 1])
    for axis in axes[2:]:
        order = np.argsort(point_scores)  # the highest on top
        seen = points[order]
        axis.scatter(-seen[:, 1], seen[:, 0], c=point_scores[order], s=5, cmap=SUSPICION, norm=scale)
        axis.set(xlim=(-15, 15), ylim=(0, 40), aspect="equal", xlabel="right (m)", ylabel="ahead (m)")
    save_figure(figure, path, title)
