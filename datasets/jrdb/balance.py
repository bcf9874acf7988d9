"""Classes of uneven size in stage 2: resampling the train split, and weights for what imbalance is left."""

import numpy as np


def balance_classes(labels: np.ndarray, strategy: str, seed: int) -> np.ndarray:
    """Sample positions, in rising order, of a more even train split; labels (N,) ints.

    oversample: every class is drawn up to at least half the size of the largest (each sample at least once).
    undersample: no class keeps more than twice the size of the smallest. none: all samples as they are.
    """
    if strategy == "none":
        return np.arange(len(labels))
    rng = np.random.default_rng([seed, 2])
    classes, counts = np.unique(labels, return_counts=True)
    chosen = []
    for label, count in zip(classes, counts, strict=True):
        mine = np.flatnonzero(labels == label)
        if strategy == "oversample":
            mine = np.concatenate([mine, rng.choice(mine, max(0, counts.max() // 2 - count))])
        else:
            mine = rng.choice(mine, min(count, 2 * counts.min()), replace=False)
        chosen.append(mine)
    return np.sort(np.concatenate(chosen))


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Inverse frequencies whose mean over the samples is 1 (scikit-learn's "balanced"); absent classes: 0."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
