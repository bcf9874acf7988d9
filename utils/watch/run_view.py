"""A run as its folder tells it: found by name, and read from four JSON files while somebody else writes them.

Needs neither torch nor numpy: monitor_training.py must show a run at once.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.run.errors import CommandError
from utils.run.find import list_runs
from utils.run.folder import read_json
from utils.run.signs import best_epoch, is_number
from utils.tasks import LOSS, TASKS

READ_ATTEMPTS, READ_PAUSE = 5, 0.02  # a network file system may lose a file for the moment of its replacement
FILES = ("status.json", "config.json", "history.json", "results.json")
LIVE = ("starting", "training", "testing")


# A run whose config.json is not there yet.
UNKNOWN = {"task": "unknown", "best": "loss", "skill": "", "metrics": {"loss": LOSS}}


@dataclass(frozen=True)
class RunView:
    """What the four files of a run folder said at one moment; a file that is not there yet is empty."""

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]
    status: dict[str, Any]
    results: dict[str, Any]
    changed: float  # unix seconds of the latest write to one of the files, else to the folder

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def script(self) -> str:
        return self.config.get("script_name", "")

    @property
    def data(self) -> dict[str, Any]:
        """The dataset section of config.json."""
        return self.config.get("dataset", {})

    @property
    def task(self) -> dict[str, Any]:
        """The row of utils/tasks.py for its script."""
        return TASKS.get(self.script, UNKNOWN)

    @property
    def decides(self) -> str:
        """The key of history.json that decides which epoch is best."""
        return f"val_{self.task['best']}"

    @property
    def verdict(self) -> str:
        """The verdict with its reason and the strongest reference, as the log's last line says it."""
        word, reason, reference = (
            self.results.get(key) for key in ("verdict", "verdict_reason", "reference")
        )
        return f"{word} ({reason})" + (f"; {reference}" if reference else "") if word else ""

    @property
    def epochs(self) -> int:
        """Epochs planned; a resumed run may have other plans than its config.json."""
        planned = self.config.get("training", {}).get("epochs", len(self.history))
        return max(self.status.get("epochs") or planned, len(self.history))

    def best_epoch(self) -> int | None:
        """The epoch with the best value of the figure that decides; None without one."""
        return best_epoch(self.history, self.task)

    def row(self, epoch: int | None) -> dict[str, Any]:
        """The history row of an epoch, or an empty one."""
        return next((row for row in self.history if row["epoch"] == epoch), {})


def read_run(folder: Path) -> RunView:
    """The run as it is now. Files are replaced while we read: each is whole, and none has to be there yet.

    Raises CommandError for a file that stays unreadable or holds something else than a run's.
    """
    parts = {name: read_if_there(folder / name) for name in FILES}
    for name, part in parts.items():
        expected = list if name == "history.json" else dict
        if part is not None and not isinstance(part, expected):
            raise CommandError(f"{folder / name} is not a file of a run: it holds no {expected.__name__}")
    history = parts["history.json"] or []
    if not all(isinstance(row, dict) and is_number(row.get("epoch")) for row in history):
        raise CommandError(f"{folder / 'history.json'} is not a file of a run: rows without an epoch")
    return RunView(
        folder,
        history=history,
        **{name: parts[f"{name}.json"] or {} for name in ("config", "status", "results")},
        changed=max(modified(folder / name) for name in FILES) or modified(folder),
    )


def read_if_there(path: Path) -> Any:
    """The JSON value in `path`, None when there is no such file."""
    for attempt in range(READ_ATTEMPTS):
        try:
            return read_json(path)
        except CommandError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            if attempt == READ_ATTEMPTS - 1:
                raise
            time.sleep(READ_PAUSE)
    return None


def modified(path: Path) -> float:
    """When the file was written, 0 when there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def newest_run(output_dir: Path) -> Path:
    """The run to look at when none is named: the newest of those that run now, else the newest.

    Raises CommandError when there is none.
    """
    runs = list_runs(output_dir)
    if not runs:
        raise CommandError(
            f"no run folder in {output_dir}\nstart one, for example: python train_stage1.py\n"
            "or name a run folder, or the folder of the runs with --output_dir"
        )
    # A run that was resumed is live without being the newest; one whose folder is quiet for an hour is dead.
    quiet = {run: time.time() - modified(run / "status.json") > 3600 for run in runs}
    live = [run for run in runs if not quiet[run] and read_run(run).status.get("state") in LIVE]
    return (live or runs)[-1]
