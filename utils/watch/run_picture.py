"""A run, or several, as lines of text for a terminal of any width. ASCII; needs neither torch nor numpy."""

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from utils.run.log import align, format_duration, format_value
from utils.tasks import log_columns
from utils.watch.run_state import (
    Trend,
    epochs_done,
    learning_signs,
    run_state,
    seconds_per_epoch,
    time_left,
    time_left_words,
    trend,
)
from utils.watch.run_view import RunView

BAR = 30  # characters of the progress bar


def draw_run(view: RunView, now: float, rows: int, width: int) -> list[str]:
    """The whole picture of one run, as lines of at most `width` characters where they can be folded."""
    state = run_state(view, now)
    fields = {"state": str(state), **describe(view)}
    if view.epochs:
        fields["progress"] = progress(view)
    if state.word in ("starting", "training"):
        fields["left"] = time_left_words(view)
    if seconds := seconds_per_epoch(view):
        total = sum(row.get("seconds") or 0.0 for row in view.history)
        several = f"{len(view.history)} epochs, typically {seconds:.3g} s each"
        fields["spent"] = f"{format_duration(total)} in {several if len(view.history) > 1 else 'one epoch'}"
    if view.status.get("gpu_memory_mb"):
        fields["memory"] = f"{view.status['gpu_memory_mb']:.0f} MB of the GPU"
    if state.word in ("interrupted", "failed", "stalled") and view.script:
        saved = (view.folder / "last.pth").is_file()
        resume = f"python {view.script} --resume {view.folder}"
        fields["resume"] = resume if saved else "nothing was saved yet: start anew with the same flags"
    lines = [str(view.folder)] + fold(fields, width)
    lines += ["", *epoch_table(view, rows)] if view.history else ["", "no epoch has ended yet"]
    if trends := history_trends(view):
        epochs = max(line.epochs for line in trends.values())
        lines += ["", f"over the last {epochs} epochs (slope with its 95% interval)"]
        lines += fold({key: line.words() for key, line in trends.items()}, width)
    if signs := learning_signs(view):
        lines += ["", "learning check", *fold_list(signs, width)]
    if view.verdict:
        lines += ["", *fold_list([view.verdict], width)]
    return lines


def describe(view: RunView) -> dict[str, str]:
    """Device, data and model of the run, from config.json."""
    config, data = view.config, view.data
    if not config:
        return {"run": "config.json is not there yet: it is written when the data are read"}
    model = config.get("model", {})
    processes, threads = config.get("world_size", 1), config.get("num_threads")
    device = ", ".join(dict.fromkeys(config.get("gpu_names") or [])) or config.get("device", "?")
    device += f", {processes} process{'es' if processes > 1 else ''}"
    device += f", {threads} thread{'s' if threads > 1 else ''}" if threads else ""
    source = data.get("data_path") or ", ".join(data.get("image_dir") or ["?"])
    counts = ", ".join(f"{data[f'{part}_samples']} {part}" for part in ("train", "val", "test")
                       if data.get(f"{part}_samples"))  # fmt: skip
    parts = ", ".join(str(model[key]) for key in ("backbone", "features") if model.get(key))
    trainable, total = model.get("trainable_parameters", 0), model.get("total_parameters", 0)
    return {
        "run": f"{view.script}, started {config.get('timestamp', '?').replace('T', ' ')} on {device}",
        "data": f"{source}{' (synthetic)' if data.get('synthetic') else ''}: {counts}{groups(data)}",
        "model": f"{model.get('architecture', '?')}{f' ({parts})' if parts else ''}, {total:,} parameters"
        + (f", {trainable:,} of them trained" if trainable != total else ""),
    }


def groups(data: dict[str, Any]) -> str:
    """' of 18 + 4 + 8 sequences': the groups that the splits keep apart."""
    for kind in ("sequences", "scenarios"):
        if isinstance(data.get(kind), dict):
            return f" of {' + '.join(str(len(names)) for names in data[kind].values())} {kind}"
    subjects = [data.get(f"{part}_subjects") for part in ("train", "val", "test")]
    return f" of {' + '.join(str(n) for n in subjects if n)} subjects" if any(subjects) else ""


