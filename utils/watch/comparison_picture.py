"""Curves of several runs in one picture: a colour per condition, a line per run, a dot at its best epoch."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from utils.plotting.curves import finish_axis, grid_of_axes, plt, save_figure
from utils.run.signs import is_number
from utils.tasks import metrics_shown
from utils.watch.comparison import Condition
from utils.watch.run_view import RunView

# Okabe and Ito (2008), told apart by colour-blind readers; the line styles go on where the colours end.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "-.", ":", (0, (5, 1)))


def plot_overlay(conditions: Sequence[Condition], path: Path) -> None:
    """Val over the epochs for every run, one panel per metric and one for the learning rate."""
    views = [view for condition in conditions for view in condition.runs]
    losses = {view.config.get("training", {}).get("loss_function") for view in views}
    panels = metrics_shown(views[0].task, "curves")
    unit = views[0].data.get("target_unit", "")
    figure, axes = grid_of_axes(len(panels) + 1, 3, 5, 3.4)
    longest = max(views, key=lambda view: len(view.history))
    epochs = [row["epoch"] for row in longest.history]
    for axis, (key, metric) in zip(axes, panels.items(), strict=False):
        title = metric.title.format(unit=unit)
        drawn = [
            value
            for k, condition in enumerate(conditions)
            for view in condition.runs
            for value in draw_run_line(axis, view, f"val_{key}", k, best=True)
        ]
        if drawn and min(drawn) > 0 and max(drawn) > 100 * min(drawn):
            axis.set_yscale("log")
        if key == "loss" and len(losses) > 1:
            title += f" (not the same: {', '.join(sorted(map(str, losses)))})"
        finish_axis(axis, f"val {title}", epochs, None)
    rate = axes[-1]
    for k, condition in enumerate(conditions):
        for view in condition.runs:
            draw_run_line(rate, view, "lr", k, best=False)
    rate.set_ylim(bottom=0)
    finish_axis(rate, "learning rate", epochs, None)
    handles = [plt.Line2D([], [], color=color_of(k), linestyle=style_of(k)) for k in range(len(conditions))]
    handles.append(plt.Line2D([], [], color="0.3", marker="o", linestyle="", markersize=5))
    counts = [f" ({len(c.runs)} runs)" if len(c.runs) > 1 else "" for c in conditions]
    names = [textwrap.fill(f"{c.letter}: {c.label}{n}", 70) for c, n in zip(conditions, counts, strict=True)]
    names.append("best epoch")
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 3), fontsize=9)
    save_figure(figure, path)


def draw_run_line(axis: plt.Axes, view: RunView, key: str, k: int, best: bool) -> list[float]:
    """One run's figure over its epochs in the colour of condition k; returns the values drawn."""
    rows = [row for row in view.history if is_number(row.get(key))]
    if not rows:
        return []
    x, y = [row["epoch"] for row in rows], [row[key] for row in rows]
    # Learning rates often lie on each other: dashes let the one below show through.
    style = ("-", "--", ":", "-.")[k % 4] if key == "lr" else style_of(k)
    axis.plot(
        x, y, color=color_of(k), linewidth=1.3, alpha=0.8, linestyle=style, marker="." if len(x) < 4 else ""
    )
    chosen = view.best_epoch()
    if best and chosen in x:
        axis.plot(chosen, y[x.index(chosen)], "o", color=color_of(k), markersize=5)
    return y


def color_of(k: int) -> str:
    return COLORS[k % len(COLORS)]


def style_of(k: int) -> str | tuple:
    return STYLES[k // len(COLORS) % len(STYLES)]
