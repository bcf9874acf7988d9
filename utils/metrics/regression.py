"""Figures of a regression: one value per image, averaged per subject, and judged beside trivial predictors.

Errors are prediction - truth, in the unit of the target. MAE, R2 and r depend on how far apart the ages of a
cohort are, so the error of the mean and median predictors and the skill always stand beside them.
"""

from collections.abc import Sequence

import numpy as np

WITHIN = (5, 10, 15)
BAND_WIDTHS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def regression_metrics(targets: np.ndarray, preds: np.ndarray) -> dict[str, float | None]:
    """MAE, MSE, RMSE, R2, Pearson r, slope, bias and the share of samples within 5, 10 and 15 units.

    slope: of the least-squares line preds ~ targets. What is undefined for constant values is None.
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
    """(subject ids, targets, preds) with one entry per subject: the mean over its images."""
    names, number, counts = np.unique(subject_ids, return_inverse=True, return_counts=True)
    means = [np.bincount(number, np.asarray(values, float)) / counts for values in (targets, preds)]
    return names, *means


def age_metrics(rows: dict[str, np.ndarray]) -> dict[str, float | None]:
    """`regression_metrics` per image, and subject_mae, of rows with ages, preds and subject_ids (N,)."""
    _, ages, preds = subject_means(rows["subject_ids"], rows["ages"], rows["preds"])
    subject_mae = float(np.abs(preds - ages).mean())
    return regression_metrics(rows["ages"], rows["preds"]) | {"subject_mae": subject_mae}


def age_bands(targets: np.ndarray) -> tuple[np.ndarray, float]:
    """(number of the band each target is in, their width): decades, or what gives 3 to 10 bands."""
    span = float(np.ptp(targets))
    width = next((width for width in BAND_WIDTHS if span / width <= 10), BAND_WIDTHS[-1])
    return np.floor(np.asarray(targets, float) / width).astype(int), width


def trivial_predictions(train_targets: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """What the mean and the median of the train part predict for `count` samples."""
    values = {"train mean": np.mean(train_targets), "train median": np.median(train_targets)}
    return {name: np.full(count, float(value)) for name, value in values.items()}


def best_trivial_mae(train_targets: np.ndarray, targets: np.ndarray) -> float:
    """The lower MAE on `targets` of the train part's mean and median."""
    guesses = trivial_predictions(train_targets, len(targets)).values()
    return min(float(np.abs(guess - targets).mean()) for guess in guesses)


def limits_of_agreement(targets: Sequence[float], preds: Sequence[float]) -> tuple[float, float, float]:
    """(low, bias, high): mean error -+ 1.96 standard deviations (Bland and Altman 1986)."""
    errors = np.asarray(preds, float) - np.asarray(targets, float)
    bias, reach = float(errors.mean()), 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else 0.0
    return bias - reach, bias, bias + reach
