"""Which runs repeat one setting, what differs between settings, and by how much on the same samples."""

import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics.verdict import GroupBootstrap, interval
from utils.run.errors import CommandError
from utils.run.find import start_of
from utils.tasks import TASKS, metrics_shown
from utils.watch.predictions import Predictions, read_predictions
from utils.watch.run_view import RunView, is_number, read_if_there

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Where a run was put and how it was watched: no difference between experiments.
PLACES = {"output_dir", "resume", "config"}
# These do not make another experiment of it; they are shown where they differ.
NO_SETTING = PLACES | {
    "seed", "device", "num_workers", "save_interval", "plot_interval", "log_interval", "cache_limit_gb",
    "max_hours", "stall_timeout", "check_data", "dry_run", "overfit_one_batch", "require_learning", "debug",
}  # fmt: skip
DATA_PATHS = {"data_path", "image_dir", "excel_path"}  # the fingerprint says whether the data are the same
# Not decided by the flags: shown wherever they differ.
CIRCUMSTANCES = (
    "git.commit", "git.dirty", "script_version", "device", "gpu_names", "world_size", "num_threads",
    "pytorch_version", "cuda_version", "dataset.fingerprint", "dataset.train_samples", "dataset.val_samples",
    "dataset.test_samples",
)  # fmt: skip
SPLIT_KEYS = ("sequences.", "scenarios.", "split_source", "train_samples", "val_samples", "test_samples")
NEVER_SHOWN = ("timestamp", "command", "description", "output_dir", "seed", "dataset.random_seed")


@dataclass(frozen=True)
class Condition:
    """The runs of one setting: `letter` names it in tables, `label` says what sets it apart."""

    letter: str
    label: str
    runs: list[RunView]

    @property
    def distinct(self) -> list[RunView]:
        """One run per seed, the newest: a seed that ran twice is no second sample of the experiment."""
        newest = sorted(self.runs, key=lambda view: start_of(view.folder))
        return list({view.config.get("seed"): view for view in newest}.values())


def check_comparable(views: Sequence[RunView]) -> None:
    """Raises CommandError for runs whose figures do not mean the same."""
    for view in views:
        if view.script not in TASKS:
            raise CommandError(
                f"{view.folder} can not be compared: "
                + (f"its script is {view.script}" if view.script else "it has no config.json yet")
            )
    first = {}
    for view in views:
        unit = view.config.get("dataset", {}).get("target_unit")
        first.setdefault(f"{view.task['task']}{f' in {unit}' if unit else ''}", view.folder)
    if len(first) > 1:
        kinds = "\n".join(f"  {kind}: {folder}" for kind, folder in list(first.items())[:3])
        raise CommandError(f"runs of different tasks can not be compared\n{kinds}\nname runs of one task")


def settings(config: dict[str, Any], depth: int = 2) -> dict[str, Any]:
    """What makes a run another experiment: script, flags, data, effective batch size; not seed and places.

    Stage 2 starts from a stage 1 run: that one's settings stand for its path, which changes with the seed.
    """
    fingerprint = config.get("dataset", {}).get("fingerprint")
    left_out = NO_SETTING | {"stage1_checkpoint"} | (DATA_PATHS if fingerprint else set())
    found = {key: value for key, value in config.get("args", {}).items() if key not in left_out}
    found |= {
        "script": config.get("script_name"),
        "dataset.fingerprint": fingerprint,
        "effective_batch_size": config.get("training", {}).get("effective_batch_size"),
    }
    source = config.get("model", {}).get("source") if config.get("script_name") == "train_stage2.py" else None
    if source and source != "none":
        start = read_if_there(Path(source).parent / "config.json") if depth else None
        found["stage1"] = settings(start, depth - 1) if isinstance(start, dict) else source
    return found


def group_runs(views: Sequence[RunView]) -> list[Condition]:
    """Runs that differ in nothing that matters but the seed, together; in the order of the first of each."""
    found: dict[str, tuple[dict[str, Any], list[RunView]]] = {}
    for view in views:
        mine = settings(view.config)
        found.setdefault(json.dumps(mine, sort_keys=True), (mine, []))[1].append(view)
    if len(found) > len(LETTERS):
        raise CommandError(f"{len(found)} different settings: at most {len(LETTERS)} fit one table")
    flat = [flatten(mine) for mine, _ in found.values()]
    keys = [key for key in all_keys(flat) if len({as_text(one.get(key)) for one in flat}) > 1]
    conditions = []
    for letter, one, (_, runs) in zip(LETTERS, flat, found.values(), strict=False):
        label = ", ".join(f"{key}={short(one.get(key))}" for key in keys if key != "dataset.fingerprint")
        if "dataset.fingerprint" in keys:
            label = ", ".join(text for text in (label, f"data {data_of(runs[0])}") if text)
        if not label or len(label) > 60:
            label = runs[0].name if len(runs) == 1 else f"{runs[0].name} and {len(runs) - 1} more"
        conditions.append(Condition(letter, label, runs))
    return conditions


