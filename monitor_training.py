"""Shows what a run is doing: state, progress, time left, the last epochs and their trends.

    python monitor_training.py                                the newest run, preferably one that is active
    python monitor_training.py RUN --follow                   redraws every 5 seconds; Ctrl-C quits
    python monitor_training.py RUN --follow 60 >> watch.txt   a line per epoch and per change of state
    python monitor_training.py RUN RUN "checkpoints/stage1_*" several runs, one line each
    python monitor_training.py --json                         the same for programs

Only reads config.json, history.json, status.json and results.json, and never disturbs the run.
States: starting, training, testing, stalled (no sign of life for too long), finished, interrupted, failed.
"""

import argparse
import contextlib
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.run import arguments
from utils.run.errors import counted
from utils.run.find import find_runs
from utils.run.folder import plain
from utils.run.log import align, epoch_line, format_duration, format_value, show
from utils.run.script import run_script
from utils.tasks import log_columns
from utils.watch.run_view import RunView, State, history_trends, newest_run, read_run

FOLLOW_SECONDS = 5.0
BAR = 30  # characters of the progress bar
CLEAR = "\x1b[H\x1b[2J"  # ANSI: cursor home, clear the screen


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.ScriptParser("monitor_training.py", __doc__)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="folders, their names, or patterns; default: the newest run")
    add("--output_dir", default="checkpoints", help="where the run folders are")
    add("--follow", nargs="?", type=arguments.positive_float, const=FOLLOW_SECONDS, metavar="SECONDS",
        help=f"look again after SECONDS ({FOLLOW_SECONDS:g} by default) until the runs end")  # fmt: skip
    add("--json", action="store_true", help="print JSON, a list of objects; with --follow one list per line")
    add("--rows", type=arguments.positive_int, default=10, help="epochs in the table")
    return parser.parse_args(parser.typed(argv))


def summary(view: RunView, now: float) -> dict[str, Any]:
    """The JSON object of one run; unknown values are null."""
    state, left = view.state(now), view.time_left()
    return plain({
        "run": view.folder, "script": view.script or None,
        "state": state.word, "detail": state.detail or None,
        "seconds_since_sign_of_life": max(0.0, now - view.status.get("time", view.changed)),
        "epochs_done": view.done, "epochs": view.epochs, "seconds_per_epoch": view.seconds_per_epoch,
        "seconds_left": None if state.over or left is None else {"least": left[0], "most": left[1]},
        "gpu_memory_mb": view.status.get("gpu_memory_mb"),
        "last": view.history[-1] if view.history else None,
        "decides": view.decides, "best_epoch": view.best.get("epoch"), "best": view.best.get(view.decides),
        "trend": {key: line._asdict() for key, line in history_trends(view).items()},
        "learning": view.learning_signs(),
        **{key: view.results.get(key) for key in ("verdict", "verdict_reason", "reference")},
    })  # fmt: skip


def news(view: RunView, state: State, before: tuple[RunView, State] | None) -> list[str]:
    """Lines on what is new since `before`: epochs (at first only the last), learning check, state."""
    lines, new_rows, known_signs = [], view.history[-1:], []
    if before:
        new_rows, known_signs = view.history[len(before[0].history) :], before[0].learning_signs()
    left = "" if state.over else f", left {view.time_left_words()}"
    for row in new_rows:
        line = epoch_line(row, view.epochs, log_columns(view.task), best=row == view.best)
        lines.append(line + left)
    lines += [f"learning check: {text}" for text in view.learning_signs() if text not in known_signs]
    if not before or state.word != before[1].word:
        lines.append(str(state))
    return [f"{time.strftime('%H:%M:%S')} {view.name} {line}" for line in lines]


