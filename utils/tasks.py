"""The table of tasks: everything that depends on which script made a run, and what its metrics mean.

Each metric is declared here once, for the epoch lines of the log, the curves, the report,
monitor_training.py and compare_runs.py. No heavy imports, so that these tools start at once.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

EVERYWHERE = ("log", "curves", "test")


class Metric(NamedTuple):
    """A metric's title and how to read it; history.json holds its values as train_NAME and val_NAME.

    higher: whether higher is better, None if neither is. shown: where it appears, any of log (epoch lines
    and the monitor's table), curves, and test (what runs are compared by). nothing: the value that a model
    knowing nothing reaches, as a number, a rule of `nothing_reaches`, or None where only the script knows it;
    nothing_name is the name of that baseline."""

    title: str
    higher: bool | None = True
    shown: tuple[str, ...] = EVERYWHERE
    nothing: float | str | None = None
    nothing_name: str = ""


LOSS = Metric("loss", False, ("log", "curves"), None, "best constant")
AUROC = Metric("AUROC", nothing=0.5, nothing_name="chance")
AP = Metric("average precision", nothing="positives", nothing_name="share of positives")
F1 = Metric("F1 at the val threshold", nothing="f1", nothing_name="everything positive")
ACCURACY = Metric("accuracy", nothing="largest", nothing_name="majority class")

PAIRS = {
    "data": "jrdb", "groups": "sequences", "sample": ("sequence", "frame", "id_left", "id_right"),
    "colours": "orange: the left person, blue: the right one",
}  # fmt: skip
AGES = {
    "task": "age", "data": "ultrasound", "checkpoint": "best_model.pth", "best": "subject_mae", "skill": "r2",
    "metrics": {
        "loss": LOSS,
        "subject_mae": Metric("MAE per subject ({unit})", False),
        "mae": Metric("MAE per image ({unit})", False, nothing_name="mean or median"),
        "mse": Metric("MSE per image", False, ()),
        "r2": Metric("R2", True, ("log", "curves"), 0.0, "mean"),
        "skill": Metric("skill", True, ("test",), 0.0, "mean or median"),
    },
    "quick": "--epochs 24 --model resnet18 --image_size 96",
    "groups": "subjects", "sample": ("subject", "file"), "columns": ("age", "prediction"),
    "colours": "right: how much each pixel changes the age",
    "judged_by": "subject_mae",
}  # fmt: skip

# folder      how the name of a run folder begins
# task        runs of the same task can be compared, by the metrics shown on test
# data        the folder in datasets/, and the built-in sample
# checkpoint  of the best epoch; the run's test pass, evaluate.py and predict.py use it
# best        the val metric that selects the best epoch
# skill       the metric that shows the monitor whether anything has been learned
# metrics     in history.json and results.json, in the order they are shown
# quick       flags for a run of minutes on a CPU, where the defaults take days
# groups      what a split keeps whole and the jackknife leaves out one at a time
# sample      the columns of *_predictions.csv that identify a sample, its group first
# colours     what is what in mistakes.png
# columns     the columns of the truth (first) and the prediction (last)
# classes     in those columns, by number; else the columns between the two are the classes
# judged_by   the test metric that decides the verdict
# trivial     (column, sign): sign * column is the score of the trivial scorer that it is compared with
TASKS: dict[str, dict[str, Any]] = {
    "train_anomaly_with_labels.py": {
        "folder": "anomaly", "task": "anomaly", "data": "anovox",
        "checkpoint": "best_auroc.pth", "best": "auroc", "skill": "auroc",
        "metrics": {
            "loss": LOSS, "auroc": AUROC, "ap": AP, "f1": F1._replace(shown=("test",)),
            "fpr95": Metric("false positive rate at 95% recall", False, ("log", "curves"), 0.95, "chance"),
            "accuracy": ACCURACY._replace(shown=("log",)),
            "mean_score": Metric("mean score", None, ("log", "curves"), "positives", "share of positives"),
        },
        "groups": "scenarios", "sample": ("scenario", "frame_id"), "columns": ("label", "score", "alarm"),
        "classes": ("0", "1"), "judged_by": "auroc", "trivial": ("trivial_score", 1),
        "colours": "cyan: the true anomaly; right: where the model looks for one, dots: LiDAR points",
    },
    "train_stage1.py": PAIRS | {
        "folder": "stage1", "task": "stage1", "checkpoint": "best_f1.pth", "best": "f1", "skill": "auroc",
        "metrics": {
            "loss": LOSS, "ap": AP, "auroc": AUROC, "f1": F1,
            "accuracy": ACCURACY._replace(shown=("curves",)),
        },
        "columns": ("label", "score", "prediction"),
        "classes": ("no interaction", "interaction"),
        "judged_by": "auroc", "trivial": ("distance_widths", -1),
    },
    "train_stage2.py": PAIRS | {
        "folder": "stage2", "task": "stage2",
        "checkpoint": "best_f1.pth", "best": "macro_f1", "skill": "balanced_accuracy",
        "metrics": {
            "loss": LOSS, "macro_f1": Metric("macro F1"),
            "accuracy": ACCURACY._replace(shown=("curves", "test")),
            "balanced_accuracy": Metric("balanced accuracy", True, ("log", "curves"), "classes", "chance"),
            "end_to_end_f1": Metric("macro F1 of both stages", True, ("log", "curves")),
        },
        "columns": ("label", "prediction"), "judged_by": "macro_f1",
    },
    "train_ddp.py": AGES | {"folder": "age_mse"},
    "train_mae.py": AGES | {"folder": "age_mae"},
}  # fmt: skip


def metrics_shown(task: Mapping[str, Any], where: str) -> dict[str, Metric]:
    """The metrics of a row of TASKS that are shown in `where`: log, curves or test."""
    return {name: metric for name, metric in task["metrics"].items() if where in metric.shown}


def log_columns(task: Mapping[str, Any]) -> list[str]:
    """The keys of history.json that an epoch line of the log and the monitor's table show."""
    return ["train_loss", *(f"val_{name}" for name in metrics_shown(task, "log"))]


def recipe_of(config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json says of the recipe in the code, {"optimizer": "SGD", "optimizer_params.momentum":
    0.9, ...}: no flags, and nothing that follows from the split (weights of a loss, length of a schedule)."""
    training = config.get("training", {})
    found = {name: training.get(name) for name in ("loss_function", "optimizer", "lr_scheduler")}
    for name in ("loss_params", "optimizer_params"):
        found |= {f"{name}.{key}": value for key, value in training.get(name, {}).items()}
    flags = ("optimizer_params.lr", "optimizer_params.weight_decay")
    return {key: value for key, value in found.items() if value is not None and key not in flags}


def nothing_reaches(metric: Metric, counts: Mapping[str, int] | None = None) -> float | None:
    """The metric of a model that knows nothing, on samples with `counts` {class: samples}; None if unknown.
    Rules: positives = share of the last class, f1 = F1 of answering only that class, largest = share of the
    most frequent class, classes = 1 / number of classes present."""
    if not isinstance(metric.nothing, str):
        return metric.nothing
    numbers = list((counts or {}).values())
    if not sum(numbers):
        return None
    share, largest = numbers[-1] / sum(numbers), max(numbers) / sum(numbers)
    classes = 1 / sum(number > 0 for number in numbers)
    rules = {"positives": share, "f1": 2 * share / (1 + share), "largest": largest, "classes": classes}
    return rules[metric.nothing]
