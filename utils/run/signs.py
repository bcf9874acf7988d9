"""Signs in history.json that learning goes wrong, as sentences for the log, reports and monitor_training.py.

A sentence begins with its kind ("overfitting since epoch 4: ..."). No torch.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from utils.tasks import nothing_reaches

NO_SKILL = 0.05  # a metric this close to what a model that knows nothing reaches shows no skill
FLAT = 0.01  # a smaller relative change of the train loss over RECENT epochs counts as none
RECENT = 5

History = Sequence[Mapping[str, Any]]


def history_signs(
    history: History, task: Mapping[str, Any], counts: Mapping[str, int] | None = None,
    constant: float | None = None,
) -> list[str]:  # fmt: skip
    """All signs, the gravest first. task: a row of utils/tasks.py; counts: val's samples per class;
    constant: the val loss of the best constant output."""
    found = [not_finite(history), no_skill(history, task, counts), above_constant(history, constant)]
    return [text for text in (*found, flat(history), overfitting(history, task)) if text]


def kind_of(text: str) -> str:
    """'overfitting' for 'overfitting since epoch 4: ...': sentences of the same kind say the same."""
    return text.split(":")[0].split(" since ")[0]


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number (null in a file stands for NaN and for undefined)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def not_finite(history: History) -> str:
    """A loss that is null, which stands for NaN and infinity."""
    for row in history:
        for key in ("train_loss", "val_loss"):
            if key in row and not is_number(row[key]):
                return f"NaN: {key} was not finite in epoch {row['epoch']}"
    return ""


def no_skill(history: History, task: Mapping[str, Any], counts: Mapping[str, int] | None) -> str:
    """A skill metric (median of three epochs) hardly better than what a model that knows nothing reaches."""
    metric, key = task["metrics"].get(task["skill"]), f"val_{task['skill']}"
    nothing = nothing_reaches(metric, counts) if metric else None
    values = [row[key] for row in history[-3:] if is_number(row.get(key))]
    if len(values) < 3 or nothing is None or (middle := statistics.median(values)) > nothing + NO_SKILL:
        return ""
    what = f"{key} is {middle:.3g} in the last three epochs, a model that knows nothing reaches"
    return f"hardly any skill: {what} {nothing:.3g}"


def above_constant(history: History, constant: float | None) -> str:
    """A val loss clearly above what the best constant output reaches on val, three epochs in a row."""
    last = [row["val_loss"] for row in history[-3:] if is_number(row.get("val_loss"))]
    if constant is None or len(last) < 3 or min(last) <= (1 + 5 * FLAT) * constant:
        return ""
    reached = f"a constant output reaches {constant:.4g} on val"
    return f"val loss above a constant's: {last[-1]:.4g} in the last epoch, {reached}"


def flat(history: History) -> str:
    """A train loss that stands still, unless the learning rate is below a tenth of its peak: then it may."""
    rows = [row for row in history if is_number(row.get("train_loss")) and is_number(row.get("lr"))]
    last = [row["train_loss"] for row in rows[-RECENT:]]
    if len(last) < RECENT or rows[-1]["lr"] < 0.1 * max(row["lr"] for row in rows):
        return ""
    if max(last) - min(last) > FLAT * abs(last[-1]):
        return ""
    return f"flat: train_loss stays at {last[-1]:.4g} for {RECENT} epochs; is the learning rate too low?"


def overfitting(history: History, task: Mapping[str, Any]) -> str:
    """A val loss clearly above its best for the last three epochs while the train loss kept falling."""
    rows = [row for row in history if is_number(row.get("train_loss")) and is_number(row.get("val_loss"))]
    if not rows:
        return ""
    turn, end, later = min(rows, key=lambda row: row["val_loss"]), rows[-1], rows[-3:]
    fell = statistics.mean(row["train_loss"] for row in later) < turn["train_loss"]
    rose = all(row["val_loss"] > turn["val_loss"] + FLAT * 5 * abs(turn["val_loss"]) for row in later)
    if end["epoch"] - turn["epoch"] < RECENT or not (fell and rose):
        return ""
    rise, fall = (f"from {turn[key]:.3g} to {end[key]:.3g}" for key in ("val_loss", "train_loss"))
    text = f"overfitting since epoch {turn['epoch']}: val_loss rose {rise} while train_loss fell {fall}"
    best, key = best_row(history, task), f"val_{task['best']}"
    if best and best["epoch"] > turn["epoch"] and key != "val_loss":
        text += f"; {key}, which selects the best epoch, was best later, in epoch {best['epoch']}"
    return text


def best_row(history: History, task: Mapping[str, Any]) -> Mapping[str, Any]:
    """The epoch with the best value of the deciding metric, the first of equals; {} if there is none."""
    key, sign = f"val_{task['best']}", -1 if task["metrics"][task["best"]].higher else 1
    known = [row for row in history if is_number(row.get(key))]
    return min(known, key=lambda row: sign * row[key], default={})
