"""Reads a run's predictions from its CSV, measures them as a report does, and pools the runs of --fold 1/N to
N/N into one: every group is judged once, by a model that never saw it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.metrics.classification import trivial_guesses
from utils.metrics.regression import trivial_predictions
from utils.metrics.verdict import GroupJackknife, divide, judge
from utils.run.errors import CommandError, counted
from utils.run.find import start_of
from utils.run.folder import read_arrays
from utils.watch.run_view import RunView

if TYPE_CHECKING:
    from pandas import DataFrame

    from utils.watch.comparison import Condition


def read_predictions(view: RunView, reference: "DataFrame | None" = None) -> "DataFrame":
    """The predictions on the split that the run was judged on, in the order of `reference`.

    One row per sample, indexed by its name. Columns: label and pred (class numbers), score (of the positive
    class; for ages the prediction, with the true age as label), group and frame (left out by a jackknife); if
    known also trivial (the score that the verdict compares with) and inside (is the age in its interval?).
    CommandError if they cannot be read, or have other samples or labels than `reference`."""
    rows = read_table(view) if view.table is None else view.table
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
    """The rows of `read_predictions`, from a run's CSV."""
    import pandas

    split, task = view.results.get("test_split", "test"), view.task
    path, sample = view.folder / f"{split}_predictions.csv", list(task["sample"])
    if not view.results or not path.is_file():
        raise CommandError(f"{path} is not there" if view.results else f"{view.name} has no results yet")
    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False)
        needed = (*sample, *task["columns"], *task.get("trivial", ())[:1])
        lacking = [f"column {name}" for name in needed if name not in table.columns]
        if lacking or not len(table):
            raise ValueError(f"it has no {[*lacking, 'row'][0]}")
        rows = as_numbers(table, task)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    rows["group"], rows["frame"] = table[sample[0]], table[sample[:2]].agg("/".join, axis=1)
    # Samples in two folders can have the same name: n tells them apart.
    rows.index = pandas.MultiIndex.from_frame(table[sample].assign(n=table.groupby(sample).cumcount()))
    rows.attrs |= {"split": split, "name": view.name}
    return rows


def as_numbers(table: "DataFrame", task: dict[str, Any]) -> "DataFrame":
    """label, pred, score, trivial and inside from a table of text; ValueError for text that is no number."""
    import pandas

    truth, predicted = table[task["columns"][0]], table[task["columns"][-1]]
    if task["task"] == "age":
        rows = pandas.DataFrame({"label": truth.astype(float), "pred": 0, "score": predicted.astype(float)})
        if "low" in table and (table["low"] != "").all():
            rows["inside"] = rows.label.between(table["low"].astype(float), table["high"].astype(float))
        return rows
    names = task.get("classes")
    names = names or table.columns[table.columns.get_loc("label") + 1 : table.columns.get_loc("prediction")]
    number = {name: k for k, name in enumerate(names)}
    rows = pandas.DataFrame({"label": truth.map(number), "pred": predicted.map(number)}).astype(int)
    if "trivial" in task:
        column, sign = task["trivial"]
        rows["score"], rows["trivial"] = table["score"].astype(float), sign * table[column].astype(float)
    return rows


