"""evaluation_report.txt and results.json: the same figures for people and for programs."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics.classification import binary_metrics, choose_threshold, confusion, multiclass_metrics
from utils.metrics.verdict import GroupJackknife, Verdict, judge
from utils.plotting.classification import plot_class_probabilities, plot_confusion, plot_distributions
from utils.run.folder import write_json, write_text
from utils.run.log import LOG, align, format_value, format_values

RISKY = ("=", "+", "-", "@", "\t", "\r")  # how a formula begins in a spreadsheet


def table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str], first: str = "") -> str:
    """Aligned text: one line per row name, one column per metric."""
    cells = [[name, *(format_value(row.get(column)) for column in columns)] for name, row in rows.items()]
    return "\n".join(align([[first, *columns], *cells]))


def confusion_table(counts: Any, names: Sequence[str]) -> str:
    """The confusion matrix as text; rows are the truth."""
    rows = {
        name: dict(zip(names, map(int, row), strict=True)) for name, row in zip(names, counts, strict=True)
    }
    return table(rows, names, "true \\ predicted")


def write_report(path: Path, title: str, verdict: Verdict, sections: Mapping[str, str]) -> None:
    """The verdict first, then each section under its heading."""
    parts = [title, f"verdict: {verdict.word}\n{verdict.reason}"]
    parts += [f"{heading}\n{'-' * len(heading)}\n{text}" for heading, text in sections.items()]
    write_text(path, "\n\n".join(parts) + "\n")


def write_results(run: Path, task: str, verdict: Verdict, **fields: Any) -> None:
    """RUN/results.json, which marks the run as finished, and the log's last line: the verdict."""
    head = {"task": task, "verdict": verdict.word, "verdict_reason": verdict.reason}
    write_json(run / "results.json", head | fields)
    LOG.info(f"verdict: {verdict.word} ({verdict.reason}); run folder {run}")


def epochs_and_time(args: argparse.Namespace, history: list[dict[str, Any]]) -> dict[str, float]:
    """Epochs asked for and run, and the seconds of all of them, however often the run was resumed."""
    seconds = sum(row["seconds"] for row in history)
    return {"epochs": args.epochs, "epochs_run": len(history), "wall_seconds": seconds}


def write_table(path: Path, columns: Any) -> None:
    """A CSV of what pandas.DataFrame takes, such as {name: values}. Text that a spreadsheet would run as a
    formula gets a ' in front; numbers do not."""
    import pandas

    frame = pandas.DataFrame(columns)
    for name in frame.columns[frame.dtypes.map(pandas.api.types.is_string_dtype)]:
        risky = [isinstance(cell, str) and cell.startswith(RISKY) for cell in frame[name]]
        frame.loc[risky, name] = "'" + frame.loc[risky, name]
    write_text(path, frame.to_csv(index=False))


def report_binary(
    folder: Path,
    split: str,
    title: str,
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    classes: Sequence[str],
    *,
    trivial: str,
    references: Mapping[str, tuple[np.ndarray, np.ndarray]],
    val_labels: np.ndarray,
    groups: np.ndarray,
    fallback: np.ndarray,
    truncated: bool,
    notes: str,
    unit: str = "sequences",
) -> tuple[Verdict, dict[str, Any]]:
    """Judge a two-class model on N samples beside reference scorers on the same samples.

    `references` maps a name to its scores on val and on these samples; its threshold is chosen on val, as the
    model's is. The verdict compares AUROC with the reference named `trivial`, leaving out one of `groups`
    (N,) at a time, which are called `unit`.
    Writes evaluation_report.txt, confusion_matrix.png and probability_distributions.png into `folder`;
    returns the verdict and {metrics, baselines, confidence}.
    """
    preds = (scores >= threshold).astype(int)
    metrics = binary_metrics(labels, scores, threshold)
    baselines = {
        "majority class": binary_metrics(labels, np.full(len(labels), float(labels.mean() >= 0.5)), 0.5)
    }
    for name, (on_val, here) in references.items():
        baselines[name] = binary_metrics(labels, here, choose_threshold(val_labels, on_val))

    jackknife = GroupJackknife(groups, labels, fallback)
    model_auroc = jackknife.auroc(labels, scores)
    verdict = judge(
        "AUROC", model_auroc, jackknife.auroc(labels, references[trivial][1]), trivial, split, jackknife,
        unit=unit, truncated=truncated,
    )  # fmt: skip
    confidence = jackknife.intervals(
        ap=jackknife.ap(labels, scores), auroc=model_auroc, f1=jackknife.f1(labels, preds)
    )

    counts = confusion(labels, preds, 2)
    plot_confusion(counts, classes, f"threshold {threshold:.3f}", folder / "confusion_matrix.png")
    plot_distributions(labels, scores, classes, title, folder / "probability_distributions.png", threshold)
    what = "frames" if jackknife.over_frames else unit
    sections = {
        f"{len(labels)} samples, {int(labels.sum())} of class '{classes[1]}'": table(
            {"model": metrics, **baselines}, list(metrics)
        ),
        f"95% intervals of the model, jackknife over {what}": "\n".join(
            f"{name}: [{low:.3f}, {high:.3f}]" for name, (low, high) in confidence.items()
        ),
        f"confusion matrix at threshold {threshold:.4f}, chosen on val": confusion_table(counts, classes),
        "notes": notes,
    }
    write_report(folder / "evaluation_report.txt", title, verdict, sections)
    for name, values in {"model": metrics, **baselines}.items():
        LOG.info(f"{title}: {name}: {format_values({key: values[key] for key in ('ap', 'auroc', 'f1')})}")
    return verdict, {"metrics": metrics, "baselines": baselines, "confidence": confidence}