def draw(views: Sequence[RunView], now: float, rows: int, fit_screen: bool) -> str:
    """The text on one run or several; `fit_screen`: one run must fit on the screen."""
    if len(views) > 1:
        return "\n".join(draw_runs(views, now))
    terminal = shutil.get_terminal_size((110, 50))
    width = max(60, terminal.columns - 1)
    rows = min(rows, len(views[0].history))
    lines = draw_run(views[0], now, rows, width)
    if fit_screen and (over := len(lines) - terminal.lines + 1) > 0:  # the top must be seen
        lines = draw_run(views[0], now, max(1, rows - over), width)
    return "\n".join(lines)


def draw_run(view: RunView, now: float, rows: int, width: int) -> list[str]:
    """The text on one run, as lines of at most `width` characters where they can be folded."""
    state = view.state(now)
    fields = {"state": str(state), **describe(view)}
    if view.epochs:
        fields["progress"] = progress(view)
    if state.word in ("starting", "training"):
        fields["left"] = view.time_left_words()
    if seconds := view.seconds_per_epoch:
        total = sum(row.get("seconds") or 0.0 for row in view.history)
        several = f"{counted(len(view.history), 'epochs')}, typically {seconds:.3g} s each"
        fields["spent"] = f"{format_duration(total)} in {several}"
    if view.status.get("gpu_memory_mb"):
        fields["memory"] = f"{view.status['gpu_memory_mb']:.0f} MB of the GPU"
    if state.word in ("interrupted", "failed", "stalled") and view.script:
        saved = (view.folder / "last.pth").is_file()
        resume = f"python {view.script} --resume {view.folder}"
        fields["resume"] = resume if saved else "nothing was saved yet: start again with the same flags"
    lines = [str(view.folder), *fold(fields, width), ""]
    lines += epoch_table(view, rows) if view.history else ["no epoch has ended yet"]
    if trends := history_trends(view):
        epochs = max(line.epochs for line in trends.values())
        lines += ["", f"over the last {epochs} epochs (slope with its 95% interval)"]
        lines += fold({key: str(line) for key, line in trends.items()}, width)
    if signs := view.learning_signs():
        lines += ["", "learning check", *(line for text in signs for line in wrap(text, width, "  ", 4))]
    return lines + (["", *wrap(view.verdict, width, "  ", 4)] if view.verdict else [])


def describe(view: RunView) -> dict[str, str]:
    """Device, data and model of the run, from config.json."""
    config, data = view.config, view.data
    if not config:
        return {"run": "config.json is not there yet: it is written after the data are read"}
    model, parts = config.get("model", {}), ("train", "val", "test")
    processes, threads = config.get("world_size", 1), config.get("num_threads")
    device = ", ".join(dict.fromkeys(config.get("gpu_names") or [])) or config.get("device", "?")
    device += f", {processes} process{'es' if processes > 1 else ''}"
    device += f", {counted(threads, 'threads')}" if threads else ""
    samples = ", ".join(f"{data[f'{p}_samples']} {p}" for p in parts if data.get(f"{p}_samples"))
    groups = " + ".join(map(str, data.get("groups", {}).values()))  # of each part
    named = ("features",) if model.get("features") == "geometry" else ("backbone", "features")
    detail = ", ".join(str(model[key]) for key in named if model.get(key))
    trainable, total = model.get("trainable_parameters", 0), model.get("total_parameters", 0)
    return {
        "run": f"{view.script}, started {config.get('timestamp', '?').replace('T', ' ')} on {device}",
        "data": f"{view.source}{' (synthetic)' if data.get('synthetic') else ''}: {samples}"
        + (f" of {groups} {view.task['groups']}" if groups else ""),
        "model": f"{model.get('architecture', '?')}{f' ({detail})' if detail else ''}, {total:,} parameters"
        + (f", {trainable:,} of them trained" if trainable != total else ""),
    }


def progress(view: RunView) -> str:
    """'[######....]  46%  23/50 epochs, step 12/126 of epoch 24'."""
    done, planned = view.done, view.epochs
    if view.results and done < planned:
        return f"{int(done)} of {planned} epochs, stopped early"
    bar = ("#" * int(BAR * done / planned)).ljust(BAR, ".")
    step = ", step {step}/{steps} of epoch {epoch}".format_map(view.status) if done % 1 else ""
    return f"[{bar}] {done / planned:4.0%}  {int(done)}/{planned} epochs{step}"


