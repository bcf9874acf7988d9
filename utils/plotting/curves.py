"""Training curves, and functions that all figures use: no display needed, PNG files written atomically."""

import functools
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler

from utils.metrics.verdict import Verdict
from utils.run.folder import write_bytes
from utils.run.log import run_goes_on
from utils.tasks import metrics_shown, nothing_reaches

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

COLORS = {"train": "#4C72B0", "val": "#DD8452"}
# Okabe and Ito (2008), distinct for colour-blind readers; when colours run out, the line style changes.
CONDITIONS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "-.", ":", (0, (5, 1)))
LINES = list(cycler(linestyle=STYLES) * cycler(color=CONDITIONS))  # one per condition
ERRORS = {"loss", "mae", "subject_mae"}  # metrics that may coincide, see without_twins


@dataclass(frozen=True)
class Panel:
    """A panel of training_curves.png: history keys train_KEY and val_KEY, and a baseline to beat."""

    key: str
    title: str
    baseline: float | None = None
    baseline_name: str = "baseline"


def curve_panels(
    task: Mapping[str, Any], counts: Mapping[str, int] | None = None, unit: str = "", **known: float | None
) -> list[Panel]:
    """The panels of a row of utils.tasks.TASKS; `counts` {class: val samples}, `unit` of ages. `known`
    {metric: value}: baselines that only the script knows (loss=...)."""
    panels = []
    for name, metric in metrics_shown(task, "curves").items():
        nothing = known.get(name, nothing_reaches(metric, counts))
        panels.append(Panel(name, metric.title.format(unit=unit), nothing, metric.nothing_name))
    return panels


def to_beat(panels: Sequence[Panel]) -> str:
    """'to beat on val: loss 0.6931 (best constant), AUROC 0.5 (chance)': the baselines of the panels."""
    known = [panel for panel in panels if panel.baseline is not None]
    return "to beat on val: " + ", ".join(f"{p.title} {p.baseline:.4g} ({p.baseline_name})" for p in known)


def never_fatal(draw: Callable[..., None]) -> Callable[..., None]:
    """Decorator: if a figure fails, warn in the log instead of losing hours of training."""

    @functools.wraps(draw)
    def drawn_or_warned(*args: Any, **options: Any) -> None:
        try:
            draw(*args, **options)
        except Exception as error:
            plt.close("all")  # the half-drawn figure would stay open
            run_goes_on(draw.__name__, f"{type(error).__name__}: {error}")

    return drawn_or_warned


