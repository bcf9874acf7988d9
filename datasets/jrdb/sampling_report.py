"""What sampling kept, removed and lost, counted per split: the content of sampling_report.json."""

import json
from collections.abc import Iterable

import numpy as np

from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import LABEL_FOLDER
from datasets.jrdb.load import PairDatasets


def sampling_report(sets: PairDatasets) -> dict[str, dict[str, dict]]:
    """{"splits": {"train": {...}, "val": {...}, ..}} of plain numbers; None where a ratio would divide by 0.

    Pairs are undirected and counted over the frames used; what was found wrong in the annotations
    (labels.COUNTS) over all labelled frames. negatives_that_are_positives is recounted from the
    raw JSON, in both directions, never from the sampler's own sets. order_dependent_decisions: pairs whose
    in-range decision changes when the two people change places (0 for a symmetric norm).
    """
    return {"splits": {name: split_report(sets, dataset) for name, dataset in sets.parts().items()}}


def split_report(sets: PairDatasets, dataset: JRDBPairDataset) -> dict[str, int | float | None]:
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
        "negatives_that_are_positives": wrong_negatives(sets, drawn, np.flatnonzero(is_negative)),
    }


def ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def wrong_negatives(sets: PairDatasets, dataset: JRDBPairDataset, negatives: np.ndarray) -> int:
    """How many of these samples the raw label files name as interacting, from either side."""
    left, right = dataset.person_ids[dataset.left[negatives]], dataset.person_ids[dataset.right[negatives]]
    frames = dataset.frames[negatives]
    wrong = 0
    for number, name in enumerate(dataset.sequences):
        mine = dataset.frame_sequences[frames] == number
        keys = dataset.frame_keys[frames[mine]]
        content = json.loads((sets.data_path / LABEL_FOLDER / f"{name}.json").read_bytes())
        raw = set(raw_interactions(content["labels"]))
        wrong += sum(
            (key, a, b) in raw or (key, b, a) in raw
            for key, a, b in zip(keys.tolist(), left[mine].tolist(), right[mine].tolist(), strict=True)
        )
    return wrong


def raw_interactions(labels: dict[str, list[dict]]) -> Iterable[tuple[str, str, str]]:
    """(frame, person, partner) of every annotation as it stands in the file."""
    for key, records in labels.items():
        for record in records:
            for entry in record.get("H-interaction", record.get("HHI")) or []:
                yield key, record["label_id"], entry["pair"]
