"""Write evaluation_report.txt for people, results.json for programs, and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.metrics.calibration import scale_warning
from utils.metrics.verdict import Verdict
from utils.run.folder import write_json, write_text
from utils.run.log import LOG, align, format_value
from utils.run.signs import kind_of

RISKY = ("=", "+", "-", "@", "\t", "\r")  # start a formula in a spreadsheet


def table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str], first: str = "") -> str:
    """Aligned text: one line per row name, one column per metric."""
    cells = [[name, *(format_value(row.get(column)) for column in columns)] for name, row in rows.items()]
    return "\n".join(align([[first, *columns], *cells]))


def confusion_table(counts: Any, names: Sequence[str]) -> str:
    """The confusion matrix as text; rows are the truth."""
    rows = [dict(zip(names, map(int, row), strict=True)) for row in counts]
    return table(dict(zip(names, rows, strict=True)), names, "true \\ predicted")


def interval_lines(confidence: Mapping[str, Sequence[float]]) -> str:
    """'auroc: [0.551, 0.752]', one line for each metric."""
    return "\n".join(f"{name}: [{low:.3f}, {high:.3f}]" for name, (low, high) in confidence.items())


def data_name(state: Mapping[str, Any]) -> str:
    """The name of the data in titles of figures: that of the run, or the data that evaluate.py judges."""
    place = state["args"].get("data_path") or state["args"].get("image_dir")
    if not place:
        return "the built-in sample"
    names = Path(place).absolute().parts
    return "/".join(names[-3:] if names[-1] == "Images" else names[-1:])  # TA/Healthy/Images


def data_place(args: Mapping[str, Any], synthetic: bool) -> str:
    """Where the data is, and whether it was generated, for logs and reports."""
    place, flag = ("image_dir", "--image_dir") if "image_dir" in args else ("data_path", "--data_path")
    if not args[place]:
        return f"the built-in synthetic sample (your own: {flag})"
    return f"{Path(args[place]).absolute()}{' (synthetic)' if synthetic else ''}"


def figure_title(state: Mapping[str, Any], split: str) -> str:
    return f"{state['script']} on {split} of {data_name(state)}"


def scale_warnings(state: Mapping[str, Any]) -> list[str]:
    """Warnings about the calibration in a checkpoint."""
    scales = {"slope of the calibration": state.get("calibration", {}).get("slope", 1.0)}
    scales["temperature"] = 1 / state.get("temperature", 1.0)
    return [text for name, scale in scales.items() if (text := scale_warning(scale, name))]


def write_report(
    path: Path, title: str, verdict: Verdict, warnings: Sequence[str], sections: Mapping[str, str],
    logged: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write the verdict, then the warnings, then each section; log the warnings that are not `logged` yet."""
    for warning in warnings:
        if kind_of(warning) not in map(kind_of, logged):
            LOG.warning(warning)
    parts = [f"{title}\nnames: docs/glossary.md", f"verdict: {verdict.word}\n{verdict.reason}"]
    parts += [verdict.reference] if verdict.reference else []
    sections = {"warnings": "\n".join(warnings), **sections}
    parts += [f"{heading}\n{'-' * len(heading)}\n{text}" for heading, text in sections.items() if text]
    write_text(path, "\n\n".join(parts) + "\n")


def write_results(run: Path, task: str, verdict: Verdict, kept: bool = True, **fields: Any) -> None:
    """Write RUN/results.json, which marks the run as finished, and the log's last line: the verdict and, if
    it is kept, the folder."""
    head = {"task": task, "verdict": verdict.word, "verdict_reason": verdict.reason}
    write_json(run / "results.json", head | {"reference": verdict.reference} | fields)
    LOG.info(f"verdict: {verdict}{f'; files in {run}' if kept else ''}")


def write_table(path: Path, columns: Any) -> None:
    """Write a CSV of anything that pandas.DataFrame takes, such as {name: values}. Text that a spreadsheet
    would run as a formula gets a leading '. Values that were float32 get no more digits than float32 has."""
    import pandas

    frame = pandas.DataFrame(columns)
    for name in frame.select_dtypes("float64").columns:
        values, single = frame[name], frame[name].astype("float32")
        frame[name] = single if (values.isna() | (single == values)).all() else values.round(9)
    for name in frame.columns[frame.dtypes.map(pandas.api.types.is_string_dtype)]:
        risky = [isinstance(cell, str) and cell.startswith(RISKY) for cell in frame[name]]
        frame.loc[risky, name] = "'" + frame.loc[risky, name]
    write_text(path, frame.to_csv(index=False))
