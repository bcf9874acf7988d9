"""Pairs of people on a panorama that closes in a circle: near or not, in one group or not, sampled or not.

Boxes are (N, 4) float64 x, y, w, h in pixels; x + w may run past the width W. Everything horizontal is
computed from twice the centre, 2x + w, modulo 2W: for boxes on a binary grid (whole pixels are) that is
exact, so moving all boxes round the panorama changes no bit of any result. A pair is never judged by which of
its people is named first.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

from datasets.augmentation import GOLDEN, mix
from datasets.jrdb.labels import Sequence
from utils.run.errors import CommandError

DISTANCE_NORMS = ("max", "mean", "first")


@dataclass
class PairRules:
    """Which pairs are taken: the flags of the same names, see train_stage1.py --help."""

    distance_multiplier: float = 3.0
    distance_norm: str = "max"
    use_group_sampling: bool = True
    max_group_samples_ratio: float = 1.0
    infer_group_pairs: bool = True
    max_negatives_per_frame: int = 50
    stage1_balance_ratio: float = 4.0
    pairs_per_sequence: int = 1500
    resample: bool = True
    frame_stride: int = 1
    history_seconds: int = 5
    seed: int = 42

    def check(self) -> None:
        """CommandError for a value that no run can have."""
        if self.distance_norm not in DISTANCE_NORMS:
            known = ", ".join(DISTANCE_NORMS)
            raise CommandError(f"--distance_norm {self.distance_norm}: choose from {known}")
        for flag, value in vars(self).items():
            low = 1 if flag == "frame_stride" else 0
            if flag != "distance_norm" and not (np.isfinite(value) and value >= low):
                raise CommandError(f"--{flag} {value}: must be at least {low}")


# Distance and order on the circle


def signed_offset(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) the short way from centre a to centre b in pixels, in (-W/2, W/2]; positive to the right."""
    twice = np.mod((2 * b[:, 0] + b[:, 2]) - (2 * a[:, 0] + a[:, 2]), 2 * width)
    return np.where(twice > width, twice - 2 * width, twice) / 2


