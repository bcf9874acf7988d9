"""What a run is doing: its state, the time left, and what its history says about learning.

Works on a RunView (utils/watch/run_view.py) and the clock; needs neither torch nor numpy.
"""

import os
import socket
import statistics
from dataclasses import dataclass
from typing import Any

from utils.run.log import format_duration
from utils.tasks import nothing_reaches
from utils.watch.run_view import LIVE, RunView, is_number

TYPICAL = 10  # epochs whose median stands for the ones to come
QUIET = {
    "starting": 1800.0,
    "training": 120.0,
    "testing": 900.0,
}  # seconds without a sign of life that are normal
GONE = 60.0  # the same where the process is not found; one in another container is not found either
NO_SKILL = 0.05  # a figure this near to what knowing nothing reaches shows no skill
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

    A run that says it is running is believed while it shows signs of life. Runs of earlier versions have no
    status.json: results.json says that they finished, the last write to the folder is their sign of life.
    """
    said, reason = view.status.get("state"), view.status.get("reason") or ""
    if said == "finished" or (said is None and view.results):
        return State("finished", view.results.get("verdict", ""))
    if said in ("interrupted", "failed"):
        return State(said, reason)
    word = said if said in LIVE else "training" if view.history else "starting"
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
    if (
        os.name != "posix"
        or not isinstance(pid, int)
        or pid <= 0
        or status.get("host") != socket.gethostname()
    ):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process: it is there
        return False
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
    most = max(0.0, view.epochs - done)
    least = most
    patience = view.status.get("patience", view.config.get("training", {}).get("patience", 0))
    if patience:
        begun = done - int(done)  # of the epoch at hand
        least = min(most, max(0.0, patience - epochs_without_gain(view) - begun))
    return least * seconds, most * seconds


def epochs_without_gain(view: RunView) -> int:
    """Epochs since the best one, as the run counts them."""
    if is_number(view.status.get("wait")):
        return view.status["wait"]
    best = view.best_epoch()
    return view.history[-1]["epoch"] - best if best is not None else len(view.history)


def time_left_words(view: RunView) -> str:
    """'12 min', or 'up to 12 min (3 min if nothing improves)'."""
    left = time_left(view)
    if left is None:
        return "known after the first epoch"
    least, most = map(format_duration, left)
    return most if least == most else f"up to {most} ({least} if no epoch gets better: early stopping)"


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
    counts = view.config.get("dataset", {}).get("class_counts", {}).get("val")
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
