"""What a run is doing, from its folder: progress, time left, the last epochs, where they go, and its state.

    python monitor_training.py                                the run at hand: the newest under checkpoints/
    python monitor_training.py RUN --follow                   drawn again every 5 seconds, Ctrl-C leaves
    python monitor_training.py RUN --follow 60 >> watch.txt   a line per epoch and per change of state
    python monitor_training.py RUN RUN "checkpoints/stage1_*" several runs side by side, one line each
    python monitor_training.py --json                         the same for programs

Reads config.json, history.json, status.json and results.json, nothing else, and never disturbs the run.
States: starting, training, testing, stalled (no sign of life for too long), finished, interrupted, failed.
"""

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.run import arguments
from utils.run.find import find_runs
from utils.run.folder import plain
from utils.run.log import format_value
from utils.run.script import run_script
from utils.tasks import log_columns
from utils.watch.run_picture import draw_run, draw_runs, history_trends, show
from utils.watch.run_view import RunView, newest_run, read_run

FOLLOW_SECONDS = 5.0
CLEAR = "\x1b[H\x1b[2J"  # cursor home, screen empty: understood by every terminal of this century


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags of monitor_training.py."""
    parser = arguments.ScriptParser("monitor_training.py", __doc__)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="folders, their names, or patterns; default: the run at hand")
    add("--output_dir", default="checkpoints", help="where the run folders are")
    add("--follow", nargs="?", type=arguments.positive_float, const=FOLLOW_SECONDS, metavar="SECONDS",
        help=f"look again this often ({FOLLOW_SECONDS:g} s where none are given) until the runs have "
             "ended")  # fmt: skip
    add("--json", action="store_true", help="print JSON, a list of objects; with --follow one list per line")
    add("--rows", type=arguments.positive_int, default=10, help="epochs in the table")
    return parser.parse_args(separate_follow(parser.typed(argv)))


def separate_follow(argv: list[str]) -> list[str]:
    """`--follow RUN` means the run, not a number of seconds."""
    for k, (token, after) in enumerate(itertools.pairwise(argv)):
        if token == "--follow" and not after.replace(".", "", 1).lstrip("-").isdigit():
            return [*argv[:k], f"--follow={FOLLOW_SECONDS}", *argv[k + 1 :]]
    return argv


def summary(view: RunView, now: float) -> dict[str, Any]:
    """One run for programs; a value that is not known is null."""
    state, left = view.state(now), view.time_left()
    said = ("verdict", "verdict_reason", "reference")
    return plain({
        "run": view.folder,
        "script": view.script or None,
        "state": state.word,
        "detail": state.detail or None,
        "seconds_since_sign_of_life": max(0.0, now - view.status.get("time", view.changed)),
        "epochs_done": view.done,
        "epochs": view.epochs,
        "seconds_per_epoch": view.seconds_per_epoch,
        "seconds_left": None if state.over or left is None else {"least": left[0], "most": left[1]},
        "gpu_memory_mb": view.status.get("gpu_memory_mb"),
        "last": view.history[-1] if view.history else None,
        "decides": view.decides,
        "best_epoch": view.best.get("epoch"),
        "best": view.best.get(view.decides),
        "trend": {key: {**line._asdict(), "clear": line.clear} for key, line in history_trends(view).items()},
        "learning": view.learning_signs(),
        **{key: view.results.get(key) for key in said},
    })  # fmt: skip


class Reporter:
    """Says in plain lines what is new about one run since the last time; at first, where it stands."""

    def __init__(self) -> None:
        self.epoch, self.state, self.signs = -1, "", set()

    def lines(self, view: RunView, now: float) -> list[str]:
        """New epochs, a new state, new signs of the learning check."""
        found, state = [], view.state(now)
        fresh = [row for row in view.history if row["epoch"] > self.epoch]
        left = "" if state.over else f", left {view.time_left_words()}"
        for row in fresh[-1:] if self.epoch < 0 else fresh:
            keys = [key for key in (*log_columns(view.task), "lr") if key in row]
            figures = " ".join(f"{key} {format_value(row[key])}" for key in keys)
            found.append(
                f"epoch {row['epoch']:03d}/{view.epochs:03d} {figures} {row.get('seconds') or 0:.1f} s{left}"
            )
        signs = view.learning_signs()
        found += [f"learning check: {text}" for text in signs if text not in self.signs]
        if state.word != self.state:
            found.append(str(state))
        self.epoch = view.history[-1]["epoch"] if view.history else 0
        self.state, self.signs = state.word, self.signs | set(signs)
        return [f"{view.name} {line}" for line in found]


def look(folders: Sequence[Path], rows: int, as_json: bool, clear: bool = False) -> bool:
    """Show the runs once, `clear`: on an empty screen. Returns whether all of them have ended."""
    now, terminal = time.time(), shutil.get_terminal_size((110, 50))
    views = [read_run(folder) for folder in folders]
    if as_json:
        text = json.dumps([summary(view, now) for view in views], indent=None if clear else 2)
    elif len(views) > 1:
        text = "\n".join(draw_runs(views, now))
    else:
        width = max(60, terminal.columns - 1)
        lines = draw_run(views[0], now, rows, width)
        if clear and (over := len(lines) - terminal.lines + 1) > 0:  # the top must not scroll away
            lines = draw_run(views[0], now, max(1, rows - over), width)
        text = "\n".join(lines)
    if clear and not as_json:
        print(CLEAR, end="")
    show(text)
    return all(view.state(now).over for view in views)


def follow(folders: Sequence[Path], seconds: float, rows: int, as_json: bool) -> None:
    """Look again and again until all runs have ended: a picture on a terminal, new lines anywhere else."""
    reporters = [Reporter() for _ in folders]
    while True:
        if as_json or sys.stdout.isatty():
            over = look(folders, rows, as_json, clear=True)
        else:
            now, views = time.time(), [read_run(folder) for folder in folders]
            for view, reporter in zip(views, reporters, strict=True):
                for line in reporter.lines(view, now):
                    show(f"{time.strftime('%H:%M:%S')} {line}")
            over = all(view.state(now).over for view in views)
        if over:
            return
        time.sleep(seconds)


def main(args: argparse.Namespace) -> None:
    output_dir = Path(args.output_dir)
    folders = find_runs(args.runs, output_dir) if args.runs else [newest_run(output_dir)]
    try:
        if args.follow:
            follow(folders, args.follow, args.rows, args.json)
        else:
            look(folders, args.rows, args.json)
    except KeyboardInterrupt:  # the way out of --follow; the run itself is another process
        print()


if __name__ == "__main__":
    run_script(main, parse_args())
