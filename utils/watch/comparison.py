"""Groups runs by setting, and compares settings and, on the same samples, their figures."""

import itertools
import json
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from utils.metrics.verdict import MINIMUM, Comparison
from utils.run.arguments import DATA_PATHS, MAY_CHANGE_ON_RESUME
from utils.run.errors import CommandError, some
from utils.run.find import start_of
from utils.run.signs import is_number
from utils.tasks import TASKS, metrics_shown, recipe_of
from utils.watch.predictions import measure, read_predictions
from utils.watch.run_view import RunView, read_if_there

# Where a run writes and how it was started: never a difference between experiments.
PLACES = {f"args.{name}" for name in ("output_dir", "resume", "config", "cache_dir", "force")}
# These do not make it another experiment; differences are shown.
NO_SETTING = MAY_CHANGE_ON_RESUME - {"epochs", "patience", "compile"} | {"seed", "output_dir"}
# Not set by flags and shown where they differ. What else is in config.json follows from the flags.
CIRCUMSTANCES = (
    "git.commit", "git.dirty", "script_version", "device", "gpu_names", "world_size", "num_threads",
    "pytorch_version", "cuda_version", "dataset.fingerprint", "dataset.train_samples", "dataset.val_samples",
    "dataset.test_samples", "training.loss_function", "training.optimizer", "training.lr_scheduler",
)  # fmt: skip
ENDS = ("", "_low", "_high")  # of the columns of a figure and its interval


@dataclass(frozen=True)
class Condition:
    """The runs of one setting: `letter` names it in tables, `label` lists what sets it apart."""

    letter: str
    label: str
    runs: list[RunView]
    pooled: tuple[RunView, ...] = ()  # with --folds: one pooled run per seed

    @property
    def distinct(self) -> list[RunView]:
        """The newest finished run of each seed (the newest at all if none is finished): repeating a seed adds
        no second sample of the experiment. Of pooled folds the seeds that lack none, so that all of them
        judge the same samples."""
        if self.pooled:
            most = max(len(view.table) for view in self.pooled)
            return [view for view in self.pooled if len(view.table) == most]
        newest = sorted(self.runs, key=lambda view: (bool(view.results), start_of(view.folder)))
        return list({view.config.get("seed"): view for view in newest}.values())


def check_comparable(views: Sequence[RunView]) -> None:
    """Raise CommandError for runs whose figures are not comparable."""
    kinds = {}
    for view in views:
        if view.script not in TASKS or "args" not in view.config:
            reason = "it has no config.json yet, or one without a training script and its args"
            raise CommandError(f"{view.folder} cannot be compared: {reason}")
        unit = view.data.get("target_unit")
        kinds.setdefault(f"{view.task['task']}{f' in {unit}' if unit else ''}", view.folder)
    if len(kinds) > 1:
        listed = some((f"  {kind}: {folder}" for kind, folder in kinds.items()), 3, "\n")
        raise CommandError(f"runs of different tasks cannot be compared\n{listed}\nname runs of one task")


def settings(config: dict[str, Any], folds: bool) -> dict[str, Any]:
    """What makes a run another experiment: script, flags, data, the recipe in the code, effective batch size.
    Left out are seed and paths and, with `folds`, the number of the fold. The stage 1 run that stage 2 starts
    from is described by its own settings, because its path changes with the seed. The fingerprint of the data
    replaces its paths."""
    fingerprint = config.get("dataset", {}).get("fingerprint")
    left_out = NO_SETTING | {"stage1_checkpoint"} | (DATA_PATHS if fingerprint else set())
    found = {key: value for key, value in config.get("args", {}).items() if key not in left_out}
    if folds and found.get("fold"):
        found["fold"] = found["fold"].split("/")[1]
    found |= {"script": config.get("script_name"), "dataset.fingerprint": fingerprint}
    found["recipe"] = recipe_of(config)
    found["effective_batch_size"] = config.get("training", {}).get("effective_batch_size")
    if start := config.get("args", {}).get("stage1_checkpoint"):
        recorded = read_if_there(Path(start).parent / "config.json", {})
        found["stage1"] = settings(recorded, folds) if recorded else start
    return found


