"""The predictions of a run as its CSV has them, and the figures of a report on any rows of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.metrics.verdict import GroupJackknife
from utils.run.errors import CommandError
from utils.watch.run_view import RunView

if TYPE_CHECKING:
    from pandas import DataFrame

# Columns of the scores that a verdict is against, and the sign that turns them into one.
TRIVIAL = {"distance_widths": -1, "trivial_score": 1}


@dataclass(frozen=True)
class Pooled(RunView):
    """The folds of one recipe and seed, read like one run; table: their predictions on test."""

    table: "DataFrame"


def read_predictions(view: RunView, reference: "DataFrame | None" = None) -> "DataFrame":
    """The predictions on the split that the run was judged on, in the order of `reference`.

    A row per sample, indexed by what names it: label and pred (class numbers, or ages), score (of the
    positive class, or an age), group and frame, which a jackknife leaves out; where the table tells them
    trivial, the score of what the verdict compares with, and inside, whether an age lies in its interval.
    Raises CommandError where there are none to read, or not of the samples and labels of `reference`.
    """
    rows = view.table if isinstance(view, Pooled) else read_table(view)
    if reference is None:
        return rows
    shared, name = int(reference.index.isin(rows.index).sum()), reference.attrs["name"]
    if shared < len(reference) or len(rows) != len(reference):
        many = f"{len(rows)}, {name} on {len(reference)}; {shared} are in both"
        raise CommandError(f"{view.name} was tested on other samples ({many})")
    rows = rows.reindex(reference.index).assign(group=reference.group, frame=reference.frame)
    if changed := int((~np.isclose(rows.label, reference.label)).sum()):
        raise CommandError(f"{view.name} and {name} have different labels for {changed} of the same samples")
    return rows


def read_table(view: RunView) -> "DataFrame":
    """The rows of `read_predictions` from the CSV of a run."""
    import pandas

    split, task = view.results.get("test_split", "test"), view.task
    path, sample = view.folder / f"{split}_predictions.csv", list(task["sample"])
    if not view.results or not path.is_file():
        raise CommandError(f"{path} is not there" if view.results else f"{view.name} has no results yet")
    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False)
        lacking = [f"column {name}" for name in (*sample, *task["columns"]) if name not in table.columns]
        if lacking or not len(table):
            raise ValueError(f"it has no {[*lacking, 'row'][0]}")
        rows = as_numbers(table, task)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} can not be read: {error}") from error
    rows["group"] = table[sample[0]]
    rows["frame"] = np.arange(len(table)) if task["task"] == "anomaly" else table[sample[:2]].agg("/".join, 1)
    # Two folders can hold a sample of the same name.
    rows.index = pandas.MultiIndex.from_frame(table[sample].assign(n=table.groupby(sample).cumcount()))
    rows.attrs |= {"split": split, "name": view.name}
    return rows


def as_numbers(table: "DataFrame", task: dict[str, Any]) -> "DataFrame":
    """label, pred, score, trivial and inside of a table of text; ValueError for a number that is none."""
    import pandas

    truth, said = table[task["columns"][0]], table[task["columns"][-1]]
    if task["task"] == "age":
        rows = pandas.DataFrame({"label": truth.astype(float), "pred": 0, "score": said.astype(float)})
        if "low" in table and (table["low"] != "").all():
            rows["inside"] = rows.label.between(table["low"].astype(float), table["high"].astype(float))
        return rows
    if task["task"] == "stage1":
        truth, said = truth == "interaction", said == "interaction"
    elif task["task"] == "stage2":  # the columns between the two are its classes
        names = table.columns[table.columns.get_loc("label") + 1 : table.columns.get_loc("prediction")]
        number = {name: str(k) for k, name in enumerate(names)}
        truth, said = truth.map(number), said.map(number)
    rows = pandas.DataFrame({"label": truth.astype(int), "pred": said.astype(int)})
    if task["task"] != "stage2":
        rows["score"] = table["score"].astype(float)
        for column in TRIVIAL.keys() & set(table.columns):
            rows["trivial"] = TRIVIAL[column] * table[column].astype(float)
    return rows


def measure(rows: "DataFrame", task: str) -> dict[str, tuple[GroupJackknife, np.ndarray]]:
    """{metric: (jackknife, its rows)} of predictions as `read_predictions` gives them, as in reports."""
    labels, preds, groups = (rows[name].to_numpy() for name in ("label", "pred", "group"))
    if task == "age":
        images, people = GroupJackknife(groups), GroupJackknife(np.unique(groups))
        errors = rows.score - rows.label
        by_subject = errors.groupby(groups).mean().abs().to_numpy()
        return {
            "subject_mae": (people, people.means(by_subject)),
            "mae": (images, images.means(errors.abs().to_numpy())),
        }
    frames = rows.frame.to_numpy()
    if task == "stage2":
        by, one_hot = GroupJackknife(groups, fallback=frames), np.eye(max(labels.max(), preds.max()) + 1)
        return {
            "macro_f1": (by, by.macro_f1(labels, one_hot[preds])),
            "accuracy": (by, by.means(preds == labels)),
        }
    by, scores = GroupJackknife(groups, labels, frames), rows.score.to_numpy()
    found = {"ap": by.ap(labels, scores), "auroc": by.auroc(labels, scores), "f1": by.f1(labels, preds)}
    return {metric: (by, values) for metric, values in found.items()}
