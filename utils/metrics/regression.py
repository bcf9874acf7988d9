"""Regression metrics per image and per subject, trivial predictors to compare with, and intervals of the age.

Errors are prediction - truth, in the unit of the target. MAE, R2 and r depend on the spread of ages in a
cohort, so reports show the error of the mean and median predictors and the skill beside them.

Every predicted age gets an interval, and can be corrected for the regression towards the mean:

    fitted = fit_intervals(val_rows)                     # by subject: the mean over the images
    low, high = intervals(fitted, preds)                 # contain the true age of about 90% of new people
    corrected = correct_bias(fitted, preds)

The method is split conformal prediction with normalised scores (Lei et al. 2018, JASA 113:1094). The score of
a val person is the error divided by the usual error at that predicted age, a line fitted without that person.
An interval reaches as far as the score that 90% of people from the same population stay below. Its coverage
needs no model of the errors and holds over all people, not for each person; its width follows the line.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WITHIN = (5, 10, 15)
BAND_WIDTHS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
LEVEL = 0.9
RANGE = (0.5, 2.0)  # of the usual error, as shares of the mean error: a line through few people may be wrong
LEAST_SLOPE = 0.2  # of prediction on age: dividing by a smaller one would only amplify noise


def regression_metrics(targets: np.ndarray, preds: np.ndarray) -> dict[str, float | None]:
    """MAE, MSE, RMSE, R2, Pearson r, slope, bias and the share of samples within 5, 10 and 15 units.
    slope: of the least-squares line preds ~ targets. Metrics that constant values leave undefined are None.
    """
    targets, preds = np.asarray(targets, float), np.asarray(preds, float)
    errors = preds - targets
    varied = len(targets) > 1 and np.ptp(targets) > 0
    spread = ((targets - targets.mean()) ** 2).sum()
    covariance = ((targets - targets.mean()) * (preds - preds.mean())).sum()
    both = varied and np.ptp(preds) > 0
    return {
        "mae": float(np.abs(errors).mean()),
        "mse": float((errors**2).mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "r2": float(1 - (errors**2).sum() / spread) if varied else None,
        "pearson_r": float(np.corrcoef(targets, preds)[0, 1]) if both else None,
        "slope": float(covariance / spread) if varied else None,
        "bias": float(errors.mean()),
        **{f"within_{k}": float((np.abs(errors) <= k).mean()) for k in WITHIN},
    }


def subject_means(
    subject_ids: np.ndarray, targets: np.ndarray, preds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(subject ids, targets, preds) with one entry per subject, or per age of a subject that was seen at
    several: preds are the mean over its images. Over different ages a mean would hide opposite errors."""
    (names, person), (ages, age) = (np.unique(v, return_inverse=True) for v in (subject_ids, targets))
    entries, number, counts = np.unique(person * len(ages) + age, return_inverse=True, return_counts=True)
    means = np.bincount(number, np.asarray(preds, float)) / counts
    return names[entries // len(ages)], ages[entries % len(ages)].astype(float), means


def age_bands(targets: np.ndarray) -> tuple[np.ndarray, float]:
    """(band number of each target, band width): the smallest of BAND_WIDTHS for about 10 bands at most."""
    span = float(np.ptp(targets))
    width = next((width for width in BAND_WIDTHS if span / width <= 10), BAND_WIDTHS[-1])
    return np.floor(np.round(np.asarray(targets, float) / width, 9)).astype(int), width  # .6 / .2 is below 3


def trivial_predictions(train_targets: np.ndarray) -> dict[str, float]:
    """The mean and the median of the train targets, as predictions for every sample."""
    return {"train mean": float(np.mean(train_targets)), "train median": float(np.median(train_targets))}


def best_trivial_mae(train_targets: np.ndarray, targets: np.ndarray) -> float:
    """The MAE on `targets` of the better of the train mean and median."""
    guesses, targets = trivial_predictions(train_targets).values(), np.asarray(targets, float)
    return min(float(np.abs(guess - targets).mean()) for guess in guesses)


def ridge_predictions(train_inputs: np.ndarray, train_targets: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Predictions (N,) of a ridge regression for `inputs` (N, G), its penalty by leave-one-out on train."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
    return model.fit(train_inputs, train_targets).predict(inputs)


def limits_of_agreement(targets: Sequence[float], preds: Sequence[float]) -> tuple[float, float, float]:
    """(low, bias, high): mean error -+ 1.96 standard deviations (Bland and Altman 1986)."""
    errors = np.asarray(preds, float) - np.asarray(targets, float)
    bias, reach = float(errors.mean()), 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else 0.0
    return bias - reach, bias, bias + reach


def fit_intervals(rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Plain values for a checkpoint: level, people, reach, line and bias.

    rows: subject_ids, ages and preds of the val images. reach: None with fewer than 1 / (1 - LEVEL) - 1
    people, 9 for 90%; the ages of a person share its weight (Lee et al. 2023, arXiv:2306.06342). line:
    [offset, slope, least, greatest] of the usual error. bias: [offset, slope] of the prediction on the age,
    None if the slope is undefined or below LEAST_SLOPE."""
    names, ages, preds = subject_means(rows["subject_ids"], rows["ages"], rows["preds"])
    _, person, times = np.unique(names, return_inverse=True, return_counts=True)
    errors, count = np.abs(preds - ages), len(times)
    rank = math.ceil(round((count + 1) * LEVEL, 6))
    fitted: dict[str, Any] = {"level": LEVEL, "people": count, "reach": None, "line": None, "bias": None}
    if rank <= count and errors.max() > 0:
        others = [person != k for k in range(count)]
        usual = [usual_error(fit_line(errors[o], preds[o]), preds[~o]) for o in others]
        scores = errors / np.concatenate(usual)  # entries are sorted by person
        order = np.argsort(scores)
        weight = np.cumsum(1 / times[person[order]])
        fitted["reach"] = float(scores[order][np.searchsorted(weight, rank - 1e-6)])
        fitted["line"] = fit_line(errors, preds)
    if count > 2 and np.ptp(ages) > 0:
        slope, offset = np.polyfit(ages, preds, 1).tolist()
        fitted["bias"] = [offset, slope] if slope >= LEAST_SLOPE else None
    return fitted


def fit_line(errors: np.ndarray, preds: np.ndarray) -> list[float]:
    """[offset, slope, least, greatest] of the absolute error as a function of the prediction."""
    mean, spread = float(errors.mean()), float(((preds - preds.mean()) ** 2).sum())
    slope = float(((preds - preds.mean()) * errors).sum()) / spread if spread > 0 else 0.0
    least, greatest = (max(share * mean, 1e-9) for share in RANGE)
    return [mean - slope * float(preds.mean()), slope, least, greatest]


def usual_error(line: list[float], preds: np.ndarray) -> np.ndarray:
    offset, slope, least, greatest = line
    return np.clip(offset + slope * np.asarray(preds, float), least, greatest)


def intervals(fitted: Mapping[str, Any] | None, preds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of each prediction; NaN if val had too few people. low is cut off at age 0."""
    preds = np.asarray(preds, float)
    if not fitted or fitted["reach"] is None:
        return np.full(len(preds), np.nan), np.full(len(preds), np.nan)
    reach = fitted["reach"] * usual_error(fitted["line"], preds)
    return np.maximum(preds - reach, np.minimum(preds, 0)), preds + reach


def correct_bias(fitted: Mapping[str, Any] | None, preds: np.ndarray) -> np.ndarray | None:
    """Predictions without the regression towards the mean seen on val: (pred - offset) / slope (Cole et al.
    2018, Mol Psychiatry 23:1385). The true age is not used. None if val gave no slope."""
    if not fitted or fitted["bias"] is None:
        return None
    offset, slope = fitted["bias"]
    return (np.asarray(preds, float) - offset) / slope