def report_multiclass(
    folder: Path,
    split: str,
    title: str,
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    *,
    references: Mapping[str, np.ndarray],
    train_labels: np.ndarray,
    groups: np.ndarray,
    fallback: np.ndarray,
    truncated: bool,
    notes: str,
    unit: str = "sequences",
) -> tuple[Verdict, dict[str, Any]]:
    """Judge a K-class model on N samples beside reference scorers (N, K) and guessing.

    The verdict compares macro F1 with the best of always guessing the train split's majority class, guessing
    uniformly and guessing by the train split's shares. Writes and returns what report_binary does.
    """
    count = len(classes)
    prior = np.bincount(train_labels, minlength=count) / len(train_labels)
    guesses = {
        "majority class": np.eye(count)[prior.argmax()],
        "uniform guess": np.full(count, 1 / count),
        "guess by train shares": prior,
    }
    preds = scores.argmax(axis=1)
    jackknife = GroupJackknife(groups, fallback=fallback)
    model = jackknife.macro_f1(labels, np.eye(count)[preds])
    trivial = {name: jackknife.macro_f1(labels, np.tile(p, (len(labels), 1))) for name, p in guesses.items()}
    best_guess = max(trivial, key=lambda name: trivial[name][0])
    verdict = judge(
        "macro F1", model, trivial[best_guess], best_guess, split, jackknife, unit=unit, truncated=truncated
    )
    metrics = multiclass_metrics(labels, scores, classes)
    baselines = {name: {"macro_f1": float(rows[0])} for name, rows in trivial.items()}
    baselines |= {name: multiclass_metrics(labels, values, classes) for name, values in references.items()}
    confidence = jackknife.intervals(macro_f1=model, accuracy=jackknife.means(preds == labels))

    counts = confusion(labels, preds, count)
    plot_confusion(counts, classes, title, folder / "confusion_matrix.png")
    plot_class_probabilities(labels, scores, classes, title, folder / "probability_distributions.png")
    columns = [key for key in metrics if key != "per_class"]
    what = "frames" if jackknife.over_frames else unit
    sections = {
        f"{len(labels)} samples": table({"model": metrics, **baselines}, columns),
        f"95% intervals of the model, jackknife over {what}": "\n".join(
            f"{name}: [{low:.3f}, {high:.3f}]" for name, (low, high) in confidence.items()
        ),
        "per class": table(metrics["per_class"], ["support", "precision", "recall", "f1", "ap"]),
        "confusion matrix": confusion_table(counts, classes),
        "notes": notes,
    }
    write_report(folder / "evaluation_report.txt", title, verdict, sections)
    for name, values in {"model": metrics, **baselines}.items():
        LOG.info(f"{title}: {name}: macro_f1 {values['macro_f1']:.4g}")
    return verdict, {"metrics": metrics, "baselines": baselines, "confidence": confidence}
