"""The runs of --fold 1/N to N/N as one: every group is judged once, by a model that never saw it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.metrics.classification import trivial_guesses
from utils.metrics.regression import trivial_predictions
from utils.metrics.verdict import divide, judge
from utils.run.errors import CommandError
from utils.run.find import start_of
from utils.run.folder import read_arrays
from utils.watch.comparison import Condition
from utils.watch.predictions import Pooled, measure, read_predictions
from utils.watch.run_view import RunView

if TYPE_CHECKING:
    from pandas import DataFrame

# What decides the verdict, as in a run's report.
JUDGED_BY = {"age": "subject_mae", "stage1": "auroc", "stage2": "macro_f1", "anomaly": "auroc"}


def check_folds(views: Sequence[RunView]) -> None:
    """Raises CommandError for runs that are no folds of one data set."""
    if others := [view.name for view in views if not view.config["args"].get("fold")]:
        raise CommandError(f"--folds pools runs of --fold K/N; these are none: {', '.join(others)}")
    found = {view.data.get("fingerprint"): view.name for view in views}
    if len(found) > 1:
        listed = ", ".join(f"{name} (data {str(mark)[:7]})" for mark, name in found.items())
        raise CommandError(f"folds of different data can not be pooled: {listed}")


def pool_folds(condition: Condition) -> tuple[Condition, list[str]]:
    """The condition with its folds pooled, once per seed, and what is missing or doubled."""
    runs, notes, pooled = sorted(condition.runs, key=lambda view: start_of(view.folder)), [], []
    for seed in dict.fromkeys(view.config.get("seed") for view in runs):
        mine = [view for view in runs if view.config.get("seed") == seed]
        begun = {view.config["args"]["fold"]: view for view in mine}  # the newest of each
        folds = {view.config["args"]["fold"]: view for view in mine if view.results}
        count, name = int(next(iter(begun)).split("/")[1]), f"{condition.letter}, seed {seed}"
        if doubled := sum(bool(view.results) for view in mine) - len(folds):
            notes.append(f"{name}: {doubled} folds ran twice, the newest of each counts")
        every = [f"{k}/{count}" for k in range(1, count + 1)]
        if missing := [one for one in every if one not in folds]:
            last = mine[-1]
            anew = {one: f"--config {last.folder / 'config.json'} --fold {one}" for one in missing}
            anew |= {one: f"--resume {begun[one].folder}" for one in missing if one in begun}
            typed = "; ".join(f"python {last.script} {flags}" for flags in anew.values())
            notes.append(
                f"{name}: no finished run of fold {', '.join(missing)}: nobody of it is judged here, nor can "
                f"it be paired with a recipe that has all; to type: {typed}"
            )
        if folds:
            pooled.append(pool([folds[one] for one in every if one in folds], count))
            notes.append(f"{name}, {pooled[-1].name}: {pooled[-1].verdict}")
    return replace(condition, pooled=tuple(pooled)), notes


def pool(folds: Sequence[RunView], count: int) -> Pooled:
    """Folds of one recipe and seed. Raises CommandError for predictions that can not be read or pooled."""
    import pandas

    tables = [read_predictions(view) for view in folds]
    table, task = pandas.concat(tables), folds[0].task
    name = f"pooled, {len(folds)} of {count} folds"
    if table.index.duplicated().any():
        raise CommandError(f"{folds[0].name} and its other folds tested the same samples: another split")
    table.attrs = {"split": "test", "name": name}
    if task["task"] == "anomaly":
        table["frame"] = np.arange(len(table))
    measured, metric = measure(table, task["task"]), JUDGED_BY[task["task"]]
    (by, judged), higher = measured[metric], task["metrics"][metric].higher
    guesses = [guess_trivially(view, one) for view, one in zip(folds, tables, strict=True)]
    trivial = {}
    for which in guesses[0]:
        guess = np.concatenate([one[which] for one in guesses])  # (N,) or (N, K): shares of the types
        if task["task"] == "stage2":
            trivial[which] = by.macro_f1(table.label.to_numpy(), guess)
        else:
            trivial[which] = measure(table.assign(score=guess), task["task"])[metric][1]
    best = (max if higher else min)(trivial, key=lambda which: trivial[which][0])
    title = task["metrics"][metric].title.format(unit=folds[0].data.get("target_unit", ""))
    how = {"unit": task["groups"], "higher_is_better": higher}
    verdict = judge(title, judged, trivial[best], best, "test", by, **how)
    if task["task"] == "age":
        measured["skill"] = by, 1 - divide(judged, trivial[best])
    reason = verdict.reason
    if "inside" in table and table.inside.notna().all():
        share = table.groupby("group").inside.mean().mean()
        reason += f"; {share:.1%} of {table.group.nunique()} {task['groups']} lie in their interval"
    confidence = [jackknife.intervals(**{one: rows}) for one, (jackknife, rows) in measured.items()]
    results = {
        "verdict": verdict.word,
        "verdict_reason": reason,
        "metrics": {"test": {one: float(rows[0]) for one, (_, rows) in measured.items()}},
        "confidence": {one: ends for found in confidence for one, ends in found.items()},
        "wall_seconds": sum(view.results.get("wall_seconds") or 0 for view in folds),
    }
    return Pooled(Path(name), folds[0].config, [], {}, results, 0.0, table)


def guess_trivially(view: RunView, rows: "DataFrame") -> dict[str, np.ndarray]:
    """{name: scores (N,), or of stage 2 probabilities (N, K)} of what a run's verdict compares with."""
    task, count = view.task["task"], len(rows)
    if task == "stage1":
        return {"distance alone": rows.trivial.to_numpy()}
    if task == "anomaly":
        return {"trivial features": rows.trivial.to_numpy(), "chance": np.zeros(count)}
    train = read_arrays(view.folder / "references.npz")["train_labels"]
    if task == "age":
        return trivial_predictions(train, count)
    guesses = trivial_guesses(train, len(view.config["model"]["class_names"]))
    return {name: np.tile(guess, (count, 1)) for name, guess in guesses.items()}
