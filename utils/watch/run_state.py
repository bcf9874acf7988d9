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

from utils.run.lock import is_alive
from utils.run.log import format_duration
from utils.run.signs import history_signs, is_number, kind_of
from utils.watch.run_view import LIVE, RunView

TYPICAL = 10  # epochs whose median stands for the ones to come
QUIET = {"starting": 1800.0, "training": 120.0, "testing": 900.0}  # seconds without a sign of life: normal
GONE = 60.0  # the same where the process is not found; one in another container is not found either
WINDOW = 10  # epochs looked at
FEWEST = 4  # with fewer a line fits almost anything
# 97.5% quantile of Student's t for 2 .. 8 degrees of freedom: a window has at most WINDOW - 2 of them.
STUDENT_T = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


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
    return here and isinstance(pid, int) and pid > 0 and not is_alive(pid)


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
    """What its history shows now, and what the run itself said of other kinds: sentences."""
    counts = view.data.get("class_counts", {}).get("val")
    found = history_signs(view.history, view.task, counts, view.status.get("constant_loss"))
    kinds = {kind_of(text) for text in found}
    said = [text for text in view.status.get("warnings") or [] if isinstance(text, str)]
    return found + [text for text in said if kind_of(text) not in kinds]
