"""Metrics of anomaly detection over frames (N,) of scenarios; scores are probabilities, labels 0 or 1."""

import itertools
from typing import Any

import numpy as np

from utils.metrics.calibration import calibration_error, sigmoid

NANOSECONDS, MICROSECONDS = 1_000_000, 10_000  # frame numbers at least so far apart are time stamps


def fpr95(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """False positive rate at the highest threshold with a recall of 95%; None with one class."""
    from sklearn.metrics import roc_curve

    if len(np.unique(labels)) < 2:
        return None
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(false[np.argmax(true >= 0.95)])


def auroc_of_counts(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """AUROC from histograms of the scores, bins in ascending order; NaN with one class.
    A pair in the same bin counts half: the result is off by at most the share of such pairs."""
    pairs = normal.sum() * anomalous.sum()
    right = (anomalous * (np.cumsum(normal) - normal / 2)).sum()
    return float(right / pairs) if pairs else float("nan")


def within_group_pairs(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each anomaly (N,), how many normal frames of its group score lower (ties count half), and how many
    normal frames there are. The ratio of the sums is an AUROC that telling groups apart does not raise."""
    right, pairs = np.zeros(len(labels)), np.zeros(len(labels))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        normal = np.sort(scores[members[labels[members] == 0]])
        anomalous = members[labels[members] == 1]
        lower, not_higher = (np.searchsorted(normal, scores[anomalous], side) for side in ("left", "right"))
        right[anomalous], pairs[anomalous] = (lower + not_higher) / 2, len(normal)
    return right, pairs


def frame_seconds(frame_ids: np.ndarray, frame_rate: float = 10.0) -> np.ndarray:
    """Time of frames (N,) in seconds; their ids count frames at `frame_rate` (Hz) or are time stamps: dates
    from 2001 to 2036 in (milli-, micro-, nano-) seconds, or micro- or nanoseconds since some moment."""
    if len(frame_ids) < 2:
        return np.zeros(len(frame_ids))
    step = np.median(np.diff(np.sort(frame_ids)))
    since = 1e9 if step >= NANOSECONDS else 1e6 if step >= MICROSECONDS else frame_rate
    first = frame_ids.min()
    dates = [unit for unit in (1, 1e3, 1e6, 1e9) if 1e9 <= first / unit < 2.1e9 and step / unit < 1000]
    return (frame_ids - first) / (dates or [since])[0]


def alarm_statistics(
    labels: np.ndarray, alarms: np.ndarray, scenarios: np.ndarray, frame_ids: np.ndarray,
    frame_rate: float = 10.0,
) -> dict[str, Any]:  # fmt: skip
    """False alarms per minute of normal frames, and the mean delay of the first alarm of an encounter.
    An encounter is an unbroken run of anomalous frames in a scenario; the delay counts from its first frame.
    A frame lasts for its scenario's median step. Encounters without any alarm are counted as missed."""
    minutes, false_alarms, delays, missed = 0.0, 0, [], 0
    for scenario in np.unique(scenarios):
        members = np.flatnonzero(scenarios == scenario)
        members = members[np.argsort(frame_ids[members])]
        seconds = frame_seconds(frame_ids[members], frame_rate)
        step = float(np.median(np.diff(seconds))) if len(members) > 1 else 1 / frame_rate
        normal = labels[members] == 0
        minutes += normal.sum() * step / 60
        false_alarms += int(alarms[members][normal].sum())
        edges = np.flatnonzero(np.diff(np.r_[0, labels[members], 0]))
        for begin, end in edges.reshape(-1, 2):
            raised = np.flatnonzero(alarms[members[begin:end]])
            if len(raised):
                delays.append(seconds[begin + raised[0]] - seconds[begin])
            else:
                missed += 1
    return {
        "false_alarms_per_minute": false_alarms / minutes if minutes else None, "normal_minutes": minutes,
        "encounters": len(delays) + missed, "encounters_missed": missed,
        "delay_seconds": float(np.mean(delays)) if delays else None,
    }  # fmt: skip


def detection_metrics(labels: np.ndarray, odds: np.ndarray, groups: np.ndarray) -> dict[str, float | None]:
    """The metrics that validation adds to binary_metrics, from calibrated log odds (N,)."""
    right, pairs = within_group_pairs(labels, odds, groups)
    return {
        "fpr95": fpr95(labels, odds),
        "calibration_error": calibration_error(labels, sigmoid(odds)),
        "auroc_within_scenarios": float(right.sum() / pairs.sum()) if pairs.any() else None,
        "mean_score": float(sigmoid(odds).mean()),
    }


def benchmark_metrics(truth: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """The metrics of AnoVox's own benchmark over pixels or points: truth (N,) 0 or 1, scores (N,) in 0..1.

    auroc, aupr, specificity (at the threshold where precision and recall are closest), f1_score and ppv (mean
    over thresholds .25, .30 ... .70) are as in its benchmark/eval/metrics.py; fpr95 is exact, there it is on
    a grid of .01. None with one class only."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    names = ("auroc", "aupr", "fpr95", "specificity", "f1_score", "ppv")
    if len(np.unique(truth)) < 2:
        return dict.fromkeys(names)

    def above(threshold: np.floating) -> tuple[int, int]:
        """True and false alarms: scores above the threshold."""
        alarms = truth[scores > threshold]
        hits = int(alarms.sum())
        return hits, len(alarms) - hits

    precision, recall, thresholds = precision_recall_curve(truth, scores)
    gap = np.abs(precision - recall)[:-1]
    chosen = thresholds[np.argmin(gap)]  # of equally good ones the lowest, as in the benchmark
    positives = int(truth.sum())
    specificity = 1 - above(chosen)[1] / (len(truth) - positives)
    alarms = [above(threshold) for threshold in np.arange(0.25, 0.75, 0.05)]
    f1 = [2 * hit / (hit + false + positives) for hit, false in alarms]
    ppv = [hit / (hit + false) if hit + false else 0.0 for hit, false in alarms]
    auroc, ap = roc_auc_score(truth, scores), average_precision_score(truth, scores)
    values = (auroc, ap, fpr95(truth, scores), specificity, np.mean(f1), np.mean(ppv))
    return dict(zip(names, map(float, values), strict=True))


def breakdown(
    labels: np.ndarray, odds: np.ndarray, alarms: np.ndarray, groups: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """For each value of each column: recall of its anomalies, and their AUROC against all normal frames."""
    from sklearn.metrics import roc_auc_score

    rows = {}
    normal = labels == 0
    for column, values in groups.items():
        for value in sorted(set(values[~normal].tolist()) - {""}):
            chosen = ~normal & (values == value)
            both = normal | chosen
            auroc = float(roc_auc_score(labels[both], odds[both])) if normal.any() else None
            found = {"frames": int(chosen.sum()), "auroc": auroc, "recall": float(alarms[chosen].mean())}
            rows[f"{column}: {value}"] = found
    return rows


def name_distances(metres: np.ndarray) -> np.ndarray:
    """Distance classes such as '05-10 m'; '' where the distance is unknown."""
    edges = (5, 10, 15, 20, 30)
    names = [f"{a:02d}-{b:02d} m" for a, b in itertools.pairwise((0, *edges))] + [f"{edges[-1]}+ m"]
    return np.where(np.isfinite(metres), np.array(names)[np.digitize(np.nan_to_num(metres), edges)], "")
