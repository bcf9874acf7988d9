"""A view of a run from four JSON files in its folder, which the run may be writing meanwhile: its state, time
left, trends, and signs of (not) learning.

Imports neither torch nor numpy, so that monitor_training.py shows a run at once.
"""

import contextlib
import math
import os
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from utils.run.errors import CommandError
from utils.run.find import list_runs
from utils.run.folder import read_json
from utils.run.lock import is_alive
from utils.run.log import format_duration
from utils.run.signs import best_row, history_signs, is_number, kind_of
from utils.tasks import LOSS, TASKS, log_columns

FILES = {"config": {}, "history": [], "status": {}, "results": {}}  # with the value for a missing file
SECTIONS = {"config": ("args", "dataset", "model", "training"), "results": ("metrics", "confidence")}
# The task of a run that has no config.json yet.
UNKNOWN = {"task": "unknown", "best": "loss", "skill": "", "metrics": {"loss": LOSS}, "groups": "groups"}
# Normal seconds without a sign of life: nothing is written while val or test are evaluated.
QUIET = {"starting": 1800.0, "training": 120.0, "testing": 900.0}
GONE = 60.0  # the same if the process is not found, which also happens in another container
WINDOW, FEWEST = 10, 4  # most and fewest epochs of a trend; a line fits almost any three points
# 97.5% quantiles of Student's t for 2 to WINDOW - 2 degrees of freedom.
STUDENT_T = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


class State(NamedTuple):
    """One of starting, training, testing, stalled, finished, interrupted, failed; with a reason in words."""

    word: str
    detail: str = ""

    @property
    def over(self) -> bool:
        return self.word in ("finished", "interrupted", "failed")

    def __str__(self) -> str:
        return f"{self.word} ({self.detail})" if self.detail else self.word


@dataclass(frozen=True)
class RunView:
    """The contents of a run's four files at one moment."""

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]
    status: dict[str, Any]
    results: dict[str, Any]
    changed: float  # unix seconds of the latest write to the files, or to the folder without them
    table: Any = None  # test predictions of pooled folds, which are treated as one run

    @property
    def name(self) -> str:
        return self.folder.absolute().name  # also of "."

    @property
    def script(self) -> str:
        return self.config.get("script_name", "")

    @property
    def data(self) -> dict[str, Any]:
        return self.config.get("dataset", {})

    @property
    def source(self) -> str:
        """Where the data is."""
        return self.data.get("data_path") or ", ".join(self.data.get("image_dir") or ["?"])

    @property
    def task(self) -> dict[str, Any]:
        return TASKS.get(self.script, UNKNOWN)

    @property
    def decides(self) -> str:
        """The history.json key that decides which epoch is best."""
        return f"val_{self.task['best']}"

    @property
    def best(self) -> dict[str, Any]:
        """The history row with the best value of the deciding metric; {} if there is none."""
        return best_row(self.history, self.task)

    @property
    def verdict(self) -> str:
        """The verdict with its reason and the strongest reference, as in the last line of the log."""
        word, reason, reference = map(self.results.get, ("verdict", "verdict_reason", "reference"))
        return f"{word} ({reason})" + (f"; {reference}" if reference else "") if word else ""

    @property
    def epochs(self) -> int:
        """Epochs planned; those of a resumed run may differ from its config.json."""
        planned = self.config.get("training", {}).get("epochs", len(self.history))
        return max(self.status.get("epochs") or planned, len(self.history))

    @property
    def done(self) -> float:
        """Epochs finished, including the fraction of the current one."""
        done = self.history[-1]["epoch"] if self.history else 0
        step, steps = self.status.get("step"), self.status.get("steps")
        begun = self.status.get("epoch") == done + 1 and is_number(step) and steps
        return done + step / steps if begun else float(done)

    @property
    def seconds_per_epoch(self) -> float | None:
        """Median of the last ten epochs; the first, which warms up, counts only while it is the only one."""
        seconds = [row.get("seconds") for row in self.history[1:] or self.history]
        known = [value for value in seconds if is_number(value)]
        return statistics.median(known[-10:]) if known else None

    def state(self, now: float) -> State:
        """The state at `now` (unix seconds): the one in status.json while there are signs of life."""
        word, pid = self.status.get("state", "starting"), self.status.get("pid")
        if word not in QUIET:
            return State(word, self.status.get("reason") or self.results.get("verdict", ""))
        age = max(0.0, now - self.status.get("time", self.changed))
        sign, quiet = f"last sign of life {format_duration(age)} ago", self.seconds_per_epoch or 0.0
        # Only the run's own machine can tell whether its process has ended.
        here = os.name == "posix" and self.status.get("host") == socket.gethostname() and is_number(pid)
        if here and pid > 0 and not is_alive(pid):
            why = "killed, out of memory, or in another container?"
            return State("stalled" if age > GONE else word, f"{sign}; process {pid} is not found: {why}")
        return State("stalled", sign) if age > max(QUIET[word], quiet) else State(word)

    def time_left(self) -> tuple[float, float] | None:
        """(least, most) seconds until training ends, without the test pass; None if unknown. Early stopping
        gives the least: `patience` - `wait` more epochs, if none is better."""
        if self.seconds_per_epoch is None:
            return None
        least = most = max(0.0, self.epochs - self.done)
        if patience := self.status.get("patience"):
            begun = self.done % 1  # fraction of the current epoch
            least = min(most, max(0.0, patience - self.status.get("wait", 0) - begun))
        return least * self.seconds_per_epoch, most * self.seconds_per_epoch

    def time_left_words(self) -> str:
        """'12 min', or 'up to 12 min (3 min if no epoch gets better: early stopping)'."""
        if (left := self.time_left()) is None:
            return "known after the first epoch"
        least, most = map(format_duration, left)
        return most if least == most else f"up to {most} ({least} if no epoch gets better: early stopping)"

    def learning_signs(self) -> list[str]:
        """Warnings from the history and, of other kinds, those that the run itself logged."""
        counts = self.data.get("class_counts", {}).get("val")
        found = history_signs(self.history, self.task, counts, self.status.get("constant_loss"))
        kinds = {kind_of(text) for text in found}
        logged = [text for text in self.status.get("warnings") or [] if isinstance(text, str)]
        return found + [text for text in logged if kind_of(text) not in kinds]


