"""Pairs of people on a panorama that closes in a circle: distances, order, groups, sampling.

On arrays only. Boxes are (N, 4) float64 x, y, w, h in pixels; x + w may run past the width W. Everything
horizontal is computed from twice the centre, 2x + w, modulo 2W: for boxes on a binary grid (whole pixels are)
that is exact, so moving all boxes round the panorama changes no bit of any result. A pair is never judged by
which of its people is named first.
"""

import hashlib

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

DISTANCE_NORMS = ("max", "mean", "first")


# Geometry on the circle


def twice_offset(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) twice the way from the centre of a to the centre of b going right, in [0, 2W)."""
    return np.mod((2 * b[:, 0] + b[:, 2]) - (2 * a[:, 0] + a[:, 2]), 2 * width)


def signed_offset(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) the short way from centre a to centre b in pixels, in (-W/2, W/2]; positive to the right."""
    twice = twice_offset(a, b, width)
    return np.where(twice > width, twice - 2 * width, twice) / 2


def distance(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) wrapped distance of the centres in pixels: the least |difference| over shifts of -W, 0, W."""
    # Without a modulo, which takes six times as long: centres are less than 1.5 W apart.
    twice = np.abs((2 * b[:, 0] + b[:, 2]) - (2 * a[:, 0] + a[:, 2]))
    return np.minimum(twice, np.abs(2 * width - twice)) / 2


def gap(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) free pixels between the two boxes on the short side, 0 where they overlap horizontally."""
    return np.maximum(distance(a, b, width) - (a[:, 2] + b[:, 2]) / 2, 0)


def reference_width(a: np.ndarray, b: np.ndarray, norm: str = "max") -> np.ndarray:
    """(N,) width that distances are counted in: wider box, mean, or first (an earlier rule, asymmetric)."""
    if norm == "first":
        return a[:, 2]
    return np.maximum(a[:, 2], b[:, 2]) if norm == "max" else (a[:, 2] + b[:, 2]) / 2


def in_range(
    a: np.ndarray, b: np.ndarray, width: float, multiplier: float = 3.0, norm: str = "max"
) -> np.ndarray:
    """(N,) bool: the centres are at most `multiplier` reference widths apart."""
    return distance(a, b, width) <= multiplier * reference_width(a, b, norm)


def first_is_left(a: np.ndarray, b: np.ndarray, first_by_id: np.ndarray, width: float) -> np.ndarray:
    """(N,) bool: a comes before b in the canonical order, left to right the short way round.

    Centres that coincide or stand exactly opposite each other are ordered by y, w, h (not x, which depends on
    where the panorama begins) and then by id: `first_by_id` (N,) bool says that a has the lower id.
    """
    twice = twice_offset(a, b, width)
    tie = (twice == 0) | (twice == width)
    order = np.where(tie, 0, np.where(twice < width, 1, -1))
    for column in (1, 2, 3):
        order = np.where(order == 0, np.sign(b[:, column] - a[:, column]), order)
    return np.where(order == 0, first_by_id, order > 0)


# Pairs, groups


def all_pairs(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every unordered pair of people of one frame, as two (P,) int64 row arrays, lower row first, sorted.

    `starts` (F+1,): the people of frame f are rows starts[f]:starts[f+1].
    """
    rows = np.arange(starts[-1])
    partners = np.repeat(starts[1:], np.diff(starts)) - rows - 1  # people of the frame after this row
    first = np.repeat(rows, partners)
    begin = np.cumsum(partners) - partners
    second = np.arange(len(first)) - np.repeat(begin, partners) + first + 1
    return first, second


def pair_positions(starts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(M,) where each of `pairs` (M, 2), lower row first, stands in all_pairs(starts)."""
    rows = np.arange(starts[-1])
    partners = np.repeat(starts[1:], np.diff(starts)) - rows - 1
    begin = np.cumsum(partners) - partners
    return begin[pairs[:, 0]] + pairs[:, 1] - pairs[:, 0] - 1


def interaction_groups(pairs: np.ndarray, people: int) -> np.ndarray:
    """(people,) group numbers: connected components of the annotated pairs (M, 2); a loner has its own."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(people, people))
    return connected_components(graph, directed=False)[1].astype(np.int64)


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


# Sampling. Every pair gets a random number that is a pure function of (seed, sequence, frame, the two ids):
# the same sample on every machine, and whatever the order of files, frames, records and people.


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele et al. 2014): uint64 -> uint64, every input bit moves every output bit."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def text_key(text: str) -> int:
    """A 64-bit number for a name, the same in every process (unlike hash())."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def pair_draws(
    seed: int, sequence: str, frames: np.ndarray, first_ids: np.ndarray, second_ids: np.ndarray
) -> np.ndarray:
    """(P,) uint64 random numbers, the same for (a, b) and (b, a).

    frames (P,) frame numbers, ids (P,) uint64 text_key of each person.
    """
    base = np.uint64(text_key(f"{seed} {sequence}"))
    frame = mix(base ^ mix(frames.astype(np.uint64)))
    low, high = np.minimum(first_ids, second_ids), np.maximum(first_ids, second_ids)
    return mix(mix(frame ^ low) ^ high)


def smallest_per_bin(bins: np.ndarray, quota: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """(P,) bool: the first quota[bin] members of every bin in the order of `keys` (most important first)."""
    order = np.lexsort((*reversed(keys), bins))
    sorted_bins = bins[order]
    begin = (
        np.flatnonzero(np.r_[True, sorted_bins[1:] != sorted_bins[:-1]])
        if len(bins)
        else np.zeros(0, np.int64)
    )
    rank = np.arange(len(bins)) - np.repeat(begin, np.diff(np.r_[begin, len(bins)]))
    chosen = np.zeros(len(bins), bool)
    chosen[order] = rank < quota[sorted_bins]
    return chosen


def sample_positives(
    group: np.ndarray, inferred: np.ndarray, draws: np.ndarray, sizes: np.ndarray, ratio: float
) -> np.ndarray:
    """(P,) bool: at most max(1, round(n * ratio)) pairs of a group of n people, annotated ones first.

    group (P,) group number of each in-range positive pair (a group lives in one frame), inferred (P,) bool,
    draws (P,) uint64, sizes (number of groups,) people in each.
    """
    return smallest_per_bin(group, np.maximum(1, np.rint(sizes * ratio)).astype(np.int64), inferred, draws)


def sample_negatives(
    frame: np.ndarray, draws: np.ndarray, positives: np.ndarray, most: int, ratio: float
) -> np.ndarray:
    """(P,) bool: min(most, max(1, round(ratio * positives))) of the candidate pairs of every frame.

    frame (P,) frame of each candidate, draws (P,) uint64, positives (F,) sampled positives of each frame.
    """
    return smallest_per_bin(
        frame, np.minimum(most, np.maximum(1, np.rint(ratio * positives))).astype(np.int64), draws
    )
