"""Figures of the age task: prediction against truth, Bland-Altman, error by age, explained images."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from matplotlib.transforms import Bbox

from utils.metrics.regression import limits_of_agreement, regression_metrics
from utils.plotting.figures import never_fatal, overlay, plt, save_figure

MODEL, BASELINE = "#4C72B0", "#999999"
NAMED = 5  # outliers labelled with their ids


def draw_people(axis: plt.Axes, x: pandas.Series, y: pandas.Series, errors: pandas.Series) -> None:
    """A point per row, and the ids (the index) of the NAMED largest errors where there is room."""
    axis.scatter(x, y, s=16, alpha=0.6, color=MODEL, linewidths=0)
    axis.grid(alpha=0.25)
    axis.figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    axis.figure.canvas.draw()  # now the layout is final
    style = {"textcoords": "offset points", "fontsize": 7, "color": "0.25", "parse_math": False}
    taken: list[Bbox] = []
    for k in np.argsort(-errors.abs().to_numpy(), kind="stable")[:NAMED]:
        for side, height in itertools.product(("left", "right"), (3, -9, 12, -18)):
            place = (4 if side == "left" else -4, height)
            text = axis.annotate(x.index[k], (x.iloc[k], y.iloc[k]), place, ha=side, **style)
            box = text.get_window_extent()
            inside = axis.bbox.count_contains(box.corners()) == 4
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


@never_fatal
def plot_scatter(people: pandas.DataFrame, unit: str, title: str, path: Path) -> None:
    """Prediction, with its interval if there is one, against truth, a point per age of a subject; identity
    and least-squares line. people: age, prediction, low and high of each subject (the index)."""
    ages, preds, count = people.age, people.prediction, people.index.nunique()
    found = regression_metrics(ages, preds)
    figure, axis = plt.subplots(figsize=(5.6, 6.2), layout="constrained")
    ends = np.array([min(ages.min(), preds.min()), max(ages.max(), preds.max())])
    axis.plot(ends, ends, color="0.3", linewidth=1, label="prediction = truth")
    if found["slope"] is not None:
        line = preds.mean() + found["slope"] * (ends - ages.mean())
        axis.plot(ends, line, color="#DD8452", linestyle="--", label=f"slope {found['slope']:.2f}")
    if people.low.notna().all():
        style = {"color": MODEL, "alpha": 0.2, "linewidth": 1, "label": "prediction interval"}
        axis.vlines(ages, people.low, people.high, **style)
    r = "undefined" if found["pearson_r"] is None else f"{found['pearson_r']:.2f}"
    axis.set(xlabel=f"true age ({unit})", ylabel=f"predicted age ({unit})", aspect="equal")
    axis.set_title(f"{title}\n{count} subjects, MAE {found['mae']:.2f} {unit}, r {r}", fontsize=10)
    draw_people(axis, ages, preds, preds - ages)
    save_figure(figure, path)


@never_fatal
def plot_bland_altman(people: pandas.DataFrame, unit: str, title: str, path: Path) -> None:
    """Error against the mean of prediction and truth, with the bias and the 95% limits of agreement."""
    low, bias, high = limits_of_agreement(people.age, people.prediction)
    figure, axis = plt.subplots(figsize=(6.4, 5), layout="constrained")
    axis.axhline(bias, color="#DD8452", label=f"bias {bias:+.2f}")
    limits = f"limits of agreement, bias -+ 1.96 SD: {low:+.2f} to {high:+.2f}"
    for value, label in ((low, limits), (high, None)):
        axis.axhline(value, color="#DD8452", linestyle="--", label=label)
    axis.axhline(0, color="0.3", linewidth=1)
    axis.set(xlabel=f"mean of predicted and true age ({unit})", ylabel=f"predicted - true ({unit})")
    axis.set_title(f"{title}\n{people.index.nunique()} subjects", fontsize=10)
    errors = people.prediction - people.age
    draw_people(axis, (people.age + people.prediction) / 2, errors, errors - bias)
    save_figure(figure, path)


@never_fatal
def plot_error_by_age(rows: Mapping[str, Mapping[str, Any]], unit: str, title: str, path: Path) -> None:
    """Per age band: bias with standard deviation (for three or more subjects), and MAE next to a trivial
    predictor's; rows: {band: subjects, bias, sd, mae, baseline_mae}. A bias that falls with age shows
    regression to the mean: the young are predicted too old, the old too young."""
    found, at = list(rows.values()), np.arange(len(rows))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    spread = [row["sd"] if row["subjects"] > 2 else np.nan for row in found]
    left.errorbar(at, [row["bias"] for row in found], spread, fmt="o", color=MODEL, capsize=3)
    left.axhline(0, color="0.3", linewidth=1)
    left.set(ylabel=f"predicted - true, mean -+ SD ({unit})", title="bias")
    right.bar(at - 0.2, [row["mae"] for row in found], 0.4, color=MODEL, label="model")
    trivial = [row["baseline_mae"] for row in found]
    right.bar(at + 0.2, trivial, 0.4, color=BASELINE, label="train mean or median")
    right.set(ylabel=f"MAE ({unit})", title="mean absolute error")
    for axis in (left, right):
        names = [f"{name.replace(' to ', '-')}\nn {row['subjects']}" for name, row in rows.items()]
        axis.set_xticks(at, names, fontsize=8)
        axis.set_xlabel(f"true age ({unit})")
        axis.grid(alpha=0.25, axis="y")
    figure.legend(loc="outside lower right", ncols=2, fontsize=8)
    save_figure(figure, path, title)


def explained(batch: dict[str, Any], explain: Callable[[Any], Any]) -> list[np.ndarray]:
    """For a batch of one image: the image, and the image under its heat map explain(images) (1, H, W)."""
    grey = batch["images"][0, 0].numpy()
    return [grey, overlay(grey, explain(batch["images"])[0].numpy())]
