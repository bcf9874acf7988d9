"""An interval around every person's predicted age, and what is left of the regression towards the mean.

    fitted = fit_intervals(val_rows)                     # by person: the mean over the images
    low, high = intervals(fitted, preds)                 # hold the true age of about 90% of new people

Split conformal prediction with normalised scores (Lei et al. 2018, JASA 113:1094): of every val person the
error divided by the error usual at that predicted age, which is a line fitted without that person. The
interval reaches as far as the score that 90% of people from the same population stay below, so its coverage
needs no model of the errors; its width follows the line. It is a promise over people, not for each one.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from utils.metrics.regression import subject_means

LEVEL = 0.9
RANGE = (0.5, 2.0)  # of the mean error: a line through few people is not followed further
LEAST_SLOPE = 0.2  # of prediction on age: below, to divide by it makes noise of noise


def fit_intervals(rows: Mapping[str, np.ndarray], level: float = LEVEL) -> dict[str, Any]:
    """Plain values for a checkpoint: level, people, reach, line and bias.

    rows: subject_ids, ages and preds of the val images. reach: None where N is below 1 / (1 - level) - 1, 9
    for 90%. line: [offset, slope, least, greatest] of the usual error. bias: [offset, slope] of the
    prediction on the age, None where there is too little of a slope.
    """
    _, ages, preds = subject_means(rows["subject_ids"], rows["ages"], rows["preds"])
    errors, count = np.abs(preds - ages), len(ages)
    rank = math.ceil(round((count + 1) * level, 6))
    fitted: dict[str, Any] = {"level": level, "people": count, "reach": None, "line": None, "bias": None}
    if rank <= count and errors.max() > 0:
        others = [np.arange(count) != k for k in range(count)]
        usual = [usual_error(fit_line(errors[o], preds[o]), preds[~o])[0] for o in others]
        fitted["reach"] = float(np.sort(errors / usual)[rank - 1])
        fitted["line"] = fit_line(errors, preds)
    if count > 2 and np.ptp(ages) > 0:
        slope, offset = np.polyfit(ages, preds, 1).tolist()
        fitted["bias"] = [offset, slope] if slope >= LEAST_SLOPE else None
    return fitted


def fit_line(errors: np.ndarray, preds: np.ndarray) -> list[float]:
    """[offset, slope, least, greatest] of the absolute error at a prediction."""
    mean, spread = float(errors.mean()), float(((preds - preds.mean()) ** 2).sum())
    slope = float(((preds - preds.mean()) * errors).sum()) / spread if spread > 0 else 0.0
    least, greatest = (max(share * mean, 1e-9) for share in RANGE)
    return [mean - slope * float(preds.mean()), slope, least, greatest]


def usual_error(line: list[float], preds: np.ndarray) -> np.ndarray:
    """The error expected at each prediction."""
    offset, slope, least, greatest = line
    return np.clip(offset + slope * np.asarray(preds, float), least, greatest)


def intervals(fitted: Mapping[str, Any] | None, preds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of each prediction; NaN where val had too few people. No age is below 0."""
    preds = np.asarray(preds, float)
    if not fitted or fitted["reach"] is None:
        return np.full(len(preds), np.nan), np.full(len(preds), np.nan)
    reach = fitted["reach"] * usual_error(fitted["line"], preds)
    return np.maximum(preds - reach, np.minimum(preds, 0)), preds + reach


def correct_bias(fitted: Mapping[str, Any] | None, preds: np.ndarray) -> np.ndarray | None:
    """Predictions without the regression towards the mean that val shows, (pred - offset) / slope (Cole et
    al. 2018, Mol Psychiatry 23:1385); the true age is not used. None where val does not give a slope."""
    if not fitted or fitted["bias"] is None:
        return None
    offset, slope = fitted["bias"]
    return (np.asarray(preds, float) - offset) / slope
