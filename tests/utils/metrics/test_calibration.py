"""Scales that make probabilities of scores: recovered from known ones, checked by hand and scikit-learn."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from utils.metrics.calibration import (
    SCALES,
    brier_score,
    calibration_bins,
    calibration_error,
    cross_fitted,
    fit_platt,
    fit_slope,
    fit_temperature,
    log_odds,
    probability_figures,
    scale_warning,
    sigmoid,
)  # fmt: skip

RNG = np.random.default_rng(0)
TRUE = RNG.normal(-1, 2, 20_000)  # logits that are log odds
LABELS = (RNG.random(20_000) < sigmoid(TRUE)).astype(int)


def test_platt_recovers_slope_and_offset_as_logistic_regression_does():
    """A model trained on balanced samples that is three times too sure: 3 * (x + 1.5)."""
    logits = 3 * (TRUE + 1.5)
    found = fit_platt(LABELS, logits)
    assert (found["slope"], found["offset"]) == pytest.approx((1 / 3, -1.5), abs=0.05)
    theirs = LogisticRegression(C=1e6).fit(logits[:, None], LABELS)
    ours = found["slope"], found["offset"]
    assert ours == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), abs=0.01)
    scores = sigmoid(found["slope"] * logits + found["offset"])
    assert calibration_error(LABELS, scores) < 0.02 < 0.15 < calibration_error(LABELS, sigmoid(logits))
    figures = probability_figures(LABELS, scores, LABELS.mean())
    assert figures["brier"] == pytest.approx(brier_score_loss(LABELS, scores))
    assert figures["brier"] < figures["brier_prior"]
    assert figures["brier_prior"] == pytest.approx(LABELS.mean() * (1 - LABELS.mean()))


def test_a_scale_keeps_every_ranking():
    found = fit_platt(LABELS[:500], -TRUE[:500])  # worse than chance on val: not turned round
    assert found["slope"] > 0 and scale_warning(found["slope"], "slope")
    scaled = found["slope"] * TRUE + found["offset"]
    assert roc_auc_score(LABELS, scaled) == pytest.approx(roc_auc_score(LABELS, TRUE), abs=1e-12)


def test_temperature_of_one_logit_and_of_several_classes():
    assert fit_temperature(LABELS, 3 * TRUE)["temperature"] == pytest.approx(3, rel=0.05)
    assert fit_slope(LABELS, 3 * TRUE) == {"slope": pytest.approx(1 / 3, rel=0.05), "offset": 0.0}
    logits = RNG.normal(0, 2, (20_000, 4))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < RNG.random((20_000, 1))).sum(axis=1)
    assert fit_temperature(labels, 2 * logits)["temperature"] == pytest.approx(2, rel=0.05)
    assert sigmoid(log_odds(2 * logits, 2.0)) == pytest.approx(softmax(logits, axis=1))
    assert fit_temperature(np.zeros(5, int), TRUE[:5])["temperature"] == 1.0
    assert fit_platt(np.zeros(5, int), TRUE[:5]) == {"slope": 1.0, "offset": 0.0}


def test_a_scale_at_its_bound_is_said():
    """Separated perfectly, the temperature wants 0; labels that belong to no input want infinity."""
    labels = np.arange(40) % 2
    assert fit_temperature(labels, labels - 0.5)["temperature"] == pytest.approx(1 / SCALES[1], rel=0.01)
    assert "separate val (almost) perfectly" in scale_warning(SCALES[1], "temperature")
    upside_down = fit_temperature(LABELS, -TRUE)["temperature"]
    assert upside_down == pytest.approx(1 / SCALES[0], rel=0.01)
    assert "say nothing about val" in scale_warning(1 / upside_down, "temperature")
    unmoved = fit_platt(LABELS, 1e-3 * TRUE)["slope"]  # a network that has hardly moved separates nothing
    assert "hardly differ" in scale_warning(unmoved, "slope")
    assert scale_warning(1.7, "slope") == ""
    assert fit_platt(labels, labels - 0.5)["slope"] < SCALES[1]  # Platt's targets keep it finite


def test_platts_targets_keep_a_doubt_about_three_samples():
    """Two positives at 1 and a negative at 0: their scores become the targets 3/4 and 1/3."""
    found = fit_platt(np.array([1, 1, 0]), np.array([1.0, 1.0, 0.0]))
    assert sigmoid(found["offset"] + found["slope"] * np.array([1, 0])) == pytest.approx([3 / 4, 1 / 3])


def test_no_group_is_scaled_by_a_fit_that_has_seen_it():
    groups = np.repeat(np.arange(2), 10_000)
    logits = np.where(groups == 0, TRUE, 4 * TRUE)  # one group is four times surer
    scores = cross_fitted(LABELS, logits, groups, fit_slope, lambda logits, slope, offset: slope * logits)
    assert scores[:10] == pytest.approx(sigmoid(TRUE[:10] / 4), abs=0.05)
    assert scores[-10:] == pytest.approx(sigmoid(4 * TRUE[-10:]), abs=0.05)
    assert cross_fitted(LABELS, logits, 0 * groups, fit_slope, None) is None


def test_calibration_error_and_brier_by_hand():
    labels, scores = np.array([1, 0, 1, 1]), np.array([0.9, 0.9, 0.1, 1.0])
    # bins of 1/15: {.9, .9} is one, {1.0} the last, {.1} another
    assert calibration_bins(labels, scores)["count"].tolist() == [0, 1] + [0] * 11 + [2, 1]
    assert calibration_error(labels, scores) == pytest.approx((2 * abs(0.5 - 0.9) + 0.9 + 0) / 4)
    kinds, chances = np.array([0, 1]), np.array([[0.8, 0.2, 0.0], [0.6, 0.3, 0.1]])
    assert calibration_error(kinds, chances) == pytest.approx((0.2 + 0.6) / 2)  # right at .8, wrong at .6
    assert brier_score(kinds, chances) == pytest.approx((0.04 + 0.04 + 0.36 + 0.49 + 0.01) / 2)
