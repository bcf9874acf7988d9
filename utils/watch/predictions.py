"""The predictions a run left behind (test_predictions.csv), read back sample by sample."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from utils.watch.run_view import RunView


@dataclass(frozen=True)
class Predictions:
    """N test samples of one run.

    labels (N,): class numbers, or ages. scores: of the positive class (N,), of each (N, K), or ages (N,).
    preds (N,): class numbers. groups, frames (N,): what a bootstrap resamples.
    """

    name: str
    task: dict[str, Any]  # the row of utils/tasks.py
    split: str
    keys: list[tuple[str, ...]]
    labels: np.ndarray
    scores: np.ndarray
    preds: np.ndarray
    groups: np.ndarray
    frames: np.ndarray

    @property
    def note(self) -> str:
        """What the pairs are, and what was resampled."""
        count, kind = len(np.unique(self.groups)), self.task["groups"]
        same = f"paired on the same {len(self.keys)} {self.split} samples"
        if count >= 5 or self.task["task"] == "age":
            return f"{same}; {count} {kind} resampled"
        return f"{same}; frames resampled, since there are only {count} {kind}: the intervals are optimistic"

    def in_order_of(self, other: "Predictions") -> "Predictions | str":
        """These predictions in the other's order; a sentence where the samples are not the same."""
        mine = {key: row for row, key in enumerate(self.keys)}
        shared = sum(key in mine for key in other.keys)
        if shared < len(other.keys) or len(mine) != len(other.keys):
            return (
                f"{self.name} was tested on other samples ({len(mine)}, {other.name} on {len(other.keys)}; "
                f"{shared} are in both)"
            )
        order = np.array([mine[key] for key in other.keys])
        moved = replace(
            self,
            keys=other.keys,
            **{
                name: getattr(self, name)[order] for name in ("labels", "scores", "preds", "groups", "frames")
            },
        )
        changed = int((~np.isclose(moved.labels, other.labels)).sum())
        if changed:
            return f"{self.name} and {other.name} have different labels for {changed} of the same samples"
        return moved


def read_predictions(view: RunView) -> Predictions | str:
    """The predictions on the split that the run was judged on; a sentence where there are none to read."""
    import pandas

    split, task = view.results.get("test_split", "test"), view.task
    path = view.folder / f"{split}_predictions.csv"
    if not view.results:
        return f"{view.name} has no results yet"
    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        return f"{path} is not there"
    except (OSError, ValueError) as error:
        return f"{path} can not be read: {error}"
    lacking = [name for name in (*task["sample"], *task["columns"]) if name not in table.columns]
    if lacking or not len(table):
        return f"{path} has no {f'column {lacking[0]}' if lacking else 'row'}"
    try:
        return from_table(table, view.name, task, split)
    except ValueError as error:
        return f"{path} is not a table of predictions: {error}"


def from_table(table: Any, name: str, task: dict[str, Any], split: str) -> Predictions:
    """The columns as arrays. Raises ValueError for a number that is none."""
    columns = [table[column].to_numpy() for column in task["sample"]]
    # Two folders can hold a sample of the same name.
    repeat = table.groupby(list(task["sample"]), sort=False).cumcount().astype(str).to_numpy()
    keys = list(zip(*columns, repeat, strict=True))
    kind = task["task"]
    if kind == "age":
        labels, scores = (table[column].to_numpy(float) for column in ("age", "prediction"))
        preds = np.zeros(len(table), int)
    elif kind == "anomaly":
        labels, preds = (table[column].to_numpy(int) for column in ("label", "alarm"))
        scores = table["score"].to_numpy(float)
    elif kind == "stage1":
        labels, preds = ((table[column] == "interaction").to_numpy(int) for column in ("label", "prediction"))
        scores = table["score"].to_numpy(float)
    else:
        names = table.columns[table.columns.get_loc("label") + 1 : table.columns.get_loc("prediction")]
        number = {text: k for k, text in enumerate(names)}
        labels, preds = (table[column].map(number).to_numpy(int) for column in ("label", "prediction"))
        scores = table[names].to_numpy(float)
    frames = np.array(["/".join(key[:2]) for key in keys]) if kind != "anomaly" else np.arange(len(keys))
    return Predictions(name, task, split, keys, labels, scores, preds, columns[0].astype(str), frames)