def distance(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) wrapped distance of the centres in pixels: the least |difference| over shifts of -W, 0, W."""
    # Without a modulo, which takes six times as long: centres are less than 1.5 W apart.
    twice = np.abs((2 * b[:, 0] + b[:, 2]) - (2 * a[:, 0] + a[:, 2]))
    return np.minimum(twice, np.abs(2 * width - twice)) / 2


def in_range(
    a: np.ndarray, b: np.ndarray, width: float, multiplier: float = 3.0, norm: str = "max"
) -> np.ndarray:
    """(N,) bool: the centres are at most `multiplier` widths apart.

    The width is that of the wider box, the mean of both, or the first one's, which depends on the order.
    """
    widths = {"max": np.maximum(a[:, 2], b[:, 2]), "mean": (a[:, 2] + b[:, 2]) / 2, "first": a[:, 2]}[norm]
    return distance(a, b, width) <= multiplier * widths


def first_is_left(a: np.ndarray, b: np.ndarray, first_by_id: np.ndarray, width: float) -> np.ndarray:
    """(N,) bool: a comes before b in the canonical order, left to right the short way round.

    Centres that coincide or stand exactly opposite each other are ordered by y, w, h (not x, which depends on
    where the panorama begins) and then by id: `first_by_id` (N,) bool says that a has the lower id.
    """
    offset = signed_offset(a, b, width)
    order = np.where(2 * offset == width, 0, np.sign(offset))
    for column in (1, 2, 3):
        order = np.where(order == 0, np.sign(b[:, column] - a[:, column]), order)
    return np.where(order == 0, first_by_id, order > 0)


# Every pair of a sequence


@dataclass
class SequencePairs:
    """The P pairs of a sequence, in the frames a run uses, that are near or in one group; lower row first."""

    total: int  # pairs of these frames, near or not
    frames: np.ndarray  # (F,) int64 indices of the frames used, into sequence.keys
    first: np.ndarray  # (P,) int64 rows
    second: np.ndarray
    frame: np.ndarray  # (P,) int64 index into sequence.keys
    types: np.ndarray  # (P,) int64 class; -1 annotated without a type; -2 not annotated, or not counted
    in_range: np.ndarray  # (P,) bool
    in_range_swapped: np.ndarray  # (P,) bool, the decision with the two people named in the other order
    same_interaction_group: np.ndarray  # (P,) bool, connected by annotated pairs
    same_social_group: np.ndarray  # (P,) bool
    difficult: np.ndarray  # (P,) bool, a label of the pair or of one of them is above --max_difficulty
    group: np.ndarray  # (P,) int64 interaction group of the first person
    group_sizes: np.ndarray  # people in each interaction group
    draws: np.ndarray  # (P,) uint64, what sampling goes by

    @property
    def annotated(self) -> np.ndarray:
        return self.types > -2

    @property
    def ambiguous(self) -> np.ndarray:
        """In one group, yet not annotated, or too difficult: neither a positive nor a negative."""
        together = self.same_interaction_group | self.same_social_group
        return ~self.annotated & (together | self.difficult)


def find_pairs(sequence: Sequence, rules: PairRules) -> SequencePairs:
    """The pairs of a sequence in range (named in either order) or in one group, with what decides on them.

    Most pairs are neither. Groups are built per frame from the annotated pairs.
    """
    frame_of_row = sequence.frame_of_row()
    first, second = all_pairs(sequence.starts)
    types = np.full(len(first), -2, np.int64)
    types[pair_positions(sequence.starts, sequence.pairs)] = sequence.types
    difficult = sequence.difficult[first] | sequence.difficult[second] | (types == -3)
    types[difficult] = -2
    used = np.arange(len(sequence.keys)) % rules.frame_stride == 0
    if rules.frame_stride > 1:
        keep = used[frame_of_row[first]]
        first, second, types, difficult = first[keep], second[keep], types[keep], difficult[keep]
    columns = np.ascontiguousarray(sequence.boxes.T)  # gathered and computed with twice as fast as rows
    a, b = columns.take(first, 1).T, columns.take(second, 1).T
    limit = sequence.width, rules.distance_multiplier, rules.distance_norm
    near = swapped = in_range(a, b, *limit)
    if rules.distance_norm == "first":  # the others are symmetric
        swapped = in_range(b, a, *limit)
    groups, social = interaction_groups(sequence.pairs, len(sequence.boxes)), sequence.groups
    interacting = groups[first] == groups[second]
    together = (social[first] == social[second]) & (social[first] >= 0)
    kept = np.flatnonzero(near | swapped | interacting | together | difficult)
    rows, frame = np.stack([first[kept], second[kept]]), frame_of_row[first[kept]]
    ids = np.array([text_key(name) for name in sequence.track_names], np.uint64)[sequence.tracks]
    return SequencePairs(
        total=len(first),
        frames=np.flatnonzero(used),
        first=rows[0],
        second=rows[1],
        frame=frame,
        types=types[kept],
        in_range=near[kept],
        in_range_swapped=swapped[kept],
        same_interaction_group=interacting[kept],
        same_social_group=together[kept],
        difficult=difficult[kept],
        group=groups[rows[0]],
        group_sizes=np.bincount(groups),
        draws=pair_draws(rules.seed, sequence.name, sequence.times[frame], *ids[rows]),
    )


def all_pairs(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every unordered pair of people of one frame, as two (P,) int64 row arrays, lower row first, sorted.

    `starts` (F+1,): the people of frame f are rows starts[f]:starts[f+1].
    """
    rows = np.arange(starts[-1])
    partners = np.repeat(starts[1:], np.diff(starts)) - rows - 1  # people of the frame after this row
    first = np.repeat(rows, partners)
    begin = np.cumsum(partners) - partners
    return first, np.arange(len(first)) - np.repeat(begin, partners) + first + 1


