"""Predictions by sample, and the labels that the model finds least likely: model errors or label errors."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from utils.plotting.figures import never_fatal, plot_pictures
from utils.report.results import write_table
from utils.run.log import LOG, format_value
from utils.tasks import TASKS

LISTED, DRAWN = 200, 12  # samples in suspects.csv and in mistakes.png
MOMENTS = ("frame", "frame_id", "file")  # tell the images of one pair, scenario or subject apart
WIDE = 3  # an image this many times wider than high is drawn below the others
HEIGHT = 160  # of the images side by side, in pixels
UNLIKELY = 0.5  # p_label below this is a mistake; for ages, an error above the median one

Look = Callable[[int], list[np.ndarray]]  # number of a sample -> its images (H, W, 3) or (H, W) uint8


def report_samples(
    folder: Path, split: str, state: Mapping[str, Any], columns: Mapping[str, Any], p_label: np.ndarray,
    look: Look,
) -> None:  # fmt: skip
    """Write SPLIT_predictions.csv, suspects.csv (the labels that the model finds least likely), mistakes.png
    (those below UNLIKELY; one of every pair, scenario or subject before a second) and worst_groups.csv (means
    per group).

    columns (N,): of the predictions; p_label (N,): the probability of each label; state: the checkpoint."""
    import pandas

    write_table(folder / f"{split}_predictions.csv", columns)

    table = pandas.DataFrame(dict(columns)).assign(p_label=p_label)
    task = TASKS[state["script"]]
    groups = by_group(table, task)
    write_table(folder / "worst_groups.csv", groups)
    LOG.info(f"{task['groups']} with the least likely labels: {', '.join(map(str, groups.iloc[:3, 0]))}")
    table = table.iloc[np.argsort(p_label, kind="stable")][:LISTED]
    write_table(folder / "suspects.csv", table)
    same = [name for name in task["sample"] if name not in MOMENTS]
    worst = table[table.p_label < UNLIKELY].drop_duplicates([*task["sample"], task["columns"][0]])
    worst = worst.iloc[np.argsort(worst.groupby(same).cumcount(), kind="stable")][:DRAWN]
    shown = [name for name in (*task["columns"], "p_label") if name in table]
    texts = []
    for row in worst.to_dict("records"):
        sample = textwrap.fill(" ".join(str(row[name]) for name in task["sample"]), 76)
        texts.append(sample + "\n" + ", ".join(f"{name} {format_value(row[name])}" for name in shown))
    title = f"the labels that the model finds least likely; more in suspects.csv\n{task['colours']}"
    if worst.empty:
        title = f"no label of {split} is less likely than not: no mistake to show"
        LOG.info(f"mistakes.png: {title}")
    title = f"{state['script']}: {title}"
    blocks = (block_of(look(k)) for k in worst.index.tolist())
    # The sheet of predict.py, drawn by the same function, may fail loudly.
    never_fatal(plot_pictures)(blocks, texts, 3, folder / "mistakes.png", title)


def by_group(table: Any, task: Mapping[str, Any]) -> Any:
    """A row per group, the least likely labels first: samples, means of wrong (ages: error) and p_label."""
    truth, predicted = table[task["columns"][0]], table[task["columns"][-1]]
    if "error" in table:  # of numbers
        found = table[[truth.name, predicted.name, "error"]]
    else:
        found = (truth != predicted).to_frame("wrong")
    groups = found.assign(p_label=table["p_label"]).groupby(table[task["sample"][0]])
    means = groups.mean().round(4)
    means.insert(0, "samples", groups.size())
    return means.sort_values("p_label", kind="stable").reset_index()


def block_of(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8: the images side by side at one height, wide ones below them at full width."""
    images = [Image.fromarray(picture).convert("RGB") for picture in pictures]
    across = [image for image in images if image.width < WIDE * image.height]
    below = [image for image in images if image not in across]
    across = [image.resize((max(1, HEIGHT * image.width // image.height), HEIGHT)) for image in across]
    width = max(sum(image.width + 4 for image in across), 480 if below else 0)
    below = [image.resize((width, max(1, width * image.height // image.width))) for image in below]
    total = (HEIGHT + 4 if across else 0) + sum(image.height + 4 for image in below)
    canvas, x, y = Image.new("RGB", (width, total), "white"), 0, HEIGHT + 4 if across else 0
    for image in across:
        canvas.paste(image, (x, 0))
        x += image.width + 4
    for image in below:
        canvas.paste(image, (0, y))
        y += image.height + 4
    return np.asarray(canvas)
