"""Both stages judged together: six outcomes (none, or one of the types) for every pair of every frame.

Stage 1 says who interacts, stage 2 how. A pair beyond the distance limit counts as predicted "none" with
probability 0: if two people interact from that far apart, the whole system has missed them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.metrics import average_precision_score

from utils.metrics.calibration import calibrated, log_odds, sigmoid
from utils.metrics.classification import confusion
from utils.metrics.verdict import GroupJackknife, Verdict, judge

NONE = "none"


@dataclass
class Outcomes:
    """Rows that together represent every pair of every frame; each row stands for `weight` pairs.
    truth (N,): 0 = none, k + 1 = type k. p_interaction (N,): -1 beyond the limit; p_types (N, K). sequences
    (N,) and frames (N,): the groups that the jackknife leaves out."""

    truth: np.ndarray
    p_interaction: np.ndarray
    p_types: np.ndarray
    weight: np.ndarray
    sequences: np.ndarray
    frames: np.ndarray

    def outcomes(self, threshold: float) -> np.ndarray:
        return np.where(self.p_interaction >= threshold, self.p_types.argmax(axis=1) + 1, 0)

    def macro_f1(self, threshold: float) -> float:
        """Mean F1 over the outcomes that occur in the truth."""
        return macro_f1(self.counts(self.outcomes(threshold)))

    def counts(self, guess: np.ndarray) -> np.ndarray:
        """The confusion matrix (K + 1, K + 1) of predicted outcomes (N,)."""
        return confusion(self.truth, guess, self.p_types.shape[1] + 1, self.weight)


def every_pair(part: Any, p_interaction: np.ndarray, p_types: np.ndarray) -> Outcomes:
    """All pairs of all frames of a JRDBPairDataset, with these predictions (N,) and (N, K) for its samples.
    Left out are pairs without a true outcome: ambiguous pairs, and interacting ones of unknown type."""
    typed = ((part.labels == 0) & ~part.ambiguous) | (part.types >= 0)
    far = part.far_types >= 0
    people = np.bincount(part.people_frames, minlength=len(part.frame_keys))  # (F,) in each frame
    listed = np.concatenate([part.frames[~part.ambiguous], part.far_frames, part.ambiguous_frames])
    rest = people * (people - 1) // 2 - np.bincount(listed, minlength=len(people))  # far, not annotated
    # A row per pair in range, a row per annotated pair beyond the limit, and a row per frame for the rest
    no_type, seen = np.zeros(len(rest), np.int64), int(typed.sum())
    truth = np.concatenate([part.types[typed] + 1, part.far_types[far] + 1, no_type])
    frames = np.concatenate([part.frames[typed], part.far_frames[far], np.arange(len(rest))])
    weight = np.concatenate([np.ones(seen + far.sum()), rest])
    who, how = np.full(len(truth), -1.0), np.zeros((len(truth), p_types.shape[1]))
    who[:seen], how[:seen] = p_interaction[typed], p_types[typed]
    sequences = part.frame_sequences[frames]
    return Outcomes(truth, p_interaction=who, p_types=how, weight=weight, sequences=sequences, frames=frames)


def pair_probabilities(
    who: np.ndarray, how: np.ndarray | None, state: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """p_interaction (N,) and p_types (N, K) from logits (N, 2) and (N, K), scaled as the checkpoint says.
    how: None for a stage 1 run, whose p_types (N, 1) are NaN."""
    p_interaction = sigmoid(calibrated(log_odds(who)[:, 1], **state["calibration"]))
    if how is None:
        return p_interaction, np.full((len(who), 1), np.nan)
    return p_interaction, softmax(how.astype(float) / state["temperature"], axis=1)


def best_threshold(rows: Outcomes) -> float:
    """The threshold on p(interaction), of 100 quantiles, with the best macro F1 over the six outcomes."""
    scored = rows.p_interaction[rows.p_interaction >= 0]
    thresholds = np.unique(np.quantile(scored, np.linspace(0, 1, 100)))
    return float(max(thresholds, key=rows.macro_f1))


def macro_f1(counts: np.ndarray) -> float:
    """Mean F1 of a confusion matrix (K, K) over the classes that occur in the truth."""
    both = counts.sum(axis=1) + counts.sum(axis=0)
    return float((2 * np.diag(counts) / np.maximum(both, 1e-9))[counts.any(axis=1)].mean())


def end_to_end(
    rows: Outcomes, threshold: float, types: Sequence[str], stage1_threshold: float, most_frequent: int,
    split: str, truncated: bool,
) -> tuple[Verdict, dict]:  # fmt: skip
    """The verdict, and macro F1 with its interval, accuracy, a row per outcome and the confusion matrix.
    The verdict compares macro F1 with a trivial answer: the pairs that stage 1 finds at its own threshold,
    all called the most frequent type of train. A type's AP ranks all pairs by p(interaction) * p(type)."""
    names = [NONE, *types]
    guess = rows.outcomes(threshold)
    trivial = np.where(rows.p_interaction >= stage1_threshold, most_frequent + 1, 0)
    jackknife, one_hot = GroupJackknife(rows.sequences, fallback=rows.frames), np.eye(len(names))
    model, naive = (jackknife.macro_f1(rows.truth, one_hot[k], rows.weight) for k in (guess, trivial))
    naive_name = f"stage 1's pairs, always {types[most_frequent]}"
    verdict = judge(
        "macro F1 of six outcomes", model, naive, naive_name, split, jackknife, unit="sequences",
        truncated=truncated,
    )  # fmt: skip
    counts = rows.counts(guess)
    hits, support, guessed = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    scores = rows.p_interaction[:, None] * rows.p_types  # 0 beyond the limit
    per_outcome: dict[str, Mapping] = {}
    for k, name in enumerate(names):
        true, ap = support[k] > 0, None
        if true and k:
            ap = float(average_precision_score(rows.truth == k, scores[:, k - 1], sample_weight=rows.weight))
        per_outcome[name] = {
            "support": int(support[k]),
            "precision": float(hits[k] / guessed[k]) if guessed[k] else None,
            "recall": float(hits[k] / support[k]) if true else None,
            "f1": float(2 * hits[k] / (support[k] + guessed[k])) if true else None, "ap": ap,
        }  # fmt: skip
    return verdict, {
        "macro_f1": macro_f1(counts), "accuracy": float(hits.sum() / counts.sum()),
        "confidence": jackknife.intervals(macro_f1=model),
        "baselines": {naive_name: {"macro_f1": macro_f1(rows.counts(trivial))}},
        "per_outcome": per_outcome, "confusion": counts,
    }  # fmt: skip