def measure(rows: "DataFrame", task: str) -> dict[str, tuple[GroupJackknife, np.ndarray]]:
    """{metric: (jackknife, its rows)} as in reports, from the rows of `read_predictions`."""
    labels, preds, groups = (rows[name].to_numpy() for name in ("label", "pred", "group"))
    if task == "age":
        errors = rows.score - rows.label
        by_subject = errors.groupby([groups, rows.label]).mean().abs()  # one per age of a subject
        images, people = GroupJackknife(groups), GroupJackknife(by_subject.index.get_level_values(0))
        return {
            "subject_mae": (people, people.means(by_subject.to_numpy())),
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


def check_folds(views: Sequence[RunView]) -> None:
    """Raise CommandError unless all runs are folds of one data set."""
    if others := [view.name for view in views if not view.config["args"].get("fold")]:
        raise CommandError(f"--folds pools runs of --fold K/N; these are not: {', '.join(others)}")
    found = {view.data.get("fingerprint"): view.name for view in views}
    if len(found) > 1:
        listed = ", ".join(f"{name} (data {str(mark)[:7]})" for mark, name in found.items())
        raise CommandError(f"folds of different data cannot be pooled: {listed}")


def pool_folds(condition: "Condition") -> tuple["Condition", list[str]]:
    """The condition with its folds pooled per seed, and notes on missing or repeated folds."""
    runs, notes, pooled = sorted(condition.runs, key=lambda view: start_of(view.folder)), [], []
    count, groups = int(runs[0].config["args"]["fold"].split("/")[1]), runs[0].task["groups"]
    for seed in dict.fromkeys(view.config.get("seed") for view in runs):
        finished = [view for view in runs if view.config.get("seed") == seed and view.results]
        folds = {view.config["args"]["fold"]: view for view in finished}  # the newest of each
        name, every = f"{condition.letter}, seed {seed}", [f"{k}/{count}" for k in range(1, count + 1)]
        if doubled := len(finished) - len(folds):
            notes.append(f"{name}: {counted(doubled, 'folds')} ran twice, the newest run of each counts")
        if missing := [fold for fold in every if fold not in folds]:
            what = f"no finished run of fold {', '.join(missing)}: its {groups} are not judged"
            notes.append(f"{name}: {what}, and it is not compared or averaged with seeds that have all folds")
        if folds:
            pooled.append(pool([folds[fold] for fold in every if fold in folds], count))
            notes.append(f"{name}, {pooled[-1].name}: {pooled[-1].verdict}")
    return replace(condition, pooled=tuple(pooled)), notes


def pool(folds: Sequence[RunView], count: int) -> RunView:
    """Folds of one recipe and seed as one run; CommandError if their predictions cannot be pooled."""
    import pandas

    tables = [read_predictions(view) for view in folds]
    table, task = pandas.concat(tables), folds[0].task
    name = f"pooled, {len(folds)} of {count} folds"
    if table.index.duplicated().any():
        raise CommandError(f"{folds[0].name} and other folds tested the same samples: their splits differ")
    table.attrs = {"split": "test", "name": name}
    measured, metric = measure(table, task["task"]), task["judged_by"]
    (by, judged), higher = measured[metric], task["metrics"][metric].higher
    guesses, trivial = [guess_trivially(*fold) for fold in zip(folds, tables, strict=True)], {}
    for which in guesses[0]:
        guess = np.concatenate([scores[which] for scores in guesses])  # (N,); stage 2: probabilities (N, K)
        if task["task"] == "stage2":
            trivial[which] = by.macro_f1(table.label.to_numpy(), guess)
        else:
            trivial[which] = measure(table.assign(score=guess), task["task"])[metric][1]
    best = (max if higher else min)(trivial, key=lambda which: trivial[which][0])
    title = task["metrics"][metric].title.format(unit=folds[0].data.get("target_unit", ""))
    truncated = any(view.config["args"].get("max_batches") for view in folds)
    how = {"unit": task["groups"], "higher_is_better": higher, "truncated": truncated}
    verdict = judge(title, judged, trivial[best], best, "test", by, **how)
    if task["task"] == "age":
        measured["skill"] = by, 1 - divide(judged, trivial[best])
    reason = verdict.reason
    if "inside" in table and table.inside.notna().all():
        share = table.groupby(["group", "label"]).inside.mean().mean()
        reason += f"; {share:.1%} of {table.group.nunique()} {task['groups']} lie in their interval"
    confidence = [jackknife.intervals(**{key: rows}) for key, (jackknife, rows) in measured.items()]
    results = {
        "verdict": verdict.word,
        "verdict_reason": reason,
        "metrics": {"test": {name: float(rows[0]) for name, (_, rows) in measured.items()}},
        "confidence": {key: ends for found in confidence for key, ends in found.items()},
        "wall_seconds": sum(view.results.get("wall_seconds") or 0 for view in folds),
    }
    return RunView(Path(name), folds[0].config, [], {}, results, changed=0.0, table=table)


def guess_trivially(view: RunView, rows: "DataFrame") -> dict[str, np.ndarray]:
    """{name: scores (N,), or probabilities (N, K) for stage 2} of the trivial scorers in a run's verdict."""
    task, count = view.task["task"], len(rows)
    if task == "stage1":
        return {"distance alone": rows.trivial.to_numpy()}
    if task == "anomaly":
        return {"trivial features": rows.trivial.to_numpy(), "chance": np.zeros(count)}
    train = read_arrays(view.folder / "references.npz")["train_labels"]
    if task == "age":
        return {name: np.full(count, guess) for name, guess in trivial_predictions(train).items()}
    guesses = trivial_guesses(train, len(view.config["model"]["class_names"]))
    return {name: np.tile(guess, (count, 1)) for name, guess in guesses.items()}
