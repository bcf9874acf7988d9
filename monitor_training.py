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
import contextlib
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
from utils.run.log import format_values
from utils.run.script import run_script
from utils.tasks import log_columns
from utils.watch.run_picture import draw_run, draw_runs, history_trends, show
from utils.watch.run_view import RunView, State, newest_run, read_run

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
    trends, said = history_trends(view), ("verdict", "verdict_reason", "reference")
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
        "trend": {key: line._asdict() | {"clear": line.clear} for key, line in trends.items()},
        "learning": view.learning_signs(),
        **{key: view.results.get(key) for key in said},
    })  # fmt: skip


def news(view: RunView, state: State, before: tuple[RunView, State] | None) -> list[str]:
    """Plain lines on what is new since `before`: epochs (at first the last), signs of learning, state."""
    lines, fresh, known = [], view.history[-1:], []
    if before:
        fresh, known = view.history[len(before[0].history) :], before[0].learning_signs()
    left = "" if state.over else f", left {view.time_left_words()}"
    for row in fresh:
        figures = format_values({key: row[key] for key in (*log_columns(view.task), "lr") if key in row})
        epoch, seconds = f"epoch {row['epoch']:03d}/{view.epochs:03d}", row.get("seconds") or 0
        lines.append(f"{epoch} {figures} {seconds:.1f} s{left}")
    lines += [f"learning check: {text}" for text in view.learning_signs() if text not in known]
    if not before or state.word != before[1].word:
        lines.append(str(state))
    return [f"{time.strftime('%H:%M:%S')} {view.name} {line}" for line in lines]


def draw(views: Sequence[RunView], now: float, rows: int, whole: bool) -> str:
    """The picture of one run or of several; whole: all of it must fit on the screen."""
    if len(views) > 1:
        return "\n".join(draw_runs(views, now))
    terminal = shutil.get_terminal_size((110, 50))
    width = max(60, terminal.columns - 1)
    lines = draw_run(views[0], now, rows, width)
    if whole and (over := len(lines) - terminal.lines + 1) > 0:  # the top must not scroll away
        lines = draw_run(views[0], now, max(1, rows - over), width)
    return "\n".join(lines)


def main(args: argparse.Namespace) -> None:
    output_dir = Path(args.output_dir)
    folders = find_runs(args.runs, output_dir) if args.runs else [newest_run(output_dir)]
    drawn, before = not args.follow or sys.stdout.isatty(), [None] * len(folders)
    with contextlib.suppress(KeyboardInterrupt):  # the way out of --follow; the run is another process
        while True:
            now, views = time.time(), [read_run(folder) for folder in folders]
            states = [view.state(now) for view in views]
            if args.json:
                found = [summary(view, now) for view in views]
                show(json.dumps(found, indent=None if args.follow else 2))
            elif drawn:
                print(CLEAR if args.follow else "", end="")
                show(draw(views, now, args.rows, whole=bool(args.follow)))
            else:
                for line in sum(map(news, views, states, before), []):
                    show(line)
            if not args.follow or all(state.over for state in states):
                return
            before = list(zip(views, states, strict=True))
            time.sleep(args.follow)
    print()


if __name__ == "__main__":
    run_script(main, parse_args())