def data_of(view: RunView) -> str:
    """Where the data of a run lay, and the beginning of their fingerprint."""
    data = view.config.get("dataset", {})
    path = data.get("data_path") or ", ".join(data.get("image_dir") or ["?"])
    return f"{short(path)} ({short(data.get('fingerprint'))})"


def split_notes(conditions: Sequence[Condition]) -> list[str]:
    """A note where runs of one condition were trained and tested on other parts of the data."""
    notes = []
    for condition in conditions:
        data = [flatten(view.config.get("dataset", {})) for view in condition.runs]
        parts = [{key: one[key] for key in one if key.startswith(SPLIT_KEYS)} for one in data]
        if any(part != parts[0] for part in parts):
            notes.append(
                f"the runs of {condition.letter} split the data differently: their sd holds that too"
            )
    return notes


def differing_keys(conditions: Sequence[Condition]) -> dict[str, list[list[str]]]:
    """{key: the values in each condition} for the config keys that differ between the runs, and no others.

    Flags first. What follows from the flags (the model's size from its name) is left out: it is shown only
    where it differs between runs of one condition. CIRCUMSTANCES are shown wherever they differ.
    """
    configs = [[flatten(view.config) for view in condition.runs] for condition in conditions]
    everything = [config for runs in configs for config in runs]
    keys = sorted(all_keys(everything), key=lambda key: not key.startswith("args."))
    found = {}
    for key in keys:
        values = [list(dict.fromkeys(short(run.get(key)) for run in runs)) for runs in configs]
        differs = len({as_text(run.get(key)) for run in everything}) > 1
        within = any(len({as_text(run.get(key)) for run in runs}) > 1 for runs in configs)
        shown = key.startswith("args.") or key in CIRCUMSTANCES or within
        if differs and shown and key not in NEVER_SHOWN and key.removeprefix("args.") not in PLACES:
            found[key] = values
    return found


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model.backbone': 'cnn'}: nested keys joined by dots; lists are values."""
    found = {}
    for key, item in value.items():
        found |= flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return found


def all_keys(flat: Sequence[dict[str, Any]]) -> list[str]:
    """The keys of all, each once, in the order they appear."""
    return list(dict.fromkeys(key for one in flat for key in one))


def as_text(value: Any) -> str:
    """A value as JSON, to compare it by."""
    return json.dumps(value, sort_keys=True)


def short(value: Any) -> str:
    """A value for a table: whole where it is short, a hash or a path by its beginning or end."""
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) >= 40 and all(c in "0123456789abcdef" for c in text):
        return text[:7]
    if len(text) > 40:
        return "..." + text[-37:] if os.sep in text else text[:37] + "..."
    return text


def figures_on_test(view: RunView) -> dict[str, tuple[float | None, list[float] | None]]:
    """{metric: (value, 95% interval)} on the test split, from results.json; empty without results."""
    measured = view.results.get("metrics", {}).get("test", {})
    confidence = view.results.get("confidence", {})
    return {
        key: (measured[key], confidence.get(key))
        for key in metrics_shown(view.task, "test")
        if key in measured
    }


