"""The one table of tasks: what depends on which script a run is of, and what its figures mean.

A metric is declared here once, for the line of an epoch, the curves, the report, monitor_training.py and
compare_runs.py. Imports nothing, so that the tools around a run start at once.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

EVERYWHERE = ("log", "curves", "test")


class Metric(NamedTuple):
    """What a figure is called and how it is read; history.json holds it as train_NAME and val_NAME.

    higher: whether higher is better, None where neither is. shown: any of log (the line of an epoch and the
    monitor's table), curves, test (what runs are compared by). nothing: what knowing nothing reaches, a
    number, a rule of `nothing_reaches`, or None where only the script knows; nothing_name says what that is.
    """

    title: str
    higher: bool | None = True
    shown: tuple[str, ...] = EVERYWHERE
    nothing: float | str | None = None
    nothing_name: str = ""


LOSS = Metric("loss", False, ("log", "curves"), None, "best constant")
AUROC = Metric("AUROC", nothing=0.5, nothing_name="chance")
AP = Metric("average precision", nothing="positives", nothing_name="share of positives")
F1 = Metric("F1 at the val threshold")
ACCURACY = Metric("accuracy", nothing="largest", nothing_name="majority class")

PAIRS = {"data": "jrdb", "groups": "sequences", "sample": ("sequence", "frame", "id_left", "id_right")}
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
}  # fmt: skip

# folder      the run folder's name begins with it
# task        runs of one task can be compared, by the metrics shown on test
# data        which of datasets/, and which built-in sample
# checkpoint  of the best epoch: what the run's test pass, evaluate.py and predict.py use
# best        the metric of val that decides which epoch that is
# skill       the metric by which the monitor sees that nothing is learned yet
# metrics     what history.json and results.json hold, in the order they are shown
# quick       flags of minutes on a CPU, where the defaults take days
# groups      what splits keep apart and a jackknife leaves out
# sample      the columns of *_predictions.csv that name a sample, its group first
# columns     those that hold truth and prediction
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
    },
    "train_stage1.py": PAIRS | {
        "folder": "stage1", "task": "stage1", "checkpoint": "best_f1.pth", "best": "f1", "skill": "auroc",
        "metrics": {
            "loss": LOSS, "ap": AP, "auroc": AUROC, "f1": F1,
            "accuracy": ACCURACY._replace(shown=("curves",)),
        },
        "columns": ("label", "score", "prediction"),
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
        "columns": ("label", "prediction"),
    },
    "train_ddp.py": AGES | {"folder": "age_mse"},
    "train_mae.py": AGES | {"folder": "age_mae"},
}  # fmt: skip


def metrics_shown(task: Mapping[str, Any], where: str) -> dict[str, Metric]:
    """The metrics of a row of TASKS that appear in `where`: log, curves or test."""
    return {name: metric for name, metric in task["metrics"].items() if where in metric.shown}


def log_columns(task: Mapping[str, Any]) -> list[str]:
    """The keys of history.json that the line of an epoch and the monitor's table show."""
    return ["train_loss", *(f"val_{name}" for name in metrics_shown(task, "log"))]


def nothing_reaches(metric: Metric, counts: Mapping[str, int] | None = None) -> float | None:
    """What knowing nothing reaches where `counts` {class: samples} are judged, None where that is not known.
    Rules: positives = share of the last class, largest = of the most frequent one, classes = 1 / those there.
    """
    if not isinstance(metric.nothing, str):
        return metric.nothing
    numbers = list((counts or {}).values())
    if not sum(numbers):
        return None
    if metric.nothing == "classes":
        return 1 / sum(number > 0 for number in numbers)
    return (numbers[-1] if metric.nothing == "positives" else max(numbers)) / sum(numbers)