def group_runs(views: Sequence[RunView], folds: bool = False) -> list[Condition]:
    """One condition for all runs with the same `settings`: they differ only in seed (and fold)."""
    runs_of: dict[str, list[RunView]] = defaultdict(list)  # by their setting as JSON
    for view in views:
        runs_of[json.dumps(flatten(settings(view.config, folds)), sort_keys=True)].append(view)
    if len(runs_of) > len(ascii_uppercase):
        raise CommandError(f"{len(runs_of)} different settings: at most {len(ascii_uppercase)} fit one table")
    flat = list(map(json.loads, runs_of))
    keys, conditions = differing(flat), []
    flags = [key for key in keys if "recipe." not in key]  # the recipe follows from them, or the code differs
    if len({json.dumps([setting.get(key) for key in flags]) for setting in flat}) == len(flat):
        keys = flags
    for letter, setting, runs in zip(ascii_uppercase, flat, runs_of.values(), strict=False):
        parts = [f"{key}={short(setting.get(key))}" for key in keys if key != "dataset.fingerprint"]
        if "dataset.fingerprint" in keys:
            parts.append(f"data {short(runs[0].source)} ({short(setting['dataset.fingerprint'])})")
        if not 0 < len(label := ", ".join(parts)) <= 60:
            label = some((view.name for view in runs), 1, " ")
        conditions.append(Condition(letter, label, runs))
    return conditions


def condition_notes(conditions: Sequence[Condition]) -> list[str]:
    """Notes: each run against its strongest reference, repeated seeds, different splits in one condition."""
    notes = []
    for view in [view for condition in conditions for view in condition.runs]:
        if reference := view.results.get("reference"):
            notes.append(f"{view.name}: {view.results['verdict']}, {reference}")
    for condition in [one for one in conditions if not one.pooled]:
        seeds = [str(view.config.get("seed")) for view in condition.runs]
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            name = condition.letter if len(conditions) > 1 else "the setting"
            notes.append(f"{name} ran more than once with seed {', '.join(twice)}: the newest of each counts")
        dirty = sum(bool(view.config.get("git", {}).get("dirty")) for view in condition.runs)
        if dirty and len(condition.runs) > 1:
            what = f"the code of {dirty} runs of {condition.letter} was changed and not committed"
            notes.append(f"{what}: if it was edited between them, they repeat nothing")
        splits = [read_if_there(view.folder / "split.json", {}) for view in condition.runs]
        if any(split != splits[0] for split in splits):
            notes.append(f"the runs of {condition.letter} split the data differently, which adds to their sd")
    return notes


def differing_keys(conditions: Sequence[Condition]) -> dict[str, list[list[str]]]:
    """{key: the values in each condition} of the flags and CIRCUMSTANCES that differ between runs."""
    configs = []
    for one in conditions:  # folds differ in what follows from the fold: show the first
        runs = sorted(one.runs, key=lambda view: view.config["args"]["fold"])[:1] if one.pooled else one.runs
        configs.append([flatten(view.config) for view in runs])
    keys = differing([config for runs in configs for config in runs])
    flags = [key for key in keys if key.startswith("args.") and key not in PLACES]
    return {
        key: [list(dict.fromkeys(short(run.get(key)) for run in runs)) for runs in configs]
        for key in (*flags, *(key for key in CIRCUMSTANCES if key in keys))
    }


def differing(flat: Sequence[dict[str, Any]]) -> list[str]:
    """The keys whose values differ, in order of appearance."""
    keys = dict.fromkeys(key for config in flat for key in config)
    return [key for key in keys if len({json.dumps(config.get(key), sort_keys=True) for config in flat}) > 1]


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model.backbone': 'cnn'}: nested keys joined by dots; lists are values."""
    found = {}
    for key, item in value.items():
        found |= flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return found


