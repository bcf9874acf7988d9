"""Which pairs of a sequence a run takes: distance limit, groups, negatives, from the flags in PairRules."""

from dataclasses import dataclass

import numpy as np

from datasets.jrdb import pairs as geometry
from datasets.jrdb.labels import Sequence
from utils.run.errors import CommandError

FEATURE_SETS = ("crops+geometry", "crops", "geometry")
TASKS = ("interaction", "type")


@dataclass
class PairRules:
    """Which pairs are taken: the flags of the same names, see train_stage1.py --help."""

    distance_multiplier: float = 3.0
    distance_norm: str = "max"
    use_group_sampling: bool = True
    max_group_samples_ratio: float = 1.0
    infer_group_pairs: bool = True
    max_negatives_per_frame: int = 5
    stage1_balance_ratio: float = 1.0
    frame_stride: int = 1
    history_seconds: int = 5
    seed: int = 42


@dataclass
class SequencePairs:
    """The P pairs of a sequence, in the frames a run uses, that are near or in one group; lower row first."""

    total: int  # pairs of these frames, near or not
    frames: np.ndarray  # (F,) int64 indices of the frames used, into sequence.keys
    first: np.ndarray  # (P,) int64 rows
    second: np.ndarray
    frame: np.ndarray  # (P,) int64 index into sequence.keys
    types: np.ndarray  # (P,) int64 class; -1 annotated without a type; -2 not annotated
    in_range: np.ndarray  # (P,) bool
    in_range_swapped: np.ndarray  # (P,) bool, the decision with the two people named in the other order
    same_interaction_group: np.ndarray  # (P,) bool, connected by annotated pairs
    same_social_group: np.ndarray  # (P,) bool
    group: np.ndarray  # (P,) int64 interaction group of the first person
    group_sizes: np.ndarray  # people in each interaction group
    draws: np.ndarray  # (P,) uint64

    @property
    def annotated(self) -> np.ndarray:
        return self.types > -2

    @property
    def ambiguous(self) -> np.ndarray:
        """In one group, yet not annotated: neither a positive nor a negative."""
        return ~self.annotated & (self.same_interaction_group | self.same_social_group)


def find_pairs(sequence: Sequence, rules: PairRules) -> SequencePairs:
    """The pairs of a sequence in range (named in either order) or in one group, with what decides on them.

    Most pairs are neither. Groups are built per frame from the annotated pairs.
    """
    frame_of_row = sequence.frame_of_row()
    first, second = geometry.all_pairs(sequence.starts)
    types = np.full(len(first), -2, np.int64)
    types[geometry.pair_positions(sequence.starts, sequence.pairs)] = sequence.types
    used = np.arange(len(sequence.keys)) % rules.frame_stride == 0
    if rules.frame_stride > 1:
        keep = used[frame_of_row[first]]
        first, second, types = first[keep], second[keep], types[keep]
    columns = np.ascontiguousarray(sequence.boxes.T)  # gathered and computed with twice as fast as rows
    total, a, b = len(first), columns.take(first, 1).T, columns.take(second, 1).T
    limit = sequence.width, rules.distance_multiplier, rules.distance_norm
    near = swapped = geometry.in_range(a, b, *limit)
    if rules.distance_norm == "first":  # the others are symmetric
        swapped = geometry.in_range(b, a, *limit)
    groups, social = geometry.interaction_groups(sequence.pairs, len(sequence.boxes)), sequence.groups
    interacting = groups[first] == groups[second]
    together = (social[first] == social[second]) & (social[first] >= 0)
    kept = np.flatnonzero(near | swapped | interacting | together)
    first, second = first[kept], second[kept]
    frame = frame_of_row[first]
    ids = np.array([geometry.text_key(name) for name in sequence.track_names], np.uint64)[sequence.tracks]
    return SequencePairs(
        total=total,
        frames=np.flatnonzero(used),
        first=first,
        second=second,
        frame=frame,
        types=types[kept],
        in_range=near[kept],
        in_range_swapped=swapped[kept],
        same_interaction_group=interacting[kept],
        same_social_group=together[kept],
        group=groups[first],
        group_sizes=np.bincount(groups),
        draws=geometry.pair_draws(rules.seed, sequence.name, sequence.times[frame], ids[first], ids[second]),
    )


def choose_pairs(
    found: SequencePairs, rules: PairRules, task: str, sampled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (into the P pairs) of the N samples, frame by frame, and (N,) bool: an inferred positive.

    Not sampled: every pair in range but the ambiguous ones, ordered by ids. Sampled: positives by group, then
    negatives by frame, pairs that share people next to each other. task "type" keeps annotated positives that
    have a type.
    """
    positive = found.in_range & found.annotated
    inferred = np.zeros_like(positive)
    if sampled and rules.infer_group_pairs:
        inferred = found.in_range & ~found.annotated & found.same_interaction_group
    negative = found.in_range & ~found.annotated & ~found.ambiguous
    if sampled and rules.use_group_sampling:
        members = np.flatnonzero(positive | inferred)
        chosen = geometry.sample_positives(
            found.group[members],
            inferred[members],
            found.draws[members],
            found.group_sizes,
            rules.max_group_samples_ratio,
        )
        dropped = members[~chosen]
        positive[dropped] = inferred[dropped] = False
    if task == "type":
        positive &= found.types >= 0
        inferred[:] = negative[:] = False
    elif sampled:
        frames = int(found.frame.max(initial=0)) + 1
        per_frame = np.bincount(found.frame[positive | inferred], minlength=frames)
        members = np.flatnonzero(negative)
        chosen = geometry.sample_negatives(
            found.frame[members],
            found.draws[members],
            per_frame,
            rules.max_negatives_per_frame,
            rules.stage1_balance_ratio,
        )
        negative[members[~chosen]] = False
    samples = np.flatnonzero(positive | inferred | negative)
    if sampled:
        near = geometry.neighbouring_order(found.frame[samples], found.first[samples], found.second[samples])
        samples = samples[near]
    return samples, inferred[samples]


def check_flags(features: str, task: str, rules: PairRules) -> None:
    for flag, value, allowed in (
        ("features", features, FEATURE_SETS),
        ("task", task, TASKS),
        ("distance_norm", rules.distance_norm, geometry.DISTANCE_NORMS),
    ):
        if value not in allowed:
            raise CommandError(f"--{flag} {value}: choose from {', '.join(allowed)}")
    for flag, low in (
        ("distance_multiplier", 0), ("max_group_samples_ratio", 0), ("stage1_balance_ratio", 0),
        ("max_negatives_per_frame", 0), ("history_seconds", 0), ("frame_stride", 1),
    ):  # fmt: skip
        value = getattr(rules, flag)
        if not (np.isfinite(value) and value >= low):
            raise CommandError(f"--{flag} {value}: must be at least {low}")