def progress(view: RunView) -> str:
    """'[######....] 23/50 epochs, step 12/126 of the next'."""
    done, planned = epochs_done(view), view.epochs
    if view.results and done < planned:
        return f"{int(done)} of {planned} epochs, stopped early"
    share = done / planned
    filled = int(share * BAR)
    text = f"[{'#' * filled}{'.' * (BAR - filled)}] {share:4.0%}  {int(done)}/{planned} epochs"
    if done != int(done):
        text += f", step {view.status['step']}/{view.status['steps']} of epoch {view.status['epoch']}"
    return text


def epoch_table(view: RunView, rows: int) -> list[str]:
    """The last epochs, one a line, the best one marked; when it is further back it stands above them."""
    best = view.best_epoch()
    chosen = view.history[-rows:]
    if best is not None and best < chosen[0]["epoch"]:
        chosen = [view.row(best), *chosen]
    keys = [key for key in log_columns(view.task) if any(key in row for row in view.history)]
    cells = [["", "epoch", *keys, "lr", "seconds"]]
    for row in chosen:
        values = [format_value(row.get(key)) for key in keys]
        speed = f"{row['seconds']:.1f}" if row.get("seconds") is not None else "?"
        mark = "best" if row["epoch"] == best else ""
        cells.append([mark, str(row["epoch"]), *values, format_value(row.get("lr")), speed])
    return align(cells)


def history_trends(view: RunView) -> dict[str, Trend]:
    """The trends of the columns shown; empty with too few epochs."""
    epochs = [row["epoch"] for row in view.history]
    found = {key: trend(epochs, [row.get(key) for row in view.history]) for key in log_columns(view.task)}
    return {key: line for key, line in found.items() if line is not None}


def draw_runs(views: Sequence[RunView], now: float) -> list[str]:
    """Several runs, one line each; where the figure that decides differs, its name stands beside it."""
    figures = {view.decides for view in views}
    one = figures.pop() if len(figures) == 1 else None
    cells = [["run", "state", "epoch", "left", "train_loss", "val_loss", one or "last", "best", "trend"]]
    notes = ["learning check"]
    for name, view in zip(short_names(views), views, strict=True):
        state, best, key = run_state(view, now), view.best_epoch(), view.decides
        last = view.history[-1] if view.history else {}
        left = time_left(view) if state.word in ("starting", "training") else None
        line = history_trends(view).get(key)
        figure = "" if one else f"{key} "
        cells.append(
            [
                name,
                f"{state.word} {view.results.get('verdict', '')}".strip(),
                f"{int(epochs_done(view))}/{view.epochs}",
                format_duration(left[1]) if left else "",
                *(format_value(last[k]) if k in last else "" for k in ("train_loss", "val_loss")),
                figure + format_value(last[key]) if key in last else "",
                f"{format_value(view.row(best)[key])} in {best}" if best is not None else "",
                line.arrow() if line else "",
            ]
        )
        texts = [state.detail] if state.word != "finished" and state.detail else []
        notes.append("; ".join(texts + [text.split(":")[0] for text in learning_signs(view)]))
    return [f"{line}  {note}".rstrip() for line, note in zip(align(cells), notes, strict=True)]


def short_names(views: Sequence[RunView]) -> list[str]:
    """Folder names, or whole paths where two runs have the same name."""
    names = [view.name for view in views]
    return names if len(set(names)) == len(names) else [str(view.folder) for view in views]


def fold(fields: dict[str, str], width: int) -> list[str]:
    """'  name  text', long texts folded under themselves."""
    indent = max(map(len, fields)) + 4
    lines = []
    for name, text in fields.items():
        first, rest = f"  {name.ljust(indent - 4)}  ", " " * indent
        lines += textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest,
                               break_long_words=False, break_on_hyphens=False) or [first]  # fmt: skip
    return lines


def fold_list(texts: Sequence[str], width: int) -> list[str]:
    """Sentences as indented paragraphs."""
    return [
        line
        for text in texts
        for line in textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ",
                                  break_long_words=False, break_on_hyphens=False)
    ]  # fmt: skip


def show(text: str) -> None:
    """Print in ASCII, at once; what is not printable (a file name may hold it) is spelled out.

    Ends the process quietly when whoever reads the output has had enough (`| head`).
    """
    lines = ("".join(c if c.isprintable() else " " for c in line) for line in text.split("\n"))
    try:
        print("\n".join(lines).encode("ascii", "backslashreplace").decode("ascii"), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
        sys.exit(0)