def pair_positions(starts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(M,) where each of `pairs` (M, 2), lower row first, stands in all_pairs(starts)."""
    partners = np.repeat(starts[1:], np.diff(starts)) - np.arange(starts[-1]) - 1
    begin = np.cumsum(partners) - partners
    return begin[pairs[:, 0]] + pairs[:, 1] - pairs[:, 0] - 1


def interaction_groups(pairs: np.ndarray, people: int) -> np.ndarray:
    """(people,) group numbers: connected components of the annotated pairs (M, 2); a loner has its own."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(people, people))
    return connected_components(graph, directed=False)[1].astype(np.int64)


# Random numbers that are a pure function of (seed, sequence, frame, the two ids): the same sample on every
# machine, and whatever the order of files, frames, records and people.


def text_key(text: str) -> int:
    """A 64-bit number for a name, the same in every process (unlike hash())."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def pair_draws(
    seed: int, sequence: str, frames: np.ndarray, first_ids: np.ndarray, second_ids: np.ndarray
) -> np.ndarray:
    """(P,) uint64 random numbers, the same for (a, b) and (b, a).

    frames (P,) frame numbers, ids (P,) uint64 text_key of each person.
    """
    draws = mix(frames.astype(np.uint64) + np.uint64(GOLDEN)) ^ np.uint64(text_key(f"{seed} {sequence}"))
    low, high = np.minimum(first_ids, second_ids), np.maximum(first_ids, second_ids)
    for ids in (low, high):
        draws = mix(draws + np.uint64(GOLDEN)) ^ ids
    return mix(draws + np.uint64(GOLDEN))


# Sampling


def candidates(found: SequencePairs, rules: PairRules, task: str, sampled: bool) -> np.ndarray:
    """Positions (into the P pairs) of all that may become a sample, frame by frame, ordered by ids.

    That is every pair in range but the ambiguous ones; where samples are drawn, also the ambiguous ones that
    are inferred to interact. task "type" keeps annotated positives that have a type; "any" every pair in
    range, as predict.py does, which can not know which ones are ambiguous.
    """
    if task == "any":
        return np.flatnonzero(found.in_range)
    if task == "type":
        return np.flatnonzero(found.in_range & (found.types >= 0))
    inferred = found.same_interaction_group & ~found.difficult & (sampled and rules.infer_group_pairs)
    return np.flatnonzero(found.in_range & (~found.ambiguous | inferred))


def draw_samples(
    rules: PairRules,
    epoch: int,
    draws: np.ndarray,
    positive: np.ndarray,
    inferred: np.ndarray,
    group: np.ndarray,
    group_sizes: np.ndarray,
    frame: np.ndarray,
    sequence: np.ndarray,
) -> np.ndarray:
    """(N,) bool: which of N candidates an epoch takes, by random numbers made from `draws` (N,) and epoch.

    Of each interaction group (`group` (N,), into `group_sizes`) of n people at most max(1, round(n * ratio))
    `positive` ones, annotated ones before `inferred`; of each frame min(max_negatives, max(1, round(ratio *
    positives))) others; of what is then left of a sequence at most pairs_per_sequence (0: all).
    """
    if rules.resample:
        draws = mix(draws ^ np.uint64(text_key(f"epoch {epoch}")))
    if rules.use_group_sampling:
        quota = np.maximum(1, np.rint(group_sizes * rules.max_group_samples_ratio))
        taken = smallest_per_bin(positive, group, quota, inferred, draws)
    else:
        taken = positive.copy()
    positives = np.bincount(frame[taken], minlength=int(frame.max(initial=0)) + 1)
    quota = np.maximum(1, np.rint(rules.stage1_balance_ratio * positives))
    quota = np.minimum(rules.max_negatives_per_frame, quota)
    taken |= smallest_per_bin(~positive, frame, quota, draws)
    if rules.pairs_per_sequence:
        quota = np.full(int(sequence.max(initial=0)) + 1, rules.pairs_per_sequence)
        taken = smallest_per_bin(taken, sequence, quota, mix(draws + np.uint64(GOLDEN)))
    return taken


def smallest_per_bin(
    members: np.ndarray, bins: np.ndarray, quota: np.ndarray, *keys: np.ndarray
) -> np.ndarray:
    """(P,) bool: of the `members` (P,) bool of every bin the first quota[bin] in the order of `keys`.

    bins (P,) int64 into quota; keys (P,) each, the most important first.
    """
    members = np.flatnonzero(members)
    order = members[np.lexsort((*(key[members] for key in reversed(keys)), bins[members]))]
    counts = np.bincount(bins[order], minlength=len(quota))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(bins), bool)
    chosen[order[rank < quota[bins[order]]]] = True
    return chosen


def neighbouring_order(frame: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) an order of pairs: frame by frame, in each such that pairs of the same people are neighbours.

    A frame cut in two by a batch boundary then shares few people between the two batches, each of which
    encodes its own. People are ranked by reverse Cuthill-McKee, which keeps linked rows close to each other.
    """
    people = int(max(first.max(initial=0), second.max(initial=0))) + 1
    links = np.r_[first, second], np.r_[second, first]
    graph = coo_array((np.ones(2 * len(first), np.int8), links), shape=(people, people)).tocsr()
    rank = np.empty(people, np.int64)
    rank[reverse_cuthill_mckee(graph, symmetric_mode=True)] = np.arange(people)
    return np.lexsort((rank[first] + rank[second], frame))


# Classes of uneven size (stage 2): resampling the train split, and weights for what imbalance is left


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
