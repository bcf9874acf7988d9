"""Training curves of a run, and of several runs in one picture."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics.verdict import Verdict
from utils.plotting.figures import COLORS, Figure, never_fatal, plt, save_figure
from utils.tasks import metrics_shown, nothing_reaches

# Okabe and Ito (2008), distinct for colour-blind readers.
CONDITIONS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# One per condition, all different; where lines coincide, the one below shows through.
LINES = [{"color": CONDITIONS[k % 7], "linestyle": ("-", "--", ":", "-.")[k % 4]} for k in range(28)]
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


@never_fatal
def plot_curves(
    history: list[dict[str, Any]], panels: Sequence[Panel], path: Path, best_epoch: int | None = None,
    verdict: Verdict | None = None,
) -> None:  # fmt: skip
    """Draw train and val over the epochs, one panel per metric and one for the learning rate. The title is
    the run folder's name and, unless the verdict is LEARNED, verdict and reason, in red."""
    panels = without_twins(history, panels)
    columns = 2 if len(panels) < 4 else 3
    lines = [(history, split, {"color": color, "label": split}) for split, color in COLORS.items()]
    figure, axes = draw_panels(panels, columns, lines, best_epoch)
    for axis, panel in zip(axes, panels, strict=False):
        if panel.baseline is not None:
            axis.axhline(panel.baseline, linestyle="--", color="0.4", linewidth=1, label=panel.baseline_name)
        axis.legend(fontsize=8, framealpha=0.5)  # curves show through it
    figure.suptitle(path.parent.name, fontsize=10)
    if verdict is not None and not verdict.learned:
        reason = textwrap.fill(verdict.reason, width=50 * columns)
        figure.suptitle(f"{path.parent.name}\n{verdict.word}\n{reason}", color="#B00020", fontsize=10)
    save_figure(figure, path)


def without_twins(history: Sequence[Mapping[str, Any]], panels: Sequence[Panel]) -> list[Panel]:
    """Merge panels of errors whose val curves coincide, and join their titles: an L1 loss is the MAE, and the
    MAE per image is that per subject if each has one image."""
    kept: dict[Any, Panel] = {}
    for panel in panels:
        values = [row.get(f"val_{panel.key}") for row in history]
        curve = tuple(f"{value:.5g}" for value in values if value is not None)
        same = curve if curve and panel.key in ERRORS else panel.key
        first = kept.setdefault(same, panel)
        if first is not panel:
            kept[same] = replace(first, title=f"{first.title} = {panel.title}")
    return list(kept.values())


def draw_panels(
    panels: Sequence[Panel], columns: int, lines: Sequence[tuple[list[dict[str, Any]], str, dict[str, Any]]],
    best_epoch: int | None = None,
) -> tuple[Figure, list[plt.Axes]]:  # fmt: skip
    """A figure with an axis for each panel and one for the learning rate, which fills the last row; lines:
    (history, split, style)."""
    rows = len(panels) // columns + 1
    cells = np.minimum(np.arange(rows * columns), len(panels)).reshape(rows, columns).tolist()
    figure, axes = plt.subplot_mosaic(cells, figsize=(5.5 * columns, 3.6 * rows), layout="constrained")
    for axis, panel in zip(axes.values(), [*panels, Panel("lr", "learning rate")], strict=True):
        for k, (history, split, style) in enumerate(lines):
            if panel.key == "lr" and any(history is other for other, _, _ in lines[:k]):
                continue  # one learning rate for train and val
            key = panel.key if panel.key == "lr" else f"{split}_{panel.key}"
            x, y = (np.array([row.get(name) for row in history], float) for name in ("epoch", key))
            if not np.isnan(y).all():  # of values that are None
                axis.plot(x, y, marker="o" if len(x) < 20 else "", markersize=3, alpha=0.8, **style)
        finish_axis(axis, panel.title, best_epoch)
    return figure, list(axes.values())


def finish_axis(axis: plt.Axes, title: str, best_epoch: int | None) -> None:
    """Title, whole-number epochs, grid, dotted best epoch; a log axis if the lines span a factor of 100."""
    values = np.concatenate([[], *(line.get_ydata() for line in axis.get_lines())])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 100 * values.min():
        axis.set_yscale("log")
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.25)
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if best_epoch is not None:
        axis.axvline(best_epoch, linestyle=":", color="0.3", linewidth=1, label=f"best epoch {best_epoch}")


def plot_overlay(conditions: Sequence[Any], path: Path) -> None:
    """Val curves of several runs, one panel per metric and one for the learning rate: a style per condition
    (utils/watch/comparison.py), a line per run, a dot at its best epoch."""
    runs = [(view, k) for k, condition in enumerate(conditions) for view in condition.runs]
    first, history = runs[0][0], [row for view, _ in runs for row in view.history]
    losses = sorted({str(view.config.get("training", {}).get("loss_function")) for view, _ in runs})
    panels = without_twins(history, curve_panels(first.task, unit=first.data.get("target_unit", "")))
    panels = [replace(panel, title=f"val {panel.title}") for panel in panels]
    if len(losses) > 1:
        panels[0] = replace(panels[0], title=f"{panels[0].title} (not the same: {', '.join(losses)})")
    lines = []
    for line, condition in zip(LINES, conditions, strict=False):
        count = f" ({len(condition.runs)} runs)" if len(condition.runs) > 1 else ""
        label = textwrap.fill(f"{condition.letter}: {condition.label}{count}", 70)
        drawn = [view.history for view in condition.runs if view.history]
        lines += [(rows, "val", line | {"label": "" if k else label}) for k, rows in enumerate(drawn)]
    figure, axes = draw_panels(panels, 3, lines)
    for axis, panel in zip(axes, panels, strict=False):
        for view, k in runs:
            if (key := f"val_{panel.key}") in view.best:
                axis.plot(view.best["epoch"], view.best[key], "o", color=LINES[k]["color"], markersize=6)
    named, place = axes[0].get_legend_handles_labels(), "outside lower center"
    figure.legend(*named, title="dots: best epochs", loc=place, ncols=min(len(conditions), 3), fontsize=9)
    save_figure(figure, path)
