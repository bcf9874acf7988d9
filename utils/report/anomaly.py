"""The report of the anomaly task: figures, tables by category and distance, alarms, where the anomaly is, the
verdict.
"""

from pathlib import Path
from typing import Any

import numpy as np

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
from utils.report.classification import report_binary, table, write_table
from utils.run.log import format_values

TRIVIAL = "trivial features"


def report_anomaly(
    folder: Path,
    split: str,
    title: str,
    rows: dict[str, np.ndarray],
    columns: dict[str, np.ndarray],
    features: dict[str, tuple[np.ndarray, np.ndarray]],
    val_labels: np.ndarray,
    classes: tuple[str, str],
    threshold: float,
    *,
    located: dict[str, float | None],
    truncated: bool,
) -> tuple[Verdict, dict[str, Any]]:
    """Judge the scores of one split and write evaluation_report.txt, SPLIT_predictions.csv and the figures.

    rows: labels, scores (N,); columns: scenario, frame_id, category, size, visibility, distance (N,);
    features: for train, val and this split, trivial features (M, K) with labels (M,), under the keys "train",
    "val" and "here". The verdict compares AUROC with the better of chance and logistic regression on the
    trivial features, leaving out scenarios.
    """
    labels, scores, scenarios = rows["labels"], rows["scores"], columns["scenario"]
    alarms = scores >= threshold
    both = np.concatenate([features["val"][0], features["here"][0]])
    fitted = reference_scores(*features["train"], both, names=["logistic regression"])
    trivial = fitted["logistic regression"][:, 1]
    references = {
        TRIVIAL: np.split(trivial, [len(val_labels)]),
        "chance": (np.zeros(len(val_labels)), np.zeros(len(labels))),
    }
    jackknife = GroupJackknife(scenarios, labels, np.arange(len(labels)))
    best = TRIVIAL if jackknife.auroc(labels, references[TRIVIAL][1])[0] > 0.5 else "chance"

    statistics = alarm_statistics(labels, alarms, scenarios, columns["frame_id"])
    parts = {key: columns[key] for key in ("visibility", "category", "size")} | {
        "distance": name_distances(columns["distance"])
    }
    by_part = breakdown(labels, scores, threshold, parts)
    extra = detection_metrics(labels, scores, scenarios) | statistics | located
    notes = "\n\n".join(
        [
            "anomalies by kind, AUROC against all normal frames, recall at the threshold\n"
            + table(by_part, ["frames", "auroc", "recall"]),
            "ranking, calibration and alarms\n"
            + "\n".join(format_values({key: value}) for key, value in extra.items()),
        ]
    )
    write_table(
        folder / f"{split}_predictions.csv",
        {**columns, "label": labels, "logit": rows["logits"], "score": scores, "alarm": alarms.astype(int)},
    )
    plot_roc_pr(labels, {"model": scores, TRIVIAL: references[TRIVIAL][1]}, folder / "roc_pr.png")
    verdict, fields = report_binary(
        folder, split, title, labels, scores, threshold, classes, trivial=best, references=references,
        val_labels=val_labels, groups=scenarios, fallback=np.arange(len(labels)), truncated=truncated,
        notes=notes, unit="scenarios",
    )  # fmt: skip
    fields["metrics"] |= extra | {"by_kind": by_part}
    within = within_group_rows(jackknife, labels, scores, scenarios)
    fields["confidence"] |= jackknife.intervals(auroc_within_scenarios=within)
    return verdict, fields
