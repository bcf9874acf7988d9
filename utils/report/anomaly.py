"""The report of the anomaly task: figures, tables by category and distance, alarms, where the anomaly is, the
verdict.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics.calibration import calibrated, fit_slope, sigmoid
from utils.metrics.detection import (
    alarm_statistics,
    breakdown,
    detection_metrics,
    name_distances,
    within_group_rows,
)
from utils.metrics.references import reference_scores
from utils.metrics.verdict import GroupJackknife, Verdict
from utils.plotting.classification import plot_roc_pr
from utils.report.classification import report_binary
from utils.report.results import figure_title, table
from utils.report.samples import Look, report_samples
from utils.run.log import format_values

TRIVIAL = "trivial features"


def report_anomaly(
    folder: Path, split: str, state: Mapping[str, Any], rows: dict[str, np.ndarray],
    columns: dict[str, np.ndarray], known: dict[str, np.ndarray], features: np.ndarray,
    classes: tuple[str, str], *, located: dict[str, float | None], truncated: bool, look: Look,
    frame_rate: float = 10.0, pasted: bool = False,
    others: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> tuple[Verdict, dict[str, Any]]:  # fmt: skip
    """Judge the scores of one split and write evaluation_report.txt, SPLIT_predictions.csv and the figures.

    state: the checkpoint; rows: labels, logits (N,); columns: scenario, frame_id, category, size,
    visibility, distance (N,); known: train_inputs (M, K) with train_labels (M,), the trivial features that
    their scorer is fitted on, and val's, on which its threshold is chosen; features (N, K): of this split;
    look: pictures of a frame. The verdict compares AUROC with the better of chance and logistic regression
    on the trivial features, leaving out scenarios.
    """
    labels, logits, scenarios = rows["labels"], rows["logits"], columns["scenario"]
    odds = calibrated(logits, **state["calibration"])
    scores = sigmoid(odds)
    alarms = scores >= state["threshold"]
    val_labels, both = known["val_labels"], np.concatenate([known["val_inputs"], features])
    fitted = reference_scores(
        known["train_inputs"], known["train_labels"], both, names=["logistic regression"]
    )
    trivial = fitted["logistic regression"][:, 1]
    references = {
        TRIVIAL: np.split(trivial, [len(val_labels)]),
        "chance": (np.zeros(len(val_labels)), np.zeros(len(labels))),
        **(others or {}),
    }
    by, frames = GroupJackknife(scenarios, labels, np.arange(len(labels))), np.arange(len(labels))
    best = TRIVIAL if by.auroc(labels, references[TRIVIAL][1])[0] > 0.5 else "chance"

    parts = {key: columns[key] for key in ("visibility", "category", "size")}
    parts["distance"] = name_distances(columns["distance"])
    by_part, benchmark = breakdown(labels, odds, alarms, parts), located.pop("benchmark", {})
    extra = detection_metrics(labels, odds, scenarios) | located
    extra |= alarm_statistics(labels, alarms, scenarios, columns["frame_id"], frame_rate)
    del extra["calibration_error"]  # stands with the other figures of probabilities
    notes = {
        "anomalies by kind, AUROC against all normal frames, recall at the threshold": table(
            by_part, ["frames", "auroc", "recall"]
        ),
        "per pixel and point, as AnoVox's benchmark has it (fpr95 exact, theirs is on a grid)": table(
            benchmark, ["auroc", "aupr", "fpr95", "specificity", "f1_score", "ppv"]
        )
        if benchmark
        else "no semantic ground truth",
        "ranking and alarms": "\n".join(format_values({key: value}) for key, value in extra.items()),
    }
    written = {"label": labels, "logit": logits, "score": scores, "alarm": alarms.astype(int)}
    written["trivial_score"] = references[TRIVIAL][1]
    p_label = np.where(labels == 1, scores, 1 - scores)
    report_samples(folder, split, state, columns | written, p_label, look)
    curves, title = {"model": odds, TRIVIAL: references[TRIVIAL][1]}, figure_title(state, split)
    plot_roc_pr(labels, curves, alarms, title, folder / "roc_pr.png")
    remedy = "; evaluate.py --paste N counts how many of N things pasted into such frames are found"
    verdict, fields = report_binary(
        folder, split, state, labels, logits, classes, trivial=best, references=references,
        val_labels=val_labels, groups=scenarios, fallback=frames, truncated=truncated, notes=notes,
        fit=fit_slope,
        otherwise="" if labels.any() else remedy,
    )  # fmt: skip
    if pasted:  # no claim about anomalies that somebody met
        verdict = replace(verdict, reason=f"on pasted objects; {verdict.reason}")
        fields["labels"] = "pasted"
    fields["benchmark"] = benchmark
    fields["metrics"] |= extra | {"by_kind": by_part}
    within = within_group_rows(by, labels, odds, scenarios)
    fields["confidence"] |= by.intervals(auroc_within_scenarios=within)
    return verdict, fields
