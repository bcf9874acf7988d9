"""The predictions sample by sample, and those most at odds with the labels: errors of either."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.plotting.mistakes import plot_mistakes
from utils.report.results import write_table
from utils.run.log import format_value
from utils.tasks import TASKS

LISTED, DRAWN = 200, 12  # samples in the table and in the picture

Look = Callable[[int], list[np.ndarray]]  # the pictures (H, W, 3) or (H, W) uint8 of a sample


def report_samples(
    folder: Path, split: str, state: Mapping[str, Any], columns: Mapping[str, Any], p_label: np.ndarray,
    look: Look,
) -> None:  # fmt: skip
    """SPLIT_predictions.csv; suspects.csv and mistakes.png: where the model finds the label least likely.

    columns (N,): of the predictions; p_label (N,): the probability of each label; state: the checkpoint.
    """
    import pandas

    write_table(folder / f"{split}_predictions.csv", columns)

    table = pandas.DataFrame(dict(columns)).assign(p_label=p_label)
    table = table.iloc[np.argsort(p_label, kind="stable")][:LISTED]
    write_table(folder / "suspects.csv", table)
    task, worst = TASKS[state["script"]], table[:DRAWN]
    shown = [name for name in (*task["columns"], "p_label") if name in table]
    texts = [
        "\n".join([
            textwrap.fill(" ".join(str(row[name]) for name in task["sample"]), 64),
            ", ".join(f"{name} {format_value(row[name])}" for name in shown),
        ])
        for row in worst.to_dict("records")
    ]  # fmt: skip
    title = f"{state['script']}: the labels it finds least likely; all of them in suspects.csv"
    plot_mistakes(worst.index.tolist(), look, texts, title, folder / "mistakes.png")