def mean_and_sd(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and standard deviation (n - 1) over runs; None with fewer than two values."""
    known = [value for value in values if is_number(value)]
    return (statistics.mean(known), statistics.stdev(known)) if len(known) > 1 else None


@dataclass(frozen=True)
class Difference:
    """How much `metric` of condition `letter` lies above that of the first, with the 95% interval."""

    letter: str
    metric: str
    value: float
    low: float
    high: float
    higher_is_better: bool

    def words(self) -> str:
        """What the interval says."""
        if self.low <= 0 <= self.high:
            return "no clear difference"
        return "better" if (self.value > 0) == self.higher_is_better else "worse"


def paired_differences(conditions: Sequence[Condition], seed: int = 0) -> tuple[list[Difference], list[str]]:
    """Every condition against the first on the same test samples, and notes on what was or was not done.

    Both are measured on the same resampled groups (sequences, scenarios, subjects). Where a condition has
    several runs, each replicate also draws its runs anew and takes their mean, so that the scatter between
    seeds is in the interval.
    """
    reference = read_predictions(conditions[0].distinct[0])
    if isinstance(reference, str):
        return [], [f"no paired difference: {reference}; name a finished run first"]
    measure, rng = bootstrap(reference), np.random.default_rng(seed)
    means, notes = {}, []
    for condition in conditions:
        paired = pair_with(reference, condition.distinct)
        if isinstance(paired, str):
            notes.append(f"no paired difference for {condition.letter}: {paired}")
        else:
            means[condition.letter] = mean_over_runs([measure(one) for one in paired], rng)
    base = means.pop(conditions[0].letter, None)
    if base is None or not means:
        return [], notes
    declared = reference.task["metrics"]
    found = [
        Difference(
            letter,
            metric,
            value - base[metric][0],
            *interval(draws - base[metric][1]),
            declared[metric].higher,
        )
        for letter, mean in means.items()
        for metric, (value, draws) in mean.items()
    ]
    return found, [*notes, reference.note]


def pair_with(reference: Predictions, runs: Sequence[RunView]) -> list[Predictions] | str:
    """The runs' predictions of the reference's samples, in its order; a sentence where one has others."""
    paired = []
    for view in runs:
        mine = read_predictions(view)
        one = mine if isinstance(mine, str) else mine.in_order_of(reference)
        if isinstance(one, str):
            return one
        paired.append(one)
    return paired


def mean_over_runs(
    measured: Sequence[dict[str, tuple[float, np.ndarray]]], rng: np.random.Generator
) -> dict[str, tuple[float, np.ndarray]]:
    """{metric: (mean, replicates)} of several runs; each replicate takes the mean of as many runs drawn anew.

    Means of n values drawn anew scatter sqrt((n - 1) / n) too little, much with few seeds; that is mended.
    """
    means, n = {}, len(measured)
    for metric in measured[0]:
        draws = np.stack([one[metric][1] for one in measured])  # (n, replicates)
        middle = draws.mean(axis=0)
        if n > 1:
            drawn = np.take_along_axis(draws, rng.integers(n, size=draws.shape), axis=0).mean(axis=0)
            draws = middle + np.sqrt(n / (n - 1)) * (drawn - middle)
        means[metric] = (float(np.mean([one[metric][0] for one in measured])), draws.reshape(-1))
    return means


def bootstrap(reference: Predictions) -> Callable[[Predictions], dict[str, tuple[float, np.ndarray]]]:
    """A function that measures predictions of these samples, always on the same draws.

    It returns {metric: (value, replicates)}; definitions and resampling are those of the reports
    (utils/report*.py).
    """
    labels, task = reference.labels, reference.task["task"]
    if task == "age":
        images = GroupBootstrap(reference.groups)
        names, subject = np.unique(reference.groups, return_inverse=True)
        people, counts = GroupBootstrap(names), np.bincount(subject)

        def measure_ages(one: Predictions) -> dict[str, tuple[float, np.ndarray]]:
            errors = np.abs(one.scores - labels)
            per_subject = np.abs(np.bincount(subject, one.scores - labels) / counts)
            return {
                "subject_mae": (float(per_subject.mean()), people.means(per_subject)),
                "mae": (float(errors.mean()), images.means(errors)),
            }

        return measure_ages
    draws = GroupBootstrap(reference.groups, labels, reference.frames)
    whole = GroupBootstrap(np.arange(len(labels)), replicates=1)
    whole.counts = np.ones((1, len(labels)), int)  # every sample once: the value itself, by the same formulas

    def measure_classes(one: Predictions) -> dict[str, tuple[float, np.ndarray]]:
        def both(statistic: Callable[[GroupBootstrap], np.ndarray]) -> tuple[float, np.ndarray]:
            return float(statistic(whole)[0]), statistic(draws)

        if task == "stage2":
            hard = np.eye(one.scores.shape[1])[one.preds]
            return {
                "macro_f1": both(lambda b: b.macro_f1(labels, hard)),
                "accuracy": both(lambda b: b.means(one.preds == labels)),
            }
        return {
            "ap": both(lambda b: b.ap(labels, one.scores)),
            "auroc": both(lambda b: b.auroc(labels, one.scores)),
            "f1": both(lambda b: b.f1(labels, one.preds)),
        }

    return measure_classes