def epoch_table(view: RunView, rows: int) -> list[str]:
    """The last epochs, a line each, the best marked: it takes the place of the first if it is earlier."""
    chosen, best = view.history[-rows:], view.best.get("epoch")
    if best is not None and best < chosen[0]["epoch"] and rows > 1:
        chosen = [view.best, *chosen[1:]]
    keys = [key for key in log_columns(view.task) if any(key in row for row in view.history)]
    cells = [["", "epoch", *keys, "lr", "seconds"]]
    for row in chosen:
        values = [format_value(row.get(key)) for key in (*keys, "lr")]
        speed = f"{row['seconds']:.1f}" if row.get("seconds") is not None else "?"
        cells.append(["best" if row["epoch"] == best else "", str(row["epoch"]), *values, speed])
    return align(cells)


def draw_runs(views: Sequence[RunView], now: float) -> list[str]:
    """Several runs, one line each."""
    head = ["run", "state", "epoch", "left", "train_loss", "val_loss", "deciding", "last", "best", "trend"]
    cells, notes = [head], ["learning check"]
    for view in views:
        state, key, last = view.state(now), view.decides, (view.history or [{}])[-1]
        left = view.time_left() if state.word in ("starting", "training") else None
        line = history_trends(view).get(key)
        cells.append([
            str(view.folder),
            f"{state.word} {view.results.get('verdict', '')}".strip(),
            f"{int(view.done)}/{view.epochs}",
            format_duration(left[1]) if left else "",
            *(format_value(last[k]) if k in last else "" for k in ("train_loss", "val_loss")),
            key,
            format_value(last[key]) if key in last else "",
            f"{format_value(view.best[key])} in {view.best['epoch']}" if view.best else "",
            line.word if line and line.clear else "",
        ])  # fmt: skip
        texts = [state.detail] if state.word != "finished" and state.detail else []
        notes.append("; ".join(texts + [text.split(":")[0] for text in view.learning_signs()]))
    return [f"{line}  {note}".rstrip() for line, note in zip(align(cells), notes, strict=True)]


def fold(fields: dict[str, str], width: int) -> list[str]:
    """'  name  text', with long texts wrapped in their column."""
    room = max(map(len, fields))
    found = [wrap(text, width, f"  {name.ljust(room)}  ", room + 4) for name, text in fields.items()]
    return [line for lines in found for line in lines]


def wrap(text: str, width: int, first: str, indent: int) -> list[str]:
    """Lines of whole words: the first after `first`, the others indented."""
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * indent,
                         break_long_words=False, break_on_hyphens=False) or [first]  # fmt: skip


def main(args: argparse.Namespace) -> None:
    output_dir = Path(args.output_dir)
    folders = find_runs(args.runs, output_dir) if args.runs else [newest_run(output_dir)]
    drawn, before = not args.follow or sys.stdout.isatty(), [None] * len(folders)
    with contextlib.suppress(KeyboardInterrupt):  # ends --follow; the run is another process
        while True:
            now, views = time.time(), [read_run(folder) for folder in folders]
            states = [view.state(now) for view in views]
            if args.json:
                found = [summary(view, now) for view in views]
                show(json.dumps(found, indent=None if args.follow else 2))
            elif drawn:
                print(CLEAR if args.follow else "", end="")
                show(draw(views, now, args.rows, fit_screen=bool(args.follow)))
            else:
                for view, state, earlier in zip(views, states, before, strict=True):
                    for line in news(view, state, earlier):
                        show(line)
            if not args.follow or all(state.over for state in states):
                return
            before = list(zip(views, states, strict=True))
            time.sleep(args.follow)
    print()


if __name__ == "__main__":
    run_script(main, parse_args())
