"""evaluation_report.txt and results.json: the same figures for people and for programs. Tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.metrics.calibration import scale_warning
from utils.metrics.verdict import Verdict
from utils.run.folder import write_json, write_text
from utils.run.log import LOG, align, format_value
from utils.run.signs import history_signs
from utils.tasks import TASKS

RISKY = ("=", "+", "-", "@", "\t", "\r")  # how a formula begins in a spreadsheet


def table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str], first: str = "") -> str:
    """Aligned text: one line per row name, one column per metric."""
    cells = [[name, *(format_value(row.get(column)) for column in columns)] for name, row in rows.items()]
    return "\n".join(align([[first, *columns], *cells]))


def confusion_table(counts: Any, names: Sequence[str]) -> str:
    """The confusion matrix as text; rows are the truth."""
    rows = [dict(zip(names, map(int, row), strict=True)) for row in counts]
    return table(dict(zip(names, rows, strict=True)), names, "true \\ predicted")


def interval_lines(confidence: Mapping[str, Sequence[float]]) -> str:
    """'auroc: [0.551, 0.752]', a line each."""
    return "\n".join(f"{name}: [{low:.3f}, {high:.3f}]" for name, (low, high) in confidence.items())


def data_name(state: Mapping[str, Any]) -> str:
    """What figures call the data of the flags in `state`: the run's, or what evaluate.py judges."""
    place = state["args"].get("data_path") or state["args"].get("image_dir")
    if not place:
        return "the built-in sample"
    names = Path(place).absolute().parts
    return "/".join(names[-3:] if names[-1] == "Images" else names[-1:])  # TA/Healthy/Images


def figure_title(state: Mapping[str, Any], split: str) -> str:
    return f"{state['script']} on {split} of {data_name(state)}"


def state_warnings(state: Mapping[str, Any]) -> list[str]:
    """What the history and the scales in a checkpoint give reason to doubt."""
    found = history_signs(state["history"], TASKS[state["script"]], constant=state.get("constant_loss"))
    if "calibration" in state:
        found.append(scale_warning(state["calibration"]["slope"], "slope of the calibration"))
    if "temperature" in state:
        found.append(scale_warning(1 / state["temperature"], "temperature"))
    return [text for text in found if text]


def write_report(
    path: Path, title: str, verdict: Verdict, warnings: Sequence[str], sections: Mapping[str, str]
) -> None:
    """The verdict first, then what gives reason to doubt, which is logged too, then each section."""
    for warning in warnings:
        LOG.warning(warning)
    parts = [f"{title}\nnames: docs/glossary.md", f"verdict: {verdict.word}\n{verdict.reason}"]
    parts += [verdict.reference] if verdict.reference else []
    sections = {"warnings": "\n".join(warnings), **sections}
    parts += [section(heading, text) for heading, text in sections.items() if text]
    write_text(path, "\n\n".join(parts) + "\n")


def section(heading: str, text: str) -> str:
    return f"{heading}\n{'-' * len(heading)}\n{text}"


def add_section(path: Path, heading: str, text: str) -> None:
    """One more section at the end of a report, and its text in the log."""
    LOG.info(f"{heading}: {text}")
    write_text(path, f"{path.read_text(encoding='utf-8')}\n{section(heading, text)}\n")


def write_results(run: Path, task: str, verdict: Verdict, **fields: Any) -> None:
    """RUN/results.json, which marks the run as finished, and the log's last line: the verdict."""
    head = {"task": task, "verdict": verdict.word, "verdict_reason": verdict.reason}
    write_json(run / "results.json", head | {"reference": verdict.reference} | fields)
    LOG.info(f"verdict: {verdict}; run folder {run}")


def write_table(path: Path, columns: Any) -> None:
    """A CSV of what pandas.DataFrame takes, such as {name: values}. Text that a spreadsheet would run as a
    formula gets a ' in front; numbers do not. What was a float32 is written as short as one."""
    import pandas

    frame = pandas.DataFrame(columns)
    for name in frame.select_dtypes("float64").columns:
        values, single = frame[name], frame[name].astype("float32")
        frame[name] = single if (values.isna() | (single == values)).all() else values.round(9)
    for name in frame.columns[frame.dtypes.map(pandas.api.types.is_string_dtype)]:
        risky = [isinstance(cell, str) and cell.startswith(RISKY) for cell in frame[name]]
        frame.loc[risky, name] = "'" + frame.loc[risky, name]
    write_text(path, frame.to_csv(index=False))
