"""Compares runs: their figures, the differences in their configs, and paired differences on test.

    python compare_runs.py RUN RUN                   the second against the first
    python compare_runs.py "checkpoints/stage1_*"    a pattern; runs that differ only in the seed are grouped
    python compare_runs.py --folds "checkpoints/*"   pools runs of --fold 1/N to N/N, by recipe

RUN is a run folder or its name under checkpoints/. The others are compared with the first run (and those that
repeat it) on the same test samples. Writes visualizations/compare_NAME.png (the curves of all runs), .csv (a
row per run) and .md (the printed text).
"""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path

from utils.run import arguments
from utils.run.errors import CommandError, some
from utils.run.find import find_runs, is_pattern
from utils.run.folder import write_text
from utils.run.log import align, format_duration, show
from utils.run.script import run_script
from utils.run.signs import is_number
from utils.tasks import metrics_shown
from utils.watch import comparison
from utils.watch.predictions import check_folds, pool_folds
from utils.watch.run_view import RunView, read_run

Table = tuple[str, list[list[str]]]  # heading, and rows of cells; the first row is the header


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = arguments.ScriptParser("compare_runs.py", __doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders, their names, or patterns")
    add("--folds", action="store_true", help="pool the test predictions of each recipe's folds: every "
        "group is judged once, by a model that never saw it")  # fmt: skip
    add("--output_dir", default="checkpoints", help="where the run folders are")
    add("--picture_dir", default="visualizations", help="where to write plot, CSV and Markdown")
    add("--name", help="compare_NAME; default: task and times of the runs")
    return parser.parse_args(parser.typed(argv))


def runs_table(conditions: Sequence[comparison.Condition]) -> Table:
    """A row per run; for a condition with several seeds also the mean and standard deviation."""
    first = conditions[0].runs[0]
    key, names = first.decides, list(metrics_shown(first.task, "test"))
    head = ["", "run", "seed", "fold", "verdict", "best epoch", f"{key} in it", f"{key} at the end"]
    rows = [[*head, *names, "time"]]
    for condition in conditions:
        letter = condition.letter if len(conditions) > 1 else ""
        for view in (*condition.runs, *condition.pooled):
            row, last = comparison.row_of(condition, view), (view.history or [{}])[-1]
            rows.append([
                letter, view.name, str(row["seed"]), row["fold"] or "",
                row["verdict"] or view.state(time.time()).word,
                f"{row['best_epoch']}/{row['epochs']}" if view.best else "-",
                shown(row[key]), shown(last.get(key)),
                *(shown(*(row[f"test_{name}{end}"] for end in comparison.ENDS)) for name in names),
                format_duration(row["wall_seconds"]) if is_number(row["wall_seconds"]) else "-",
            ])  # fmt: skip
        repeated = [comparison.row_of(condition, view) for view in condition.distinct if view.results]
        columns = (key, *(f"test_{name}" for name in names))
        on_val, *means = (comparison.mean_and_sd([row[column] for row in repeated]) for column in columns)
        if any(means):
            rows.append([letter, f"mean +- sd of {len(repeated)} seeds", *[""] * 4, on_val, "", *means, ""])
    if not any(row[3] for row in rows[1:]):  # no folds
        rows = [row[:3] + row[4:] for row in rows]
    split = {view.results.get("test_split", "test") for c in conditions for view in c.runs if view.results}
    chosen = " (no test split: the epoch was chosen on val)" if "val" in split else ""
    where = "/".join(sorted(split)) or "test"
    return f"figures of the best epoch on {where}{chosen}, with 95% intervals", rows


def shown(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """'0.642 [0.551, 0.752]', or '-' for a missing value."""
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")


def keys_table(conditions: Sequence[comparison.Condition]) -> Table:
    """The config keys that differ, a column per condition; several values if its runs differ."""
    letters = [condition.letter for condition in conditions] if len(conditions) > 1 else ["values"]
    rows = [["config key", *letters]]
    for key, values in comparison.differing_keys(conditions).items():
        rows.append([key, *(", ".join(found) for found in values)])
    return "config keys that differ" if len(rows) > 1 else "no config key differs", rows


def difference_table(conditions: Sequence[comparison.Condition]) -> tuple[list[Table], list[str]]:
    """Every condition against the first on the same samples: one table or none, and notes."""
    if len(conditions) == 1:
        return [], ["these runs repeat one setting: there is no difference to test"]
    differences, notes = comparison.paired_differences(conditions)
    if not differences:
        return [], notes
    metrics = list(dict.fromkeys(delta.metric for delta in differences))
    rows = {delta.name: [f"{delta.name} - {conditions[0].letter}"] for delta in differences}
    for delta in differences:
        word = "better" if delta.better else "worse" if delta.worse else "no clear difference"
        rows[delta.name].append(f"{delta.gain} {word}")
    seeds = "they include the scatter between the seeds of a condition, if it has several"
    notes.append(f"intervals of 95% each, not corrected for multiple comparisons; {seeds}")
    heading = "paired differences on the same samples, 95% intervals"
    return [(heading, [["", *metrics], *rows.values()])], notes


def as_markdown(heading: str, rows: list[list[str]]) -> str:
    """A Markdown table, aligned so that a terminal shows it well too."""
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    lines = align([[cell.replace("|", "\\|") for cell in row] for row in ruled], " | ")
    return "\n".join([f"**{heading}**", "", *(f"| {line} |" for line in lines)])


def write_csv(path: Path, conditions: Sequence[comparison.Condition]) -> None:
    """A row per run: condition, figures with intervals, and the config keys that differ."""
    import pandas

    from utils.report.results import write_table

    keys = [key for key in comparison.differing_keys(conditions) if key != "args.seed"]
    rows = []
    for condition in conditions:
        for view in (*condition.runs, *condition.pooled):
            flat = comparison.flatten(view.config)
            differing = {key: comparison.short(flat.get(key)) for key in keys}
            rows.append(comparison.row_of(condition, view) | differing)
    write_table(path, pandas.DataFrame(rows, dtype=object))


def name_of(views: Sequence[RunView]) -> str:
    """'stage1_20261122_013555_20261122_015442' or 'stage1_..._and_3_more': same runs, same name."""
    if len(views) == 1:
        return views[0].name
    stamps = (view.name.rpartition("_experiment_")[2] for view in views)
    return some([views[0].task["task"], *stamps], 3, "_").replace(" ", "_")


def main(args: argparse.Namespace) -> None:
    views = [read_run(folder) for folder in find_runs(args.runs, Path(args.output_dir))]
    left_out = [view.folder for view in views if not view.script and any(map(is_pattern, args.runs))]
    views = [view for view in views if view.folder not in left_out]
    comparison.check_comparable(views)
    if args.name and not re.fullmatch(r"[\w.-]+", args.name):
        raise CommandError(f"--name {args.name}: letters, digits, '_', '-' and '.' only")
    notes = [f"{folder} is left out: it ended before config.json was written" for folder in left_out]
    if args.folds:
        check_folds(views)
    elif any(view.config["args"].get("fold") for view in views):
        notes.append("these are folds: compare_runs.py --folds pools their test predictions")
    conditions = comparison.group_runs(views, args.folds)
    if args.folds:
        conditions, more_notes = zip(*map(pool_folds, conditions), strict=True)
        notes = sum(more_notes, notes)
    tables = [runs_table(conditions)]
    notes += comparison.condition_notes(conditions)
    if len(views) > 1:
        tables.append(keys_table(conditions))
        differences, more_notes = difference_table(conditions)
        tables += differences
        notes += more_notes

    labels = "\n".join(f"- {c.letter}: {c.label}" for c in conditions) if len(conditions) > 1 else ""
    remarks = "\n".join(f"- {note}" for note in notes)
    text = "\n\n".join(filter(None, [labels, *(as_markdown(*table) for table in tables), remarks]))
    stem = Path(args.picture_dir, f"compare_{args.name or name_of(views)}")
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = [Path(f"{stem}{ending}") for ending in (".md", ".csv", ".png")]
    write_text(written[0], text + "\n")
    write_csv(written[1], conditions)
    if any(view.history for view in views):
        # matplotlib is slow to import.
        from utils.plotting.curves import plot_overlay

        plot_overlay(conditions, written[2])
    else:
        written.pop()
    show(f"{text}\n\nwritten: {'  '.join(map(str, written))}")


if __name__ == "__main__":
    run_script(main, parse_args())
