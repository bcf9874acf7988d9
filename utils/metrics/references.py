"""Reference models of scikit-learn on the numbers a model sees: what must be beaten to be worth a GPU."""

from collections.abc import Sequence

import numpy as np


def reference_scores(
    train_inputs: np.ndarray, train_labels: np.ndarray, inputs: np.ndarray, classes: int = 2,
    weights: np.ndarray | None = None, names: Sequence[str] = ("logistic regression", "boosted trees"),
) -> dict[str, np.ndarray]:  # fmt: skip
    """Class probabilities (N, classes) of the references in `names` for `inputs` (N, G); weights: of train.

    The trees are HistGradientBoosting. NaN means not known: boosted trees take it as it is; for logistic
    regression it becomes the train mean beside an indicator column. Columns that are NaN throughout the train
    split are dropped.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = np.isfinite(train_inputs).any(axis=0)
    train_inputs, inputs = train_inputs[:, known], inputs[:, known]
    models = {
        "logistic regression": make_pipeline(
            SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression(max_iter=1000)
        ),
        "boosted trees": HistGradientBoostingClassifier(random_state=0),
    }
    scores = {}
    for name in names:
        last = getattr(models[name], "steps", [("", None)])[-1][0]
        weight = f"{last}__sample_weight" if last else "sample_weight"  # a pipeline hands it to its last step
        model = models[name].fit(train_inputs, train_labels, **{weight: weights})
        scores[name] = np.zeros((len(inputs), classes))
        scores[name][:, model.classes_] = model.predict_proba(inputs)  # a class absent from train keeps 0
    return scores