def grid_of_axes(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[plt.Axes]]:
    """A figure of `count` axes, `columns` per row, each of this size in inches; the last fills its row."""
    rows = -(-count // columns)
    figure = plt.figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    places = [grid[divmod(k, columns)] for k in range(count - 1)]
    places.append(grid[rows - 1, (count - 1) % columns :])
    return figure, [figure.add_subplot(place) for place in places]


def plot_pictures(
    pictures: Sequence[np.ndarray], texts: Sequence[str], columns: int, path: Path, title: str = ""
) -> None:
    """A sheet of images (H, W, 3) or (H, W) uint8 of any size, `columns` per row, each below its text."""
    width, columns = 13.6 / columns, min(columns, len(pictures))  # inches per image
    height = width * max(picture.shape[0] / picture.shape[1] for picture in pictures) + 0.5
    rows = -(-len(pictures) // columns)
    size = width * columns, height * rows
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, text in zip(axes.flat, pictures, texts, strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axis.set_title(text, fontsize=7, parse_math=False)
    lines = [textwrap.fill(line, int(11 * width * columns)) for line in title.split("\n")]  # as wide as that
    save_figure(figure, path, "\n".join(lines))


def save_figure(figure: Figure, path: Path, title: str = "") -> None:
    """Write the PNG atomically and close the figure, which would otherwise stay in memory."""
    if title:
        figure.suptitle(title, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    write_bytes(path, buffer.getbuffer())


@never_fatal
def plot_curves(
    history: list[dict[str, Any]], panels: Sequence[Panel], path: Path, best_epoch: int | None = None,
    verdict: Verdict | None = None,
) -> None:  # fmt: skip
    """Draw train and val over the epochs, one panel per metric and one for the learning rate. The title is
    the run folder's name and, unless the verdict is LEARNED, verdict and reason, in red."""
    panels = without_twins(history, panels)
    columns = 2 if len(panels) < 4 else 3
    figure, axes = grid_of_axes(len(panels) + 1, columns, 5.5, 3.6)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) < 20 else ""
    for axis, panel in zip(axes, panels, strict=False):
        drawn = []
        for split, color in COLORS.items():
            values = np.array([row.get(f"{split}_{panel.key}") for row in history], float)  # None becomes NaN
            if not np.isnan(values).all():
                axis.plot(epochs, values, marker=marker, markersize=3, color=color, label=split)
                drawn += values.tolist()
        if panel.baseline is not None:
            axis.axhline(panel.baseline, linestyle="--", color="0.4", linewidth=1, label=panel.baseline_name)
        finish_axis(axis, panel.title, epochs, best_epoch, drawn)
        axis.legend(fontsize=8, framealpha=0.5)  # curves show through it
    rate = axes[-1]
    rate.plot(epochs, [row["lr"] for row in history], marker=marker, markersize=3, color="0.3")
    rate.set_ylim(bottom=0)
    finish_axis(rate, "learning rate", epochs, best_epoch)
    figure.suptitle(path.parent.name, fontsize=10)
    if verdict is not None and not verdict.learned:
        reason = textwrap.fill(verdict.reason, width=50 * columns)
        figure.suptitle(f"{path.parent.name}\n{verdict.word}\n{reason}", color="#B00020", fontsize=10)
    save_figure(figure, path)


def without_twins(history: Sequence[Mapping[str, Any]], panels: Sequence[Panel]) -> list[Panel]:
    """Merge panels of errors whose val curves coincide, and join their titles: an L1 loss is the MAE, and the
    MAE per image is that per subject if each has one image."""

    def same(a: Panel, b: Panel) -> bool:
        pairs = [(row.get(f"val_{a.key}"), row.get(f"val_{b.key}")) for row in history]
        known = np.array([pair for pair in pairs if None not in pair])
        return {a.key, b.key} <= ERRORS and len(known) > 0 and np.allclose(*known.T, rtol=1e-5, atol=0)

    kept: list[Panel] = []
    for panel in panels:
        if twins := [k for k, other in enumerate(kept) if same(panel, other)]:
            kept[twins[0]] = replace(kept[twins[0]], title=f"{kept[twins[0]].title} = {panel.title}")
        else:
            kept.append(panel)
    return kept


def finish_axis(
    axis: plt.Axes, title: str, epochs: Sequence[int], best_epoch: int | None, drawn: Sequence[float] = ()
) -> None:
    """Title, whole-number epochs, grid, dotted best epoch; a log axis if `drawn` spans a factor of 100."""
    values = [value for value in drawn if np.isfinite(value)]
    if values and min(values) > 0 and max(values) > 100 * min(values):
        axis.set_yscale("log")
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.25)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) == 1:
        axis.set_xlim(epochs[0] - 1, epochs[0] + 1)
    if best_epoch is not None:
        axis.axvline(best_epoch, linestyle=":", color="0.3", linewidth=1, label=f"best epoch {best_epoch}")


def plot_overlay(conditions: Sequence[Any], path: Path) -> None:
    """Val curves of several runs, one panel per metric and one for the learning rate: a colour per condition
    (utils/watch/comparison.py), a line per run, a dot at its best epoch."""
    runs = [(k, view) for k, condition in enumerate(conditions) for view in condition.runs]
    views = [view for _, view in runs]
    losses = {str(view.config.get("training", {}).get("loss_function")) for view in views}
    history = [row for view in views for row in view.history]
    panels = without_twins(history, curve_panels(views[0].task, unit=views[0].data.get("target_unit", "")))
    titles = {f"val_{panel.key}": f"val {panel.title}" for panel in panels} | {"lr": "learning rate"}
    if len(losses) > 1:
        titles["val_loss"] += f" (not the same: {', '.join(sorted(losses))})"
    figure, axes = grid_of_axes(len(titles), 3, 5, 3.4)
    epochs = max(([row["epoch"] for row in view.history] for view in views), key=len)
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        drawn = []
        for k, view in runs:
            x, y = (np.array([row.get(name) for row in view.history], float) for name in ("epoch", key))
            # Learning rates often coincide: dashes let the line below show through.
            line = LINES[k] | ({"linestyle": ("-", "--", ":", "-.")[k % 4]} if key == "lr" else {})
            axis.plot(x, y, linewidth=1.3, alpha=0.8, marker="." if len(x) < 4 else "", **line)
            if key in view.best and key != "lr":
                axis.plot(view.best["epoch"], view.best[key], "o", color=line["color"], markersize=5)
            drawn += y.tolist()
        if key == "lr":
            axis.set_ylim(bottom=0)
        finish_axis(axis, title, epochs, None, [] if key == "lr" else drawn)
    handles = [plt.Line2D([], [], **line) for line in LINES[: len(conditions)]]
    handles.append(plt.Line2D([], [], color="0.3", marker="o", linestyle="", markersize=5))
    counts = [f" ({len(c.runs)} runs)" if len(c.runs) > 1 else "" for c in conditions]
    names = [textwrap.fill(f"{c.letter}: {c.label}{n}", 70) for c, n in zip(conditions, counts, strict=True)]
    names.append("best epoch")
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 3), fontsize=9)
    save_figure(figure, path)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) or (H, W) uint8 under a heat map (H, W) in [0, 1] that is transparent at its lowest
    value, so a constant map leaves the image unchanged."""
    above = heat - heat.min()
    colours = plt.get_cmap("inferno")(above)[..., :3] * 255
    base = np.broadcast_to(image[..., None] if image.ndim == 2 else image, colours.shape)
    weight = 0.7 * np.sqrt(above)[..., None]
    return ((1 - weight) * base + weight * colours).astype(np.uint8)