class Trend(NamedTuple):
    """Least-squares line through the last epochs: slope per epoch +- `reach` (95% interval)."""

    slope: float
    reach: float
    epochs: int  # number of points
    clear: bool  # whether the interval of the slope excludes 0

    @property
    def word(self) -> str:
        if not self.clear:
            return "no trend beyond its noise"
        return "rising" if self.slope > 0 else "falling"

    def __str__(self) -> str:
        """'rising 0.012 +- 0.004 per epoch'."""
        return f"{self.word} {abs(self.slope):.2g} +- {self.reach:.2g} per epoch"


def trend(epochs: Sequence[int], values: Sequence[float | None]) -> Trend | None:
    """The trend over the last WINDOW epochs that have a value; None with fewer than FEWEST. The interval is
    rough, because it assumes residuals that are independent from epoch to epoch:
    slope +- t * sqrt(sum of squared residuals / (n - 2) / sum of (epoch - mean epoch)^2)."""
    points = [(e, v) for e, v in zip(epochs, values, strict=True) if is_number(v)][-WINDOW:]
    if (n := len(points)) < FEWEST:
        return None
    x, y = zip(*points, strict=True)
    slope, offset = statistics.linear_regression(x, y)
    scatter = sum((v - offset - slope * e) ** 2 for e, v in points)
    spread = (n - 1) * statistics.variance(x)
    reach = STUDENT_T[n - 2] * math.sqrt(scatter / (n - 2) / spread)
    return Trend(slope, reach, n, clear=abs(slope) > reach)


def history_trends(view: RunView) -> dict[str, Trend]:
    """Trends of the columns shown; those with too few epochs are left out."""
    epochs = [row["epoch"] for row in view.history]
    found = {key: trend(epochs, [row.get(key) for row in view.history]) for key in log_columns(view.task)}
    return {key: line for key, line in found.items() if line is not None}


def read_run(folder: Path) -> RunView:
    """The run as it is now; any file may be missing. CommandError for a file that stays unreadable or is not
    that of a run."""
    remedies = {"results": f"\nto judge the run again: --resume {folder}"}
    parts = {
        name: read_if_there(folder / f"{name}.json", empty, remedies.get(name, ""))
        for name, empty in FILES.items()
    }
    if not all(isinstance(row, dict) and is_number(row.get("epoch")) for row in parts["history"]):
        raise CommandError(f"{folder / 'history.json'} is not a file of a run: rows without an epoch")
    for name, keys in SECTIONS.items():
        if wrong := [key for key in keys if not isinstance(parts[name].get(key, {}), dict)]:
            raise CommandError(f"{folder / name}.json is not a file of a run: {wrong[0]} is no object")
    if not is_number(parts["status"].get("time", 0)):
        raise CommandError(f"{folder / 'status.json'} is not a file of a run: its time is no number")
    changed = max(modified(folder / f"{name}.json") for name in FILES) or modified(folder)
    return RunView(folder, **parts, changed=changed)


def read_if_there(path: Path, empty: Any, remedy: str = "", attempts: int = 5) -> Any:
    """The JSON value in `path`, `empty` if there is no file; CommandError for another type than `empty`'s.
    Retries other errors: on a network file system a file that is being replaced may be unreadable."""
    try:
        value = read_json(path, remedy=remedy)
    except CommandError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return empty
        if attempts == 1:
            raise
        time.sleep(0.02)
        return read_if_there(path, empty, remedy, attempts - 1)
    if not isinstance(value, type(empty)):
        raise CommandError(f"{path} is not a file of a run: it holds no {type(empty).__name__}{remedy}")
    return value


def modified(path: Path) -> float:
    """Modification time in unix seconds, 0 if the file is missing."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def newest_run(output_dir: Path) -> Path:
    """The newest run that is active now, else the newest run; CommandError if there is none."""
    if not (runs := list_runs(output_dir)):
        raise CommandError(f"no run folder in {output_dir}\nname one, or their folder with --output_dir")
    # A resumed run is active but may not be the newest; one that is quiet for an hour counts as dead.
    recent = [run for run in runs if time.time() - modified(run / "status.json") < 3600]
    return ([run for run in recent if read_run(run).status.get("state") in QUIET] or runs)[-1]
