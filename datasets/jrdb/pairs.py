"""Find the pairs of a sequence: who is in range of whom, who is in one group, which pairs may be samples.

There are two kinds of groups: *social groups* are annotated, *interaction groups* are people connected by
annotated pairs. The label of a pair does not depend on which of the two people is named first.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from datasets.augmentation import GOLDEN, mix
from datasets.jrdb.classes import TOO_DIFFICULT
from datasets.jrdb.geometry import first_is_left, in_range, pair_features
from datasets.jrdb.labels import Sequence
from utils.metrics.groups import find_components

NOT_ANNOTATED = -2  # beside the types of labels.Sequence


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


@dataclass
class Pairs:
    """What find_pairs returns. The columns are described in JRDBPairDataset."""

    samples: dict[str, np.ndarray]  # per sample
    near: dict[str, np.ndarray]  # per pair in range, of NearPairs and is_sample; {} if nothing is rescored
    rest: dict[str, np.ndarray]  # per person, frame and group, and of pairs that are no samples
    counts: dict[str, int]  # of all pairs in the frames used


def find_pairs(
    sequence: Sequence, rules: PairRules, task: str = "interaction", sampled: bool = False
) -> Pairs:
    """All pairs in range except ambiguous ones: in one group but not annotated, or too difficult.

    If epochs are `sampled`, ambiguous pairs of one interaction group are inferred to interact. task "type"
    keeps only annotated pairs with a type; "any" keeps all pairs in range, as predict.py has to, which cannot
    know which pairs are ambiguous."""
    used = np.arange(len(sequence.keys)) % rules.frame_stride == 0  # (F,) frames
    frame_of_row = sequence.frame_of_row()
    kept = used[frame_of_row]  # (R,) people
    every_pair = all_pairs(sequence.starts)
    here = kept[every_pair[0]]
    first, second = every_pair[0][here], every_pair[1][here]  # (P,) people in each pair of the frames used

    # Annotations
    groups = find_components(len(kept), sequence.pairs)
    types, ambiguous, linked = annotate(sequence, kept, groups, first, second)
    annotated = types > NOT_ANNOTATED
    inferred = linked & (sampled and rules.infer_group_pairs)

    # Samples
    by_column = np.ascontiguousarray(sequence.boxes.T)  # twice as fast to index and compute with as rows
    a, b = by_column.take(first, 1).T, by_column.take(second, 1).T
    limit = sequence.width, rules.distance_multiplier, rules.distance_norm
    near = near_swapped = in_range(a, b, *limit)
    if rules.distance_norm == "first":  # the other norms are symmetric
        near_swapped = in_range(b, a, *limit)
    suitable = {"any": near, "type": types >= 0, "interaction": ~ambiguous | inferred}[task]
    taken, far = near & suitable, annotated & ~near
    rescored = rules.rescore and task != "type"  # types are not corrected by the other pairs
    described = near if rescored else taken

    # Columns
    lower, higher = first[described], second[described]  # rows are sorted by id
    is_left = first_is_left(a[described], b[described], sequence.width)
    left, right = np.where(is_left, lower, higher), np.where(is_left, higher, lower)
    past = every_pair if rules.whole_past else None
    row_index, frame_index = np.cumsum(kept) - 1, np.cumsum(used) - 1  # index among the used ones
    columns = {
        "geometry": pair_features(sequence, left, right, rules.history_seconds, past),
        "left": row_index[left],
        "right": row_index[right],
        "frames": frame_index[frame_of_row[left]],
    }
    is_sample = taken[described]
    left, right = left[is_sample], right[is_sample]
    ids = np.array([text_key(name) for name in sequence.track_names], np.uint64)[sequence.tracks]
    times = sequence.times[frame_of_row[left]]
    samples = {name: values[is_sample] for name, values in columns.items()} | {
        "types": np.maximum(types[taken], -1),
        "labels": types[taken] if task == "type" else (annotated | inferred)[taken].astype(np.int64),
        "inferred": inferred[taken],
        "ambiguous": (ambiguous & ~inferred)[taken],
        "lots": draw_lots(rules.seed, sequence.name, times, ids[left], ids[right]),
        "interaction_groups": groups[left],
    }
    rest = {
        "interaction_group_sizes": np.bincount(groups),
        "boxes": sequence.boxes[kept],
        "people_frames": frame_index[frame_of_row[kept]],
        "social_groups": sequence.social_groups[kept],
        "person_ids": np.array(sequence.track_names)[sequence.tracks[kept]],
        "frame_keys": np.array(sequence.keys)[used],
        "frame_times": sequence.times[used],
        "image_found": sequence.image_found[used],
        "far_types": types[far],
        "far_frames": frame_index[frame_of_row[first[far]]],
        "ambiguous_frames": frame_index[frame_of_row[first[ambiguous]]],
    }
    counts = {
        "seam_boxes": (rest["boxes"][:, [0, 2]].sum(1) > sequence.width).sum(),
        "pairs_total": len(first),
        "pairs_in_range": near.sum(),
        "positives_total": annotated.sum(),
        "positives_lost_to_distance": far.sum(),
        "ambiguous_pairs": (ambiguous & near).sum(),
        "order_dependent_decisions": (near != near_swapped).sum(),
    }
    pairs_in_range = columns | {"is_sample": is_sample} if rescored else {}
    return Pairs(samples, pairs_in_range, rest, {name: int(count) for name, count in counts.items()})


def annotate(
    sequence: Sequence, kept: np.ndarray, groups: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the annotations say of all pairs (P,) of the people `kept` (R,), who are in interaction `groups`:
    types, as in Sequence or NOT_ANNOTATED, also if too difficult; whether ambiguous; and if so, whether the
    two are linked by annotated pairs that are not too difficult."""
    people, listed = len(kept), kept[sequence.pairs[:, 0]]
    types = np.full(len(first), NOT_ANNOTATED)
    rows = np.searchsorted(first * people + second, sequence.pairs[listed] @ [people, 1])
    types[rows] = sequence.types[listed]
    difficult = sequence.difficult[first] | sequence.difficult[second] | (types == TOO_DIFFICULT)
    types[difficult] = NOT_ANNOTATED
    social, unknown = sequence.social_groups, types == NOT_ANNOTATED
    interacting = groups[first] == groups[second]
    together = (social[first] == social[second]) & (social[first] >= 0)
    ambiguous = unknown & (interacting | together | difficult)
    too_difficult = sequence.difficult[sequence.pairs].any(axis=1) | (sequence.types == TOO_DIFFICULT)
    linked = find_components(people, sequence.pairs[~too_difficult])
    return types, ambiguous, ambiguous & (linked[first] == linked[second]) & ~difficult


def all_pairs(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All unordered pairs of people of one frame: two sorted (P,) int64 arrays of rows, lower row first.
    `starts` (F+1,): the people of frame f are rows starts[f]:starts[f+1]."""
    rows = np.arange(starts[-1])
    partners = np.repeat(starts[1:], np.diff(starts)) - rows - 1  # rows of the frame after this row
    first = np.repeat(rows, partners)
    begin = np.cumsum(partners) - partners
    return first, np.arange(len(first)) - np.repeat(begin, partners) + first + 1


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
