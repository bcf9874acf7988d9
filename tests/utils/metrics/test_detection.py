"""The metrics of anomaly detection, against hand numbers, loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from utils.metrics.detection import (
    alarm_statistics,
    auroc_of_counts,
    benchmark_metrics,
    breakdown,
    detection_metrics,
    fpr95,
    frame_seconds,
    name_distances,
    within_group_pairs,
)
from utils.metrics.verdict import GroupJackknife, divide

RNG = np.random.default_rng(0)


def test_auroc_of_histograms_is_that_of_the_binned_scores():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels, bins = rng.integers(0, 2, 200), rng.integers(0, 12, 200)
    counts = [np.bincount(bins[labels == k], minlength=12) for k in (0, 1)]
    assert auroc_of_counts(*counts) == pytest.approx(roc_auc_score(labels, bins))
    assert np.isnan(auroc_of_counts(counts[0], 0 * counts[1]))


def test_fpr95_by_hand():
    labels = np.array([1] * 20 + [0] * 10)
    scores = np.concatenate([np.linspace(0.5, 0.9, 20), np.linspace(0, 0.6, 10)])
    threshold = np.sort(scores[:20])[1]  # 19 of 20 found
    assert fpr95(labels, scores) == pytest.approx((scores[20:] >= threshold).mean())
    assert fpr95(np.ones(3, int), np.ones(3)) is None
    tied = np.tile(np.arange(20.0), 2)  # an anomaly and a normal frame share every score
    assert fpr95(np.repeat([0, 1], 20), tied) == pytest.approx(0.95)


def within_group_auroc(labels, scores, groups):
    return detection_metrics(labels, scores, groups)["auroc_within_scenarios"]


def test_within_group_auroc_ignores_differences_between_groups():
    groups = np.repeat([0, 1], 50)
    labels = (RNG.random(100) < np.where(groups == 0, 0.2, 0.8)).astype(int)
    assert within_group_auroc(labels, groups.astype(float), groups) == 0.5 < roc_auc_score(labels, groups)
    one = groups == 0
    scores = RNG.random(100)
    assert within_group_auroc(labels[one], scores[one], groups[one]) == pytest.approx(
        roc_auc_score(labels[one], scores[one])
    )
    assert within_group_auroc(labels, scores, np.arange(100)) is None


def test_within_group_pairs_are_the_metric_without_each_group():
    groups = np.repeat(np.arange(20), 10)
    labels = (RNG.random(200) < 0.4).astype(int)
    scores = labels + RNG.normal(0, 1, 200)
    right, pairs = map(GroupJackknife(groups, labels).sums, within_group_pairs(labels, scores, groups))
    kept = [np.full(200, True), *(groups != k for k in range(20))]
    alone = [within_group_auroc(labels[k], scores[k], groups[k]) for k in kept]
    assert divide(right, pairs) == pytest.approx(alone)


def test_alarms_by_hand():
    # one scenario, a frame each second: normal, anomaly x3 (alarms in the last two), normal (alarm), anomaly
    # (missed)
    labels = np.array([0, 1, 1, 1, 0, 1])
    alarms = np.array([False, False, True, True, True, False])
    shuffled = np.array([3, 0, 5, 1, 4, 2])
    found = alarm_statistics(labels[shuffled], alarms[shuffled], np.zeros(6, int), shuffled * 10)
    assert found["false_alarms_per_minute"] == pytest.approx(1 / (2 / 60))
    assert (found["encounters"], found["encounters_missed"], found["delay_seconds"]) == (
        2,
        1,
        pytest.approx(1.0),
    )
    alone = alarm_statistics(np.zeros(1, int), np.ones(1, bool), np.zeros(1, int), np.zeros(1, int), 2.0)
    assert alone["normal_minutes"] == pytest.approx(0.5 / 60)  # a single frame lasts for one tick


def test_breakdown_counts_each_kind_against_all_normal_frames():
    labels, scores = np.array([0, 0, 1, 1, 1, 1]), np.array([0.1, 0.6, 0.9, 0.5, 0.7, 0.2])
    sizes = np.array(["", "big", "big", "tiny", "big", ""])
    rows = breakdown(labels, scores, scores >= 0.65, {"size": sizes})
    assert list(rows) == ["size: big", "size: tiny"]  # an unknown size is no kind
    assert rows["size: big"] == {"frames": 2, "auroc": 1.0, "recall": 1.0}
    assert rows["size: tiny"] == {"frames": 1, "auroc": 0.5, "recall": 0.0}
    assert name_distances(np.array([3.0, 5, 99, np.nan])).tolist() == ["00-05 m", "05-10 m", "30+ m", ""]


def as_the_benchmark_computes(preds: np.ndarray, gts: np.ndarray) -> dict[str, float]:
    """compute_metrics of benchmark/eval/metrics.py of AnoVox (MIT), less its fpr95 on a grid."""
    precision, recall, thresholds = precision_recall_curve(gts, preds)
    chosen = sorted(zip(np.abs(precision - recall), thresholds, strict=False), key=lambda i: i[0])[0][1]
    tn, fp, _, _ = confusion_matrix(gts, np.where(preds > chosen, 1, 0)).ravel()
    precisions, f1s = [], []
    for threshold in np.arange(start=0.25, stop=0.75, step=0.05):
        alarms = np.where(preds > threshold, 1, 0)
        _, false, _, true = confusion_matrix(gts, alarms).ravel()
        precisions.append(true / (true + false) if true + false else 0)
        f1s.append(f1_score(gts, alarms))
    return {
        "auroc": roc_auc_score(gts, preds),
        "aupr": average_precision_score(gts, preds),
        "specificity": tn / (tn + fp),
        "f1_score": np.mean(f1s),
        "ppv": np.mean(precisions),
    }


@pytest.mark.parametrize("seed", range(6))
def test_figures_per_pixel_are_those_of_the_benchmark(seed):
    rng = np.random.default_rng(seed)
    truth = (rng.random(3000) < 0.03).astype(int)
    scores = np.clip(rng.normal(0.2 + 0.3 * truth, 0.15), 0, 1)
    scores = scores.round(2) if seed % 2 else scores  # with ties
    ours, theirs = benchmark_metrics(truth, scores), as_the_benchmark_computes(scores, truth)
    assert ours.pop("fpr95") == pytest.approx(fpr95(truth, scores))
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert set(benchmark_metrics(truth * 0, scores).values()) == {None}
    worst = np.array([0, 0, 1]), np.array([0.9, 0.8, 0.1])  # two thresholds are equally good
    assert benchmark_metrics(*worst)["specificity"] == as_the_benchmark_computes(*worst[::-1])["specificity"]


def test_time_of_frames():
    assert frame_seconds(np.array([990, 1000, 995]), 20.0).tolist() == [0, 0.5, 0.25]
    stamps = 1_700_000_000_000_000_000 + np.array([0, 50_000_000, 100_000_000])
    assert np.allclose(frame_seconds(stamps), [0, 0.05, 0.1])
    assert np.allclose(frame_seconds(stamps // 1000), [0, 0.05, 0.1])  # microseconds
    assert np.allclose(frame_seconds(np.array([0, 50_000, 100_000])), [0, 0.05, 0.1])  # since the start
    for unit in (1, 10**3, 10**6, 10**9):  # a picture every other second
        assert frame_seconds(1_700_000_000 * unit + np.array([0, 2, 4]) * unit).tolist() == [0, 2, 4]
    for since in (1, 1_500_000):  # nanoseconds since the start; the second would be a date in milliseconds
        assert np.allclose(frame_seconds(since * 10**6 + np.array([0, 100, 200]) * 10**6), [0, 0.1, 0.2])
