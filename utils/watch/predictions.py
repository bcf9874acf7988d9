"""The predictions of a run as its CSV has them, and the figures of a report on any rows of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.metrics.verdict import GroupJackknife
from utils.run.errors import CommandError
from utils.watch.run_view import RunView

if TYPE_CHECKING:
    from pandas import DataFrame

# Scores, the columns that hold them, and the sign that turns these into one; trivial: what a verdict is
# against.
SCORES = (("score", "score", 1), ("trivial", "distance_widths", -1), ("trivial", "trivial_score", 1))


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
    rows = rows.reindex(reference.index)
    if changed := int((~np.isclose(rows.label, reference.label)).sum()):
        what = f"different labels for {changed} of the same samples"
        raise CommandError(f"{view.name} and {name} have {what}")
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
    """label, pred and SCORES of a table of text; ValueError for a number that is none."""
    import pandas

    truth, said = table[task["columns"][0]], table[task["columns"][-1]]
    if task["task"] == "age":
        rows = pandas.DataFrame({"label": truth.astype(float), "pred": 0, "score": said.astype(float)})
        if "low" in table and (table["low"] != "").all():
            rows["inside"] = rows.label.between(table["low"].astype(float), table["high"].astype(float))
        return rows
    if task["task"] == "stage2":
        names = table.columns[table.columns.get_loc("label") + 1 : table.columns.get_loc("prediction")]
        number = {name: str(k) for k, name in enumerate(names)}
        truth, said = truth.map(number), said.map(number)
    elif task["task"] == "stage1":
        truth, said = truth == "interaction", said == "interaction"
    rows = pandas.DataFrame({"label": truth.astype(int), "pred": said.astype(int)})
    for name, column, sign in SCORES if task["task"] != "stage2" else ():
        if column in table:
            rows[name] = sign * table[column].astype(float)
    return rows


def measures_on(
    reference: "DataFrame", task: str
) -> "dict[str, tuple[GroupJackknife, Callable[[DataFrame], np.ndarray]]]":
    """{metric: (jackknife, function that gives its rows for predictions of these samples)}, as in reports."""
    labels, groups = reference.label.to_numpy(), reference.group.to_numpy()
    if task == "age":
        images, people = GroupJackknife(groups), GroupJackknife(np.unique(groups))

        def per_subject(one: "DataFrame") -> np.ndarray:
            return (one.score - reference.label).groupby(groups).mean().abs().to_numpy()

        return {
            "subject_mae": (people, lambda one: people.means(per_subject(one))),
            "mae": (images, lambda one: images.means((one.score - reference.label).abs().to_numpy())),
        }
    frames = reference.frame.to_numpy()
    if task == "stage2":
        by = GroupJackknife(groups, fallback=frames)

        def macro_f1(one: "DataFrame") -> np.ndarray:
            preds = one.pred.to_numpy()
            return by.macro_f1(labels, np.eye(max(labels.max(), preds.max()) + 1)[preds])

        return {
            "macro_f1": (by, macro_f1),
            "accuracy": (by, lambda one: by.means(one.pred.to_numpy() == labels)),
        }
    ranked = GroupJackknife(groups, labels, frames)
    return {
        "ap": (ranked, lambda one: ranked.ap(labels, one.score.to_numpy())),
        "auroc": (ranked, lambda one: ranked.auroc(labels, one.score.to_numpy())),
        "f1": (ranked, lambda one: ranked.f1(labels, one.pred.to_numpy())),
    }
