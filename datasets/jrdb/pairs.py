"""Find the pairs of a sequence: who is in range of whom, who is in one group, which pairs may be samples.

There are two kinds of groups: *social groups* are annotated, *interaction groups* are people connected by
annotated pairs. The label of a pair does not depend on which of the two people is named first.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datasets.augmentation import GOLDEN, mix
from datasets.jrdb.geometry import first_is_left, in_range, pair_features
from datasets.jrdb.labels import Sequence


@dataclass
class PairRules:
    """Which pairs are used: the flags of the same names, see train_stage1.py --help."""

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
    whole_past: bool = False
    rescore: bool = False
    seed: int = 42


def find_pairs(
    sequence: Sequence, rules: PairRules, task: str = "interaction", sampled: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """All pairs in range except ambiguous ones: in one group but not annotated, or too difficult.

    If epochs are `sampled`, ambiguous pairs of one interaction group are inferred to interact. task "type"
    keeps only annotated pairs with a type; "any" keeps all pairs in range, as predict.py has to, which cannot
    know which pairs are ambiguous. Returns the columns of JRDBPairDataset for the frames used, and counts of
    all pairs in these frames.
    """
    # All pairs of a frame, and their annotations
    frame_of_row, people = sequence.frame_of_row(), len(sequence.boxes)
    used = np.arange(len(sequence.keys)) % rules.frame_stride == 0
    kept = used[frame_of_row]
    first, second = every_pair = all_pairs(sequence.starts)
    types = np.full(len(first), -2)  # not annotated
    types[np.searchsorted(first * people + second, sequence.pairs @ [people, 1])] = sequence.types
    if rules.frame_stride > 1:
        keep = kept[first]
        first, second, types = first[keep], second[keep], types[keep]
    difficult = sequence.difficult[first] | sequence.difficult[second] | (types == -3)
    annotated = (types > -2) & ~difficult

    # In range or not
    by_column = np.ascontiguousarray(sequence.boxes.T)  # twice as fast to index and compute with as rows
    a, b = by_column.take(first, 1).T, by_column.take(second, 1).T
    limit = sequence.width, rules.distance_multiplier, rules.distance_norm
    near = swapped = in_range(a, b, *limit)
    if rules.distance_norm == "first":  # the other norms are symmetric
        swapped = in_range(b, a, *limit)

    # In one group or not
    groups, social = interaction_groups(sequence.pairs, people), sequence.social_groups
    interacting = groups[first] == groups[second]
    together = (social[first] == social[second]) & (social[first] >= 0)
    ambiguous = ~annotated & (interacting | together | difficult)
    inferred = ambiguous & interacting & ~difficult & (sampled and rules.infer_group_pairs)

    # Possible samples, left person first
    taken = {"any": near, "type": annotated & (types >= 0), "interaction": ~ambiguous | inferred}[task]
    chosen, far = np.flatnonzero(near & taken), annotated & ~near
    among_all = rules.rescore and task != "type"  # types are not rescored by the other pairs
    described = np.flatnonzero(near) if among_all else chosen
    rows = np.stack([first[described], second[described]])  # sorted by id: the first has the lower id
    is_left = first_is_left(a[described], b[described], True, sequence.width)
    left, right = np.where(is_left, *rows), np.where(is_left, *rows[::-1])
    past = every_pair if rules.whole_past else None
    geometry = pair_features(sequence, left, right, rules.history_seconds, past)
    row_index, frame_index = np.cumsum(kept) - 1, np.cumsum(used) - 1  # index among the used ones
    columns, place = {}, np.searchsorted(described, chosen)
    if among_all:
        columns = {
            "near_geometry": geometry,
            "near_left": row_index[left],
            "near_right": row_index[right],
            "near_frames": frame_index[frame_of_row[rows[0]]],
            "near_rows": place,
        }
    left, right, rows, geometry = left[place], right[place], rows[:, place], geometry[place]
    frame, types = frame_of_row[rows[0]], np.where(annotated, np.maximum(types, -1), -1)
    ids = np.array([text_key(name) for name in sequence.track_names], np.uint64)[sequence.tracks]
    columns |= {
        "geometry": geometry,
        "types": types[chosen],
        "labels": types[chosen] if task == "type" else (annotated | inferred)[chosen].astype(np.int64),
        "inferred": inferred[chosen],
        "ambiguous": (ambiguous & ~inferred)[chosen],
        "left": row_index[left],
        "right": row_index[right],
        "frames": frame_index[frame],
        "lots": draw_lots(rules.seed, sequence.name, sequence.times[frame], *ids[rows]),
        "interaction_groups": groups[left],
        "interaction_group_sizes": np.bincount(groups),
        "boxes": sequence.boxes[kept],
        "people_frames": frame_index[frame_of_row[kept]],
        "social_groups": social[kept],
        "person_ids": np.array(sequence.track_names)[sequence.tracks[kept]],
        "frame_keys": np.array(sequence.keys)[used],
        "frame_times": sequence.times[used],
        "image_found": sequence.image_found[used],
        "far_types": types[far],
        "far_frames": frame_index[frame_of_row[first[far]]],
        "ambiguous_frames": frame_index[frame_of_row[first[ambiguous]]],
    }
    counts = {
        "seam_boxes": (columns["boxes"][:, [0, 2]].sum(1) > sequence.width).sum(),
        "pairs_total": len(first),
        "pairs_in_range": near.sum(),
        "positives_total": annotated.sum(),
        "positives_lost_to_distance": far.sum(),
        "ambiguous_pairs": (ambiguous & near).sum(),
        "order_dependent_decisions": (near != swapped).sum(),
    }
    return columns, {name: int(count) for name, count in counts.items()}


def all_pairs(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All unordered pairs of people of one frame: two sorted (P,) int64 arrays of rows, lower row first.
    `starts` (F+1,): the people of frame f are rows starts[f]:starts[f+1]."""
    rows = np.arange(starts[-1])
    partners = np.repeat(starts[1:], np.diff(starts)) - rows - 1  # rows of the frame after this row
    first = np.repeat(rows, partners)
    begin = np.cumsum(partners) - partners
    return first, np.arange(len(first)) - np.repeat(begin, partners) + first + 1


def interaction_groups(pairs: np.ndarray, people: int) -> np.ndarray:
    """(people,) group numbers: connected components of the annotated pairs (M, 2); a loner is a group too."""
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(people, people))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def draw_lots(
    seed: int, sequence: str, frames: np.ndarray, first_ids: np.ndarray, second_ids: np.ndarray
) -> np.ndarray:
    """(P,) uint64 random numbers that depend only on (seed, sequence, frame number, the two ids in either
    order), not on the machine or the order of files and records. ids (P,) uint64, of text_key."""
    lots = mix(frames.astype(np.uint64) + np.uint64(GOLDEN)) ^ np.uint64(text_key(f"{seed} {sequence}"))
    for ids in (np.minimum(first_ids, second_ids), np.maximum(first_ids, second_ids)):
        lots = mix(lots + np.uint64(GOLDEN)) ^ ids
    return mix(lots + np.uint64(GOLDEN))


def text_key(text: str) -> int:
    """A 64-bit number for a name, the same in every process (unlike hash())."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
