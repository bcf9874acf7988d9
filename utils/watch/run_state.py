"""What a run is doing: its state, the time left, where its figures go, what its history says of learning.

Works on a RunView (utils/watch/run_view.py) and the clock; needs neither torch nor numpy.
"""

import math
import os
import socket
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.run.log import format_duration
from utils.tasks import nothing_reaches
from utils.watch.run_view import LIVE, RunView, is_number

TYPICAL = 10  # epochs whose median stands for the ones to come
QUIET = {"starting": 1800.0, "training": 120.0, "testing": 900.0}  # seconds without a sign of life: normal
GONE = 60.0  # the same where the process is not found; one in another container is not found either
NO_SKILL = 0.05  # a figure this near to what knowing nothing reaches shows no skill
WINDOW = 10  # epochs looked at
FEWEST = 4  # with fewer a line fits almost anything
# 97.5% quantile of Student's t for 2 .. 8 degrees of freedom: a window has at most WINDOW - 2 of them.
STUDENT_T = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
FLAT = 0.01  # relative change of the train loss over RECENT epochs that counts as none
RECENT = 5


@dataclass(frozen=True)
class State:
    """One of starting, training, testing, stalled, finished, interrupted, failed; and why, in words."""

    word: str
    detail: str

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.word in ("finished", "interrupted", "failed")

    def __str__(self) -> str:
        return f"{self.word} ({self.detail})" if self.detail else self.word


def run_state(view: RunView, now: float) -> State:
    """The state at `now` (unix seconds).

    A run that says it is running is believed while it shows signs of life; before it says anything, the last
    write to its folder is one.
    """
    word = view.status.get("state", "starting")
    if word == "finished":
        return State(word, view.results.get("verdict", ""))
    if word not in LIVE:
        return State(word, view.status.get("reason") or "")
    age = max(0.0, now - view.status.get("time", view.changed))
    gone = process_is_gone(view.status)
    # While an epoch is validated, or the test split, nothing is written.
    if age <= (GONE if gone else max(QUIET[word], seconds_per_epoch(view) or 0.0)):
        return State(word, "")
    detail = f"last sign of life {format_duration(age)} ago"
    if gone:
        detail += f"; process {view.status['pid']} is no longer there: killed, or out of memory?"
    return State("stalled", detail)


def process_is_gone(status: dict[str, Any]) -> bool:
    """Whether the process that wrote this status has ended; only its own machine can tell."""
    pid = status.get("pid")
    here = os.name == "posix" and status.get("host") == socket.gethostname()
    if not here or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process: it is there
        pass
    return False


def seconds_per_epoch(view: RunView) -> float | None:
    """Median of the last epochs. The first, which warms up, counts only while it is the only one."""
    seconds = [row["seconds"] for row in view.history[1:] or view.history if is_number(row.get("seconds"))]
    return statistics.median(seconds[-TYPICAL:]) if seconds else None


def epochs_done(view: RunView) -> float:
    """Epochs finished, with the part done of the one at hand."""
    done = view.history[-1]["epoch"] if view.history else 0
    step, steps = view.status.get("step"), view.status.get("steps")
    if view.status.get("epoch") == done + 1 and is_number(step) and steps:
        return done + step / steps
    return float(done)


def time_left(view: RunView) -> tuple[float, float] | None:
    """(least, most) seconds until training ends, None when unknown; the test pass comes on top.

    They differ where early stopping may end it: without a better epoch to come, `patience` - `wait` more.
    """
    seconds = seconds_per_epoch(view)
    if seconds is None:
        return None
    done = epochs_done(view)
    least = most = max(0.0, view.epochs - done)
    patience = view.status.get("patience", view.config.get("training", {}).get("patience", 0))
    if patience:
        best = view.best_epoch() or 0
        wait = view.status.get("wait", view.history[-1]["epoch"] - best)
        least = min(most, max(0.0, patience - wait - done % 1))  # a part of the epoch at hand is done
    return least * seconds, most * seconds


def time_left_words(view: RunView) -> str:
    """'12 min', or 'up to 12 min (3 min if nothing improves)'."""
    left = time_left(view)
    if left is None:
        return "known after the first epoch"
    least, most = map(format_duration, left)
    return most if least == most else f"up to {most} ({least} if no epoch gets better: early stopping)"


