"""The report of the anomaly task: metrics by category and distance, alarms, localisation, the verdict."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics import detection
from utils.metrics.calibration import calibrated, fit_slope, sigmoid
from utils.metrics.classification import reference_scores
from utils.metrics.verdict import GroupJackknife, Verdict, divide
from utils.plotting.anomaly import explained
from utils.plotting.classification import plot_roc_pr
from utils.report.classification import report_binary
from utils.report.results import figure_title, table
from utils.report.samples import report_samples
from utils.run.log import format_values

TRIVIAL = "trivial features"
LOCATED_FRAMES = 100  # anomalous frames, and as many normal ones, at most, whose pixels and points are judged

# (batch of one frame) -> heat map (1, H, W) and scores of the points (1, N), both tensors of probabilities
Where = Callable[[dict[str, Any]], tuple[Any, Any]]


def report_anomaly(
    folder: Path, split: str, state: Mapping[str, Any], rows: dict[str, np.ndarray], dataset: Any,
    known: dict[str, np.ndarray], features: np.ndarray, classes: tuple[str, str], *, where: Where,
    others: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> tuple[Verdict, dict[str, Any]]:  # fmt: skip
    """Judge the scores of one split and write SPLIT_predictions.csv and the figures.

    state: the checkpoint; rows: labels and logits (N,); dataset: the AnoVoxDataset of the split; known: the
    trivial features train_inputs (M, K) with train_labels (M,), on which logistic regression is fitted, and
    those of val, on which its threshold is chosen; features (N, K): of this split; others: {reference: its
    scores on val and on this split}. The verdict compares AUROC with the better of chance and that logistic
    regression, leaving out scenarios."""
    columns = dataset.columns()
    labels, logits, scenarios = rows["labels"], rows["logits"], columns["scenario"]
    odds = calibrated(logits, **state["calibration"])
    scores = sigmoid(odds)
    alarms = scores >= state["threshold"]
    val_labels, train = known["val_labels"], (known["train_inputs"], known["train_labels"])
    inputs = np.concatenate([known["val_inputs"], features])
    fitted = reference_scores(*train, inputs, names=["logistic regression"])["logistic regression"]
    trivial_val, trivial = np.split(fitted[:, 1], [len(val_labels)])
    chance = np.zeros(len(val_labels)), np.zeros(len(labels))
    references = {TRIVIAL: (trivial_val, trivial), "chance": chance, **others}
    jackknife = GroupJackknife(scenarios, labels, dataset.rows)  # both copies of a frame are one
    best = TRIVIAL if jackknife.auroc(labels, trivial)[0] > 0.5 else "chance"

    parts = {key: columns[key] for key in ("visibility", "category", "size")}
    parts["distance"] = detection.name_distances(columns["distance"])
    by_part = detection.breakdown(labels, odds, alarms, parts)
    located, benchmark = localise(dataset, where)
    args = state["args"]
    times = scenarios, columns["frame_id"], args["frame_rate"]
    extra = detection.detection_metrics(labels, odds, scenarios) | located
    if not dataset.pasting:  # copies of frames have no time of their own
        extra |= detection.alarm_statistics(labels, alarms, *times)
    del extra["calibration_error"]  # report_binary has it
    labelled = "ground truth"
    if dataset.pasting:
        labelled = "pasted"
    elif args["label"] != "pasted" and args["paste_share"]:
        labelled += f"; in training also objects pasted into {args['paste_share']:.0%} of the normal frames"
    pixelwise = table(benchmark, ["auroc", "aupr", "fpr95", "specificity", "f1_score", "ppv"])
    kinds = "anomalies by kind, AUROC against all normal frames, recall at the threshold"
    sensors = "per pixel and point, as in AnoVox's benchmark (but fpr95 is exact, not on a grid)"
    notes = {
        kinds: table(by_part, ["frames", "auroc", "recall"]),
        sensors: pixelwise if benchmark else "no semantic ground truth",
        "labels": labelled,
        "ranking and alarms": "\n".join(format_values({key: value}) for key, value in extra.items()),
    }
    written = {"label": labels, "logit": logits, "score": scores, "alarm": alarms.astype(int)}
    written["trivial_score"] = trivial
    p_label = np.where(labels == 1, scores, 1 - scores)
    look = lambda k: explained(dataset.__getitems__([k]), where, dataset.true_pixels(k))  # noqa: E731
    report_samples(folder, split, state, columns | written, p_label, look)
    curves, title = {"model": odds, TRIVIAL: trivial}, figure_title(state, split)
    plot_roc_pr(labels, curves, alarms, title, folder / "roc_pr.png")
    remedy = "; evaluate.py --paste N counts how many of N objects pasted into such frames are found"
    verdict, fields = report_binary(
        folder, split, state, labels, logits, classes, trivial=best, references=references,
        val_labels=val_labels, groups=scenarios, fallback=dataset.rows, notes=notes, fit=fit_slope,
        otherwise="" if labels.any() else remedy,
    )  # fmt: skip
    if labelled == "pasted":  # no claim about real anomalies
        verdict = replace(verdict, reason=f"on pasted objects; {verdict.reason}")
    fields |= {"labels": labelled, "benchmark": benchmark}
    fields["metrics"] |= extra | {"by_kind": by_part}
    right, pairs = map(jackknife.sums, detection.within_group_pairs(labels, odds, scenarios))
    fields["confidence"] |= jackknife.intervals(auroc_within_scenarios=divide(right, pairs))
    return verdict, fields


def localise(dataset: Any, where: Where) -> tuple[dict[str, Any], dict[str, dict[str, float | None]]]:
    """Do heat map and point scores show where the anomaly is? Gives pixel_ap and point_ap, each with its
    chance level (the share of anomalous pixels or points), and the tables of AnoVox's benchmark.

    Up to LOCATED_FRAMES anomalous and as many normal frames, evenly spread, are judged; agents are left out,
    as AnoVox advises. The metrics are None if the data has no semantic ground truth."""
    found: dict[str, dict[str, list]] = {"pixel": {}, "point": {}}
    by_label = (np.flatnonzero(dataset.labels == label) for label in (1, 0))
    spread = [frames[:: max(1, math.ceil(len(frames) / LOCATED_FRAMES))] for frames in by_label]
    for index in np.concatenate(spread).tolist():
        batch = dataset.__getitems__([index])
        heat, point_scores = where(batch)
        size = dataset.table.size[dataset.rows[index]]
        for sensor, truth, scores in (
            ("pixel", dataset.true_pixels(index), heat[0].numpy()),
            ("point", batch["true_points"][0].numpy().astype(np.int8), point_scores[0].numpy()),
        ):
            if truth is None or not (judged := truth >= 0).any():  # -1: left out, or unknown (points)
                continue
            tables = ["normality included"]
            if (truth == 1).any():  # detectable by this sensor
                tables.append("anomalies only")
                if size:
                    tables.append(f"size {size}")
            for name in tables:
                found[sensor].setdefault(name, []).append((truth[judged], scores[judged]))
    results, benchmark = {}, {}
    for sensor, tables in found.items():
        for name, parts in tables.items():
            truth, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
            benchmark[f"{sensor}, {name}"] = detection.benchmark_metrics(truth, scores)
        only = benchmark.get(f"{sensor}, anomalies only", {})
        shares = [truth.mean() for truth, _ in tables.get("anomalies only", [])]
        results[f"{sensor}_ap"] = only.get("aupr")
        results[f"{sensor}_ap_chance"] = float(np.mean(shares)) if shares else None
    return results, benchmark
