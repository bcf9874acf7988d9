"""A run, or several, as lines of text for a terminal of any width. ASCII; needs neither torch nor numpy."""

import os
import sys
import textwrap
from collections.abc import Sequence

from utils.run.log import align, format_duration, format_value, printable
from utils.tasks import log_columns
from utils.watch.run_view import RunView, Trend, trend

BAR = 30  # characters of the progress bar


def draw_run(view: RunView, now: float, rows: int, width: int) -> list[str]:
    """The whole picture of one run, as lines of at most `width` characters where they can be folded."""
    state = view.state(now)
    fields = {"state": str(state), **describe(view)}
    if view.epochs:
        fields["progress"] = progress(view)
    if state.word in ("starting", "training"):
        fields["left"] = view.time_left_words()
    if seconds := view.seconds_per_epoch:
        total = sum(row.get("seconds") or 0.0 for row in view.history)
        several = f"{len(view.history)} epochs, typically {seconds:.3g} s each"
        fields["spent"] = f"{format_duration(total)} in {several if len(view.history) > 1 else 'one epoch'}"
    if view.status.get("gpu_memory_mb"):
        fields["memory"] = f"{view.status['gpu_memory_mb']:.0f} MB of the GPU"
    if state.word in ("interrupted", "failed", "stalled") and view.script:
        saved = (view.folder / "last.pth").is_file()
        resume = f"python {view.script} --resume {view.folder}"
        fields["resume"] = resume if saved else "nothing was saved yet: start anew with the same flags"
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
        return {"run": "config.json is not there yet: it is written when the data are read"}
    model, parts = config.get("model", {}), ("train", "val", "test")
    processes, threads = config.get("world_size", 1), config.get("num_threads")
    device = ", ".join(dict.fromkeys(config.get("gpu_names") or [])) or config.get("device", "?")
    device += f", {processes} process{'es' if processes > 1 else ''}"
    device += f", {threads} thread{'s' if threads > 1 else ''}" if threads else ""
    source = data.get("data_path") or ", ".join(data.get("image_dir") or ["?"])
    samples = ", ".join(f"{data[f'{p}_samples']} {p}" for p in parts if data.get(f"{p}_samples"))
    # The groups that the splits keep apart.
    kind = view.task.get("groups", "")
    names = data.get(kind) or {p: range(data.get(f"{p}_{kind}") or 0) for p in parts}
    groups = " + ".join(str(len(names[p])) for p in parts if names.get(p))
    detail = ", ".join(str(model[key]) for key in ("backbone", "features") if model.get(key))
    trainable, total = model.get("trainable_parameters", 0), model.get("total_parameters", 0)
    return {
        "run": f"{view.script}, started {config.get('timestamp', '?').replace('T', ' ')} on {device}",
        "data": f"{source}{' (synthetic)' if data.get('synthetic') else ''}: {samples}"
        + (f" of {groups} {kind}" if groups else ""),
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
    """The last epochs, one a line, the best one marked; when it is further back it stands above them."""
    chosen, best = view.history[-rows:], view.best.get("epoch")
    if best is not None and best < chosen[0]["epoch"]:
        chosen = [view.best, *chosen]
    keys = [key for key in log_columns(view.task) if any(key in row for row in view.history)]
    cells = [["", "epoch", *keys, "lr", "seconds"]]
    for row in chosen:
        values = [format_value(row.get(key)) for key in (*keys, "lr")]
        speed = f"{row['seconds']:.1f}" if row.get("seconds") is not None else "?"
        cells.append(["best" if row["epoch"] == best else "", str(row["epoch"]), *values, speed])
    return align(cells)


def history_trends(view: RunView) -> dict[str, Trend]:
    """The trends of the columns shown; empty with too few epochs."""
    epochs = [row["epoch"] for row in view.history]
    found = {key: trend(epochs, [row.get(key) for row in view.history]) for key in log_columns(view.task)}
    return {key: line for key, line in found.items() if line is not None}


def draw_runs(views: Sequence[RunView], now: float) -> list[str]:
    """Several runs, one line each; where the figure that decides differs, its name stands beside it."""
    figures = {view.decides for view in views}
    one = f" {figures.pop()}" if len(figures) == 1 else ""
    cells = [["run", "state", "epoch", "left", "train_loss", "val_loss", f"last{one}", f"best{one}", "trend"]]
    notes = ["learning check"]
    whole = len({view.name for view in views}) < len(views)  # two runs of one name: their paths
    for view in views:
        state, key, last = view.state(now), view.decides, (view.history or [{}])[-1]
        left = view.time_left() if state.word in ("starting", "training") else None
        line = history_trends(view).get(key)
        figure = format_value(last[key]) if key in last else ""
        cells.append([
            str(view.folder) if whole else view.name,
            f"{state.word} {view.results.get('verdict', '')}".strip(),
            f"{int(view.done)}/{view.epochs}",
            format_duration(left[1]) if left else "",
            *(format_value(last[k]) if k in last else "" for k in ("train_loss", "val_loss")),
            figure if one else f"{key} {figure}",
            f"{format_value(view.best[key])} in {view.best['epoch']}" if view.best else "",
            line.word if line else "",
        ])  # fmt: skip
        texts = [state.detail] if state.word != "finished" and state.detail else []
        notes.append("; ".join(texts + [text.split(":")[0] for text in view.learning_signs()]))
    return [f"{line}  {note}".rstrip() for line, note in zip(align(cells), notes, strict=True)]


def fold(fields: dict[str, str], width: int) -> list[str]:
    """'  name  text', long texts folded under themselves."""
    room = max(map(len, fields))
    found = [wrap(text, width, f"  {name.ljust(room)}  ", room + 4) for name, text in fields.items()]
    return [line for lines in found for line in lines]


def wrap(text: str, width: int, first: str, indent: int) -> list[str]:
    """Lines of whole words, the first behind `first`, the others indented."""
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * indent,
                         break_long_words=False, break_on_hyphens=False) or [first]  # fmt: skip


def show(text: str) -> None:
    """Print in ASCII, at once; ends the process quietly when the reader has had enough (`| head`)."""
    try:
        print("\n".join(map(printable, text.split("\n"))), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
        sys.exit(0)
