"""Curves of several runs in one picture: a colour per condition, a line per run, a dot at its best epoch."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from utils.plotting.curves import curve_panels, finish_axis, grid_of_axes, plt, save_figure, without_twins
from utils.run.signs import is_number
from utils.watch.comparison import Condition
from utils.watch.run_view import RunView

# Okabe and Ito (2008), told apart by colour-blind readers; the line styles go on where the colours end.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "-.", ":", (0, (5, 1)))
LINES = [{"color": color, "linestyle": style} for style in STYLES for color in COLORS]  # of each condition


def plot_overlay(conditions: Sequence[Condition], path: Path) -> None:
    """Val over the epochs for every run, one panel per metric and one for the learning rate."""
    views = [view for condition in conditions for view in condition.runs]
    losses = {str(view.config.get("training", {}).get("loss_function")) for view in views}
    history = [row for view in views for row in view.history]
    panels = without_twins(history, curve_panels(views[0].task, unit=views[0].data.get("target_unit", "")))
    titles = {f"val_{panel.key}": f"val {panel.title}" for panel in panels} | {"lr": "learning rate"}
    if len(losses) > 1:
        titles["val_loss"] += f" (not the same: {', '.join(sorted(losses))})"
    figure, axes = grid_of_axes(len(titles), 3, 5, 3.4)
    epochs = max(([row["epoch"] for row in view.history] for view in views), key=len)
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        lines = [draw_run_line(axis, view, key, k) for k, one in enumerate(conditions) for view in one.runs]
        if key == "lr":
            axis.set_ylim(bottom=0)
        finish_axis(axis, title, epochs, None, [] if key == "lr" else sum(lines, []))
    handles = [plt.Line2D([], [], **line) for line in LINES[: len(conditions)]]
    handles.append(plt.Line2D([], [], color="0.3", marker="o", linestyle="", markersize=5))
    counts = [f" ({len(c.runs)} runs)" if len(c.runs) > 1 else "" for c in conditions]
    names = [textwrap.fill(f"{c.letter}: {c.label}{n}", 70) for c, n in zip(conditions, counts, strict=True)]
    names.append("best epoch")
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 3), fontsize=9)
    save_figure(figure, path)


def draw_run_line(axis: plt.Axes, view: RunView, key: str, k: int) -> list[float]:
    """One run's figure over its epochs in the colour of condition k; returns the values drawn."""
    rows = [row for row in view.history if is_number(row.get(key))]
    x, y = [row["epoch"] for row in rows], [row[key] for row in rows]
    # Learning rates often lie on each other: dashes let the one below show through.
    line = LINES[k] | ({"linestyle": ("-", "--", ":", "-.")[k % 4]} if key == "lr" else {})
    axis.plot(x, y, linewidth=1.3, alpha=0.8, marker="." if len(x) < 4 else "", **line)
    if key != "lr" and view.best in rows:
        axis.plot(view.best["epoch"], view.best[key], "o", color=line["color"], markersize=5)
    return y
