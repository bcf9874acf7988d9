"""Classification metrics, and the reference models that the trained model is compared with.

Labels are integers. A metric that is undefined (one class only) is None, never 0 or NaN.
"""

from collections.abc import Sequence

import numpy as np


def choose_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the best F1 of the positive class: predict 1 where score >= threshold.
    It lies midway to the next lower score, so that rounding moves no sample across it. One class: 0.5."""
    if len(np.unique(labels)) < 2:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(labels[order] == 1)
    last_of_ties = np.flatnonzero(np.append(np.diff(sorted_scores) != 0, True))
    f1 = 2 * hits[last_of_ties] / (last_of_ties + 1 + hits[-1])
    cut = last_of_ties[np.argmax(f1)]
    below = sorted_scores[cut + 1] if cut + 1 < len(scores) else sorted_scores[cut]
    return float((float(sorted_scores[cut]) + float(below)) / 2)


def binary_metrics(labels: np.ndarray, ranks: np.ndarray, preds: np.ndarray) -> dict[str, float | None]:
    """AP and AUROC of `ranks`; F1, balanced accuracy, accuracy, precision and recall of `preds` (0 or 1).
    ranks (N,): better logits than probabilities, which tie where they saturate."""
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    precision, recall, f1, _ = precision_recall_fscore_support(labels, preds, labels=[0, 1], zero_division=0)
    positive, both = np.any(labels == 1), len(np.unique(labels)) == 2
    return {
        "ap": float(average_precision_score(labels, ranks)) if both else None,
        "auroc": float(roc_auc_score(labels, ranks)) if both else None,
        "f1": float(f1[1]) if positive else None,
        "balanced_accuracy": float(recall.mean()) if both else None,
        "accuracy": float(np.mean(labels == preds)),
        "precision": float(precision[1]) if np.any(preds) else None,
        "recall": float(recall[1]) if positive else None,
    }


def multiclass_metrics(labels: np.ndarray, ranks: np.ndarray, names: Sequence[str]) -> dict:
    """Macro F1 and balanced accuracy over the classes present, accuracy, and metrics per class.
    ranks (N, K): log odds or probabilities; the highest is the prediction. The metrics of an absent class are
    None and enter no mean."""
    from sklearn import metrics

    preds, present, classes = ranks.argmax(axis=1), np.unique(labels), range(len(names))
    found = metrics.precision_recall_fscore_support(labels, preds, labels=classes, zero_division=0)
    precision, recall, f1, support = found
    rows = {}
    for k, name in enumerate(names):
        rows[name] = dict.fromkeys(("precision", "recall", "f1", "ap")) | {"support": int(support[k])}
        if k in present:
            ap = metrics.average_precision_score(labels == k, ranks[:, k])
            figures = {"precision": precision[k], "recall": recall[k], "f1": f1[k], "ap": ap}
            rows[name] |= {key: float(value) for key, value in figures.items()}
    means = {"macro_f1": float(f1[present].mean()), "balanced_accuracy": float(recall[present].mean())}
    return means | {"accuracy": float(np.mean(labels == preds)), "per_class": rows}


def confusion(
    labels: np.ndarray, preds: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Counts (classes, classes), rows = truth, columns = prediction; weights (N,): samples each stands for.
    (scikit-learn takes a hundred times as long, and choosing a threshold needs a hundred matrices.)"""
    counts = np.bincount(labels * classes + preds, weights, classes * classes)
    return counts.reshape(classes, classes).astype(int)


def trivial_guesses(train_labels: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Class probabilities (count,) of guesses that ignore the sample."""
    prior = np.bincount(train_labels, minlength=count) / len(train_labels)
    return {
        "majority class": np.eye(count)[prior.argmax()],
        "uniform guess": np.full(count, 1 / count),
        "guess by train shares": prior,
    }


def reference_scores(
    train_inputs: np.ndarray, train_labels: np.ndarray, inputs: np.ndarray, classes: int = 2,
    weights: np.ndarray | None = None, names: Sequence[str] = ("logistic regression", "boosted trees"),
) -> dict[str, np.ndarray]:  # fmt: skip
    """Class probabilities (N, classes) of the references in `names` for `inputs` (N, G); weights: of train.
    NaN means unknown. The trees (HistGradientBoosting) take it as it is; for logistic regression it becomes
    the train mean and an indicator column. Columns without a known value in train are dropped."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = np.isfinite(train_inputs).any(axis=0)
    train_inputs, inputs = train_inputs[:, known], inputs[:, known]
    scaled = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()).fit(train_inputs)
    models = {
        "logistic regression": (LogisticRegression(max_iter=1000), scaled.transform),
        "boosted trees": (HistGradientBoostingClassifier(random_state=0), np.asarray),
    }
    scores = {}
    for name in names:
        model, prepare = models[name]
        model.fit(prepare(train_inputs), train_labels, sample_weight=weights)
        scores[name] = np.zeros((len(inputs), classes))
        found = model.predict_proba(prepare(inputs))
        scores[name][:, model.classes_] = found  # a class absent from train keeps 0
    return scores
