"""Calibrated scores are probabilities: .5 means one in two, for the mixture of classes in val.

Training samples and weights the classes, and networks are overconfident on new data. A scale fitted on val
corrects both without changing any ranking: Platt scaling for one logit (Platt 1999, with his smoothed
targets), a temperature for several classes and for a logit whose offset must stay (Guo et al. 2017).
Labels are integers (N,); logits are those of the positive class (N,) or of each class (N, K).
"""

from collections.abc import Callable, Sequence

import numpy as np

BINS = 15  # of equal width, for the calibration error and the reliability diagram
SCALES = (0.02, 20.0)  # bounds of the factor on a logit; a fit that ends at one gets a warning


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits, float)))


def calibrated(logits: np.ndarray, slope: float, offset: float) -> np.ndarray:
    """Log odds (N,) in double precision; their sigmoid is the score."""
    return slope * np.asarray(logits, float) + offset


def log_odds(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Log odds (N, K) of each class against the others, from logits (N, K); softmax would saturate."""
    from scipy.special import logsumexp

    logits = np.asarray(logits, float) / temperature
    others = [np.delete(logits, k, axis=1) for k in range(logits.shape[1])]
    return logits - np.stack([logsumexp(rest, axis=1) for rest in others], axis=1)


def fit_platt(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """slope > 0 and offset that minimise the log-loss of sigmoid(slope * logit + offset); 1, 0 for one class.
    Targets are (positives + 1) / (positives + 2) and 1 / (negatives + 2), so that no slope is infinite."""
    from scipy.optimize import minimize

    if len(np.unique(labels)) < 2:
        return {"slope": 1.0, "offset": 0.0}
    positives = int(labels.sum())
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    logits = np.asarray(logits, float)

    def log_loss(scale: np.ndarray) -> tuple[float, np.ndarray]:
        slope = np.exp(scale[0])
        scaled = slope * logits + scale[1]
        wrong = sigmoid(scaled) - targets
        loss = np.logaddexp(0, scaled) - targets * scaled
        return loss.mean(), np.array([(wrong * slope * logits).mean(), wrong.mean()])

    bounds = [tuple(np.log(SCALES)), (None, None)]
    found = minimize(log_loss, [0.0, 0.0], jac=True, bounds=bounds, method="L-BFGS-B", tol=1e-12).x
    return {"slope": float(np.exp(found[0])), "offset": float(found[1])}


def fit_slope(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """A temperature as slope, offset 0: for a logit that is 0 where both classes are equally likely."""
    return {"slope": 1 / fit_temperature(labels, logits)["temperature"], "offset": 0.0}


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """temperature T > 0 that minimises the log-loss of sigmoid or softmax(logits / T); 1 for one class."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if len(np.unique(labels)) < 2:
        return {"temperature": 1.0}
    logits = np.asarray(logits, float)
    if logits.ndim == 1:
        logits = np.stack([np.zeros(len(logits)), logits], axis=1)
    right = logits[np.arange(len(labels)), labels]

    def log_loss(log_t: float) -> float:
        return float((logsumexp(logits / np.exp(log_t), axis=1) - right / np.exp(log_t)).mean())

    found = minimize_scalar(log_loss, bounds=-np.log(SCALES[::-1]), method="bounded").x
    return {"temperature": float(np.exp(found))}


def scale_warning(scale: float, name: str) -> str:
    """What it means that a slope (or inverse temperature) is at a bound of its fit; '' if it is not."""
    if SCALES[0] * 1.01 < scale < SCALES[1] / 1.01:
        return ""
    why = "say nothing about val" if scale < 1 else "separate val (almost) perfectly, or hardly differ"
    advice = "use the order of the scores, not their values"
    return f"the {name} is at the bound of its fit: the logits {why}; {advice}"


def calibration_bins(labels: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """count, mean score and share of positives, (BINS,) each, of the scores (N,) in bins; NaN if empty.
    With several classes (N, K): of the predicted class, where "positive" means that it is right."""
    if scores.ndim == 2:
        labels, scores = (labels == scores.argmax(axis=1)).astype(int), scores.max(axis=1)
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    found = {"count": np.bincount(place, minlength=BINS)}
    for name, values in {"score": scores, "share": labels}.items():
        with np.errstate(invalid="ignore"):
            found[name] = np.bincount(place, values, BINS) / found["count"]
    return found


def calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Expected calibration error: |share of positives - mean score| over equal bins, weighted by counts."""
    bins = calibration_bins(labels, scores)
    gaps = np.abs(bins["share"] - bins["score"]) * bins["count"]
    return float(np.nansum(gaps) / len(labels))


def brier_score(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean squared error of the probabilities, summed over the classes if there are several (Brier 1950)."""
    if scores.ndim == 1:
        return float(((scores - labels) ** 2).mean())
    return float(((scores - np.eye(scores.shape[1])[labels]) ** 2).sum(axis=1).mean())


def cross_fitted(
    labels: np.ndarray, logits: np.ndarray, groups: np.ndarray, fit: Callable, scale: Callable
) -> np.ndarray | None:
    """Scores of the split that a scale is fitted on, each group scaled by a fit without it (by folds).
    scale(logits, **fit(labels, logits)) gives log odds. None if there is only one group."""
    from sklearn.model_selection import GroupKFold

    folds = min(5, len(np.unique(groups)))
    if folds < 2:
        return None
    scores = np.empty(logits.shape)
    for others, mine in GroupKFold(folds).split(logits, groups=groups):
        scores[mine] = sigmoid(scale(logits[mine], **fit(labels[others], logits[others])))
    return scores


def probability_figures(
    labels: np.ndarray, scores: np.ndarray, prior: Sequence[float] | float
) -> dict[str, float]:
    """calibration_error, brier, and brier_prior: the brier of always answering val's class shares `prior`."""
    constant = np.full(len(labels), prior) if scores.ndim == 1 else np.tile(prior, (len(labels), 1))
    return {
        "calibration_error": calibration_error(labels, scores),
        "brier": brier_score(labels, scores),
        "brier_prior": brier_score(labels, constant),
    }