@dataclass(frozen=True)
class Trend:
    """Least-squares line through the last epochs: change per epoch -+ `reach` (95% interval)."""

    slope: float
    reach: float
    epochs: int  # points the line goes through

    @property
    def clear(self) -> bool:
        """Whether the interval of the slope excludes 0."""
        return abs(self.slope) > self.reach

    def words(self) -> str:
        """'rising 0.012 +- 0.004 per epoch', or that nothing can be told from the noise."""
        if not self.clear:
            return f"no trend beyond its noise ({self.slope:+.2g} +- {self.reach:.2g} per epoch)"
        return f"{self.arrow()} {abs(self.slope):.2g} +- {self.reach:.2g} per epoch"

    def arrow(self) -> str:
        """One word for a table."""
        return ("rising" if self.slope > 0 else "falling") if self.clear else "noise"


def trend(epochs: Sequence[int], values: Sequence[float | None]) -> Trend | None:
    """The line through the last WINDOW epochs that have a value; None with fewer than FEWEST.

    The interval takes the scatter about the line as independent from epoch to epoch, so it is a rough one:
    slope -+ t * sqrt(residual sum / (n - 2) / sum of squared distances of the epochs from their mean).
    """
    points = [(e, v) for e, v in zip(epochs, values, strict=True) if v is not None and math.isfinite(v)]
    points, n = points[-WINDOW:], len(points[-WINDOW:])
    if n < FEWEST:
        return None
    middle, mean = (sum(column) / n for column in zip(*points, strict=True))
    spread = sum((e - middle) ** 2 for e, _ in points)
    slope = sum((e - middle) * (v - mean) for e, v in points) / spread
    scatter = sum((v - mean - slope * (e - middle)) ** 2 for e, v in points)
    return Trend(slope, STUDENT_T[n - 2] * math.sqrt(scatter / (n - 2) / spread), n)


def learning_signs(view: RunView) -> list[str]:
    """What the learning check of the run said, and what its history shows: sentences, the gravest first."""
    found = [not_finite(view), no_skill(view), flat(view), overfitting(view)]
    said = [text for text in view.status.get("warnings") or [] if isinstance(text, str)]
    return [text for text in found if text] + said


def not_finite(view: RunView) -> str:
    """A loss of null is what NaN and infinity are written as."""
    for row in view.history:
        for key in ("train_loss", "val_loss"):
            if key in row and not is_number(row[key]):
                return f"NaN: {key} was not finite in epoch {row['epoch']}"
    return ""


def no_skill(view: RunView) -> str:
    """The last three epochs' median of the task's skill figure against what knowing nothing reaches."""
    metric = view.task["metrics"].get(view.task["skill"])
    counts = view.data.get("class_counts", {}).get("val")
    nothing = nothing_reaches(metric, counts) if metric else None
    key = f"val_{view.task['skill']}"
    values = [row[key] for row in view.history[-3:] if is_number(row.get(key))]
    if len(values) < 3 or nothing is None or statistics.median(values) > nothing + NO_SKILL:
        return ""
    return (
        f"no skill yet: {key} is {statistics.median(values):.3g} in the last three epochs, "
        f"knowing nothing reaches {nothing:.3g}"
    )


def flat(view: RunView) -> str:
    """A train loss that stands still; after the learning rate was lowered a plateau is what one hopes for."""
    rows = [row for row in view.history if is_number(row.get("train_loss")) and is_number(row.get("lr"))]
    last = [row["train_loss"] for row in rows[-RECENT:]]
    if len(last) < RECENT or rows[-1]["lr"] < 0.1 * max(row["lr"] for row in rows):
        return ""
    if max(last) - min(last) > FLAT * abs(last[-1]):
        return ""
    return f"flat: train_loss stays at {last[-1]:.4g} for {RECENT} epochs; is the learning rate too low?"


def overfitting(view: RunView) -> str:
    """Val loss clearly above its best for the last three epochs while the train loss went on falling."""
    rows = [
        row for row in view.history if is_number(row.get("train_loss")) and is_number(row.get("val_loss"))
    ]
    if not rows:
        return ""
    turn = min(rows, key=lambda row: row["val_loss"])
    later = rows[-3:]
    fell = statistics.mean(row["train_loss"] for row in later) < turn["train_loss"]
    rose = all(row["val_loss"] > turn["val_loss"] + FLAT * 5 * abs(turn["val_loss"]) for row in later)
    if rows[-1]["epoch"] - turn["epoch"] < RECENT or not (fell and rose):
        return ""
    text = (
        f"overfitting since epoch {turn['epoch']}: val_loss rose from {turn['val_loss']:.3g} to "
        f"{rows[-1]['val_loss']:.3g} while train_loss fell from {turn['train_loss']:.3g} to "
        f"{rows[-1]['train_loss']:.3g}"
    )
    best, key = view.best_epoch(), view.decides
    if best is not None and best > turn["epoch"] and key != "val_loss":
        text += f"; {key}, which decides, was best later, in epoch {best}"
    return text
