"""Class imbalance in stage 2: resample the train split, and weight the loss for the remaining imbalance."""

import numpy as np


def balance_classes(labels: np.ndarray, strategy: str, seed: int) -> np.ndarray:
    """Ascending sample indices of a more balanced train split; labels (N,) ints.

    oversample: repeat random samples until every class has at least half the size of the largest.
    undersample: drop random samples until no class has more than twice the size of the smallest."""
    if strategy == "none":
        return np.arange(len(labels))
    rng = np.random.default_rng([seed, 2])
    classes, counts = np.unique(labels, return_counts=True)
    chosen = []
    for label, count in zip(classes, counts, strict=True):
        members = np.flatnonzero(labels == label)
        if strategy == "oversample":
            chosen += [members, rng.choice(members, max(0, counts.max() // 2 - count))]
        else:
            chosen.append(rng.choice(members, min(count, 2 * counts.min()), replace=False))
    return np.sort(np.concatenate(chosen))


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Inverse class frequencies, on average 1 over the samples (scikit-learn's "balanced"); 0 if absent."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0.0)