def short(value: Any) -> str:
    """A value for a table; long hashes and texts are cut at the end, long paths at the beginning."""
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) >= 40 and all(c in "0123456789abcdef" for c in text):
        return text[:7]
    cut = "..." + text[-37:] if os.sep in text else text[:37] + "..."
    return cut if len(text) > 40 else text


def row_of(condition: Condition, view: RunView) -> dict[str, Any]:
    """A run's figures, those on test with 95% intervals; None if missing."""
    results, best = view.results, view.best
    measured = results.get("metrics", {}).get(results.get("test_split", "test"), {})
    row = {
        "condition": condition.letter, "run": str(view.folder), "seed": view.config.get("seed"),
        "fold": "all" if view.table is not None else view.config["args"].get("fold"),
        "verdict": results.get("verdict"), "best_epoch": best.get("epoch"), "epochs": len(view.history),
        view.decides: best.get(view.decides),
    }  # fmt: skip
    for metric in metrics_shown(view.task, "test"):
        bounds = results.get("confidence", {}).get(metric, (None, None))
        figures = zip(ENDS, (measured.get(metric), *bounds), strict=True)
        row |= {f"test_{metric}{end}": value for end, value in figures}
    return row | {"wall_seconds": results.get("wall_seconds")}


def mean_and_sd(values: Sequence[float | None]) -> str:
    """'0.642 +- 0.031', mean and standard deviation (n - 1) over runs; '' with fewer than two values."""
    known = [value for value in values if is_number(value)]
    return f"{statistics.mean(known):.3f} +- {statistics.stdev(known):.3f}" if len(known) > 1 else ""


def paired_differences(conditions: Sequence[Condition]) -> tuple[list[Comparison], list[str]]:
    """Every condition against the first on the same test samples, and notes. A jackknife leaves the same
    groups (sequences, scenarios, subjects) out of both. Of several runs in a condition the mean counts, and
    the interval includes the scatter between seeds."""
    first = conditions[0].distinct[0]
    task, measured, notes = first.task, {}, []
    try:
        reference = read_predictions(first)
    except CommandError as error:
        return [], [f"no paired difference: {error}; name a finished run first"]
    for condition in conditions:
        try:
            paired = [read_predictions(view, reference) for view in condition.distinct]
            measured[condition.letter] = [measure(rows, task["task"]) for rows in paired]
        except CommandError as error:
            notes.append(f"no paired difference for {condition.letter}: {error}")
    base = measured.pop(conditions[0].letter, None)
    if base is None or not measured:
        return [], notes
    found = []
    for letter, metric in itertools.product(measured, base[0]):
        jackknife, better = base[0][metric][0], task["metrics"][metric].higher
        rows, scatter = mean_over_runs([run[metric][1] for run in measured[letter]])
        base_rows, base_scatter = mean_over_runs([run[metric][1] for run in base])
        one = Comparison.of(metric, rows, base_rows, letter, jackknife, better, scatter, base_scatter)
        known = jackknife.enough or jackknife.over_frames
        found.append(one if known else replace(one, low=np.nan, high=np.nan))
    over = f"{reference.group.nunique()} {task['groups']}"
    if jackknife.over_frames:
        over = f"frames (optimistic), because {over} are too few"
    elif reference.group.nunique() < MINIMUM:
        over += f", too few for an interval: {MINIMUM} are needed"
    if any({one.low, one.high} & {-1, 1} for one in found):
        over += "; cut at -1 and 1, the limits of a difference: these groups say next to nothing"
    paired = f"paired on the same {len(reference)} {reference.attrs['split']} samples"
    return found, [*notes, f"{paired}; intervals over {over}"]


def mean_over_runs(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[float, float]]:
    """Mean of several runs' rows, and its variance between seeds with the degrees of freedom of that. The
    scatter of a single run is unknown and counts as none."""
    if len(rows) == 1:
        return rows[0], (0.0, math.inf)
    variance = float(np.var([run[0] for run in rows], ddof=1) / len(rows))
    return np.mean(rows, axis=0), (variance, len(rows) - 1)
