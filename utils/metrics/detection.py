"""Metrics of anomaly detection over frames that follow each other in scenarios.

Scores are probabilities (N,), labels 0 or 1.
"""

import itertools
from typing import Any

import numpy as np

from utils.metrics.calibration import calibration_error, sigmoid
from utils.metrics.classification import choose_threshold
from utils.metrics.verdict import GroupJackknife, divide

TICK = 0.1  # seconds between CARLA frame numbers, at AnoVox's 10 Hz


def fpr_at_recall(labels: np.ndarray, scores: np.ndarray, recall: float = 0.95) -> float | None:
    """FPR at the highest threshold that finds this share of the anomalies (FPR95); None with one class."""
    from sklearn.metrics import roc_curve

    if len(np.unique(labels)) < 2:
        return None
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(false[np.argmax(true >= recall)])


def choose_alarm_threshold(labels: np.ndarray, scores: np.ndarray, rule: str, target_fpr: float) -> float:
    """The alarm threshold on val: the best F1, or the lowest score that few normal frames reach.

    Few: a share of at most `target_fpr`. Without an anomaly in val only the second can be had. With no normal
    frame there is nothing to choose: 0.5.
    """
    normal = np.sort(scores[labels == 0])
    if len(normal) == 0:
        return 0.5
    if rule == "f1" and labels.any():
        return choose_threshold(labels, scores)
    allowed = int(target_fpr * len(normal))  # alarms that may be false
    return float(np.nextafter(normal[len(normal) - 1 - allowed], np.inf))


def within_group_pairs(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) pairs (anomaly, normal) of one group in the right order, and (N,) all such pairs.

    A pair counts at its anomaly, a tie half. The ratio of their sums is the AUROC within groups: it can not
    be earned by telling the groups apart.
    """
    right, pairs = np.zeros(len(labels)), np.zeros(len(labels))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        normal = scores[members[labels[members] == 0]]
        for i in members[labels[members] == 1]:
            right[i] = (scores[i] > normal).sum() + 0.5 * (scores[i] == normal).sum()
            pairs[i] = len(normal)
    return right, pairs


def within_group_auroc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float | None:
    """AUROC over the pairs of frames of one scenario; None when no scenario has both classes."""
    right, pairs = within_group_pairs(labels, scores, groups)
    return float(right.sum() / pairs.sum()) if pairs.any() else None


def within_group_rows(
    jackknife: GroupJackknife, labels: np.ndarray, scores: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """The jackknife's rows of `within_group_auroc`; NaN without any pair."""
    right, pairs = within_group_pairs(labels, scores, groups)
    return divide(jackknife.sums(right), jackknife.sums(pairs))


def alarm_statistics(
    labels: np.ndarray, alarms: np.ndarray, scenarios: np.ndarray, frame_ids: np.ndarray
) -> dict[str, Any]:
    """False alarms per minute of normal frames, and the delay of the first alarm of an encounter.

    An encounter is an unbroken run of anomalous frames of one scenario; the delay counts from its first
    visible frame. A frame stands for the time to the next recorded one (the scenario's median step, 10 Hz
    ticks). Encounters never alarmed are counted apart, not averaged in.
    """
    minutes, false_alarms, delays, missed = 0.0, 0, [], 0
    for scenario in np.unique(scenarios):
        members = np.flatnonzero(scenarios == scenario)
        members = members[np.argsort(frame_ids[members])]
        step = float(np.median(np.diff(frame_ids[members]))) * TICK if len(members) > 1 else TICK
        normal = labels[members] == 0
        minutes += normal.sum() * step / 60
        false_alarms += int(alarms[members][normal].sum())
        edges = np.flatnonzero(np.diff(np.r_[0, labels[members], 0]))
        for begin, end in edges.reshape(-1, 2):
            run = members[begin:end]
            raised = np.flatnonzero(alarms[run])
            if len(raised):
                delays.append((frame_ids[run[raised[0]]] - frame_ids[run[0]]) * TICK)
            else:
                missed += 1
    return {
        "false_alarms_per_minute": false_alarms / minutes if minutes else None,
        "normal_minutes": minutes,
        "encounters": len(delays) + missed,
        "encounters_missed": missed,
        "delay_seconds": float(np.mean(delays)) if delays else None,
    }


def detection_metrics(labels: np.ndarray, odds: np.ndarray, groups: np.ndarray) -> dict[str, float | None]:
    """What validation adds to binary_metrics: FPR95, calibration error, AUROC in scenarios, mean score.

    odds (N,): calibrated log odds.
    """
    return {
        "fpr95": fpr_at_recall(labels, odds),
        "calibration_error": calibration_error(labels, sigmoid(odds)),
        "auroc_within_scenarios": within_group_auroc(labels, odds, groups),
        "mean_score": float(sigmoid(odds).mean()),
    }


def breakdown(
    labels: np.ndarray, odds: np.ndarray, alarms: np.ndarray, groups: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Recall, and AUROC against all normal frames, of the anomalies with each value of each column."""
    from sklearn.metrics import roc_auc_score

    rows = {}
    normal = labels == 0
    for column, values in groups.items():
        for value in sorted(set(values[~normal].tolist()) - {""}):
            chosen = ~normal & (values == value)
            both = normal | chosen
            auroc = float(roc_auc_score(labels[both], odds[both])) if normal.any() else None
            rows[f"{column}: {value}"] = {
                "frames": int(chosen.sum()),
                "auroc": auroc,
                "recall": float(alarms[chosen].mean()),
            }
    return rows


def name_distances(metres: np.ndarray) -> np.ndarray:
    """Distance classes as text; '' where the distance is not known."""
    edges = (5, 10, 15, 20, 30)
    names = [f"{a:02d}-{b:02d} m" for a, b in itertools.pairwise((0, *edges))] + [f"{edges[-1]}+ m"]
    return np.where(np.isfinite(metres), np.array(names)[np.digitize(np.nan_to_num(metres), edges)], "")
