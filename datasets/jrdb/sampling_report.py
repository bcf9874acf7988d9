"""What sampling kept, removed and lost, counted per split: the content of sampling_report.json."""

import numpy as np

from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import Sequence
from datasets.jrdb.load import PairDatasets


def sampling_report(sets: PairDatasets) -> dict[str, dict[str, dict]]:
    """{"splits": {"train": {...}, "val": {...}, ..}} of plain numbers; None where a ratio would divide by 0.

    Pairs are undirected and counted over the frames used; what was found wrong in the annotations
    (labels.COUNTS) over all labelled frames. negatives_that_are_positives are counted by the names of
    frames and people among the annotated pairs that were read, never from the sampler's own sets.
    order_dependent_decisions: pairs whose in-range decision changes when the two people change places (0 for
    a symmetric norm).
    """
    parts = sets.parts.items()
    return {"splits": {name: split_report(dataset, sets.loaded[name]) for name, dataset in parts}}


def split_report(dataset: JRDBPairDataset, read: list[Sequence]) -> dict[str, int | float | None]:
    counts = dataset.counts
    drawn = dataset.select(dataset.draw())  # of train: the first epoch's
    positives_in_range = counts["positives_total"] - counts["positives_lost_to_distance"]
    is_negative = (drawn.labels == 0) & (dataset.task == "interaction")
    negatives = int(is_negative.sum())
    total, near = counts["pairs_total"], counts["pairs_in_range"]
    return {
        "frames": len(dataset.frame_keys),
        "boxes": len(dataset.boxes),
        **counts,
        "pairs_removed_share": ratio(total - near, total),
        "negatives_per_positive_natural": ratio(total - counts["positives_total"], counts["positives_total"]),
        "negatives_per_positive_in_range": ratio(near - positives_in_range, positives_in_range),
        "sampled_positives": len(drawn) - negatives,
        "sampled_negatives": negatives,
        "positives_per_negative": ratio(len(drawn) - negatives, negatives),
        "inferred_positives": int(drawn.inferred.sum()),
        "negatives_that_are_positives": wrong_negatives(drawn.select(np.flatnonzero(is_negative)), read),
    }


def ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def wrong_negatives(negatives: JRDBPairDataset, read: list[Sequence]) -> int:
    """How many of these samples are annotated pairs of the sequences."""
    annotated = set()
    for sequence in read:
        frames = np.array(sequence.keys)[sequence.frame_of_row()[sequence.pairs[:, 0]]]
        people = np.array(sequence.track_names)[sequence.tracks[sequence.pairs]]  # (M, 2)
        annotated |= {
            (sequence.name, frame, frozenset(two))
            for frame, two in zip(frames.tolist(), people.tolist(), strict=True)
        }
    who = negatives.pair_columns()
    drawn = zip(*(who[name].tolist() for name in ("sequence", "frame", "id_left", "id_right")), strict=True)
    return sum((name, frame, frozenset(two)) in annotated for name, frame, *two in drawn)
