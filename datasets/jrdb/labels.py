"""JRDB-Social annotations as numpy columns, read one sequence at a time.

The folder is the official one; images are needed only by runs that look at pixels:

    DATA/labels/labels_2d_activity_social_stitched/SEQUENCE.json
    DATA/images/image_stitched/SEQUENCE/000015.jpg               3760x480; frame numbers count 15 per second
    DATA/split.json                                              optional; wins over --split_method

A person is a row. Rows are sorted by frame number and then by person id, whatever the order in the file, so
everything built on them is independent of the order of files, frames and records. Demographics are not read.
"""

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.images import check_relative_name, read_image_size
from datasets.jrdb.records import (
    bad_record,
    check_boxes,
    natural_order,
    read_frames,
    read_group,
    read_interactions,
)
from utils.run.errors import CommandError, DataError

LABEL_FOLDER = Path("labels") / "labels_2d_activity_social_stitched"
IMAGE_FOLDER = Path("images") / "image_stitched"
PANORAMA_SIZE = (3760, 480)  # width, height of the stitched JRDB panorama, for sequences without any image

INTERACTION_CLASSES = ("walking together", "standing together", "conversation", "sitting together", "others")
# Classes go from frequent to rare among the 19 published names. The map is fixed, whatever a split's own
# counts are, so that class k means the same in every split, checkpoint and evaluation.
CLASS_OF_NAME = {
    "walking together": 0,
    "standing together": 1,
    "conversation": 2,
    "sitting together": 3,
    "going upstairs together": 4,
    "moving together": 4,
    "looking at robot together": 4,
    "looking at sth together": 4,
    "walking toward each other": 4,
    "eating together": 4,
    "going downstairs together": 4,
    "bending together": 4,
    "holding sth together": 4,
    "cycling together": 4,
    "interaction with door together": 4,
    "hugging": 4,
    "looking into sth together": 4,
    "shaking hand": 4,
    "waving hand together": 4,
}
INTERACTION_NAMES = tuple(CLASS_OF_NAME)
MULTI_LABEL_POLICIES = ("priority", "first", "drop")

# Columns of `Sequence.counts`; all are summed into the sampling report.
COUNTS = ("multi_label_pairs", "conflicting_pairs", "one_sided_pairs", "untyped_pairs", "unnamed_annotations",
          "missing_partners", "duplicate_ids", "missing_images")  # fmt: skip


@dataclass
class Sequence:
    """One annotated sequence: F frames, R people (rows), M annotated undirected pairs."""

    name: str
    width: int
    height: int
    size_source: str  # the image the size was read from, or why it could not be
    keys: list[str]  # F frame names, "000015.jpg"
    times: np.ndarray  # (F,) int64 frame numbers, 15 per second
    starts: np.ndarray  # (F+1,) int64; the people of frame f are rows starts[f]:starts[f+1]
    boxes: np.ndarray  # (R, 4) float64 x, y, w, h in pixels; x + w may run past the width
    tracks: np.ndarray  # (R,) int64 into track_names
    track_names: list[str]
    groups: np.ndarray  # (R,) int64 social group id, unique within a frame; -1 where the file has none
    pairs: np.ndarray  # (M, 2) int64 rows, lower row first
    types: np.ndarray  # (M,) int64 into INTERACTION_CLASSES; -1 where --multi_label drop left none
    image_found: np.ndarray  # (F,) bool
    counts: dict[str, int] = field(default_factory=dict)

    def frame_of_row(self) -> np.ndarray:
        """(R,) int64 frame index of every person."""
        return np.repeat(np.arange(len(self.keys)), np.diff(self.starts))


def list_sequences(data_path: Path | str) -> dict[str, Path]:
    """Name -> label file of every sequence, by name; CommandError with what was expected if none."""
    data_path = Path(data_path)
    folder = data_path / LABEL_FOLDER
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        found = (
            ", ".join(sorted(p.name for p in data_path.iterdir())[:8])
            if data_path.is_dir()
            else "no such folder"
        )
        inside = (
            sorted(p.parent.parent for p in data_path.glob(f"*/{LABEL_FOLDER}")) if data_path.is_dir() else []
        )
        raise CommandError(
            f"--data_path {data_path}: no JRDB label files\n"
            f"  expected: {folder}/SEQUENCE.json\n"
            f"  and, for pixels: {data_path / IMAGE_FOLDER}/SEQUENCE/000015.jpg\n"
            f"  found: {found or 'an empty folder'}\n"
            f"  pass {f'--data_path {inside[0]}' if inside else 'the folder that holds labels/ and images/'}"
        )
    return {check_relative_name(path.stem, str(folder)): path for path in files}


def read_sequence(path: Path, data_path: Path | str | None = None, multi_label: str = "priority") -> Sequence:
    """Read one label file. `data_path` is where its images would be (None: no image is looked for).

    Merging, stated once: a pair annotated from one side only counts as annotated; two sides that differ are
    joined (both counted). Of several labels on a pair the type is the rarest class (`priority`: others,
    sitting, conversation, standing, walking), the first written (`first`: first record by id, first name in
    it), or none (`drop`: the pair is still an interaction, but has no type when its labels fall in different
    classes). A partner who is not another person of the frame is left out; of two records with one id in a
    frame the first is kept. All of it is counted.
    """
    path = Path(path)
    if multi_label not in MULTI_LABEL_POLICIES:
        raise CommandError(f"--multi_label {multi_label}: choose from {', '.join(MULTI_LABEL_POLICIES)}")
    frames = read_frames(path)
    image_found, size, source = find_images(path.stem, list(frames), data_path)
    counts = dict.fromkeys(COUNTS, 0)
    counts["missing_images"] = int((~image_found).sum())
    ids, groups, boxes, starts = [], [], [], [0]
    first_rows, second_rows, codes = [], [], []
    code_of, name_lists = {}, []
    for key, records in frames.items():
        people = {}
        for position, record in enumerate(records):
            person = record.get("label_id") if isinstance(record, dict) else None
            if not isinstance(person, str) or not person:
                raise bad_record(path, key, position, record, "no label_id", 'add "label_id": "pedestrian:N"')
            if "box" not in record:
                raise bad_record(path, key, position, record, "no box", 'add "box": [x, y, w, h]')
            if person in people:
                counts["duplicate_ids"] += 1
            else:
                people[person] = record
        order = sorted(people, key=natural_order)
        row_of = {person: starts[-1] + i for i, person in enumerate(order)}
        for person in order:
            record = people[person]
            ids.append(person)
            boxes.append(record["box"])
            groups.append(read_group(path, key, person, record))
            for entry in read_interactions(path, key, person, record):
                partner = row_of.get(entry["pair"])
                if partner is None or entry["pair"] == person:
                    counts["missing_partners"] += 1
                    continue
                names = tuple(entry["inter_labels"])
                if names not in code_of:
                    check_names(path, key, person, names)
                    code_of[names] = len(name_lists)
                    name_lists.append(names)
                first_rows.append(row_of[person])
                second_rows.append(partner)
                codes.append(code_of[names])
        starts.append(len(ids))
    if not ids:
        raise DataError(
            f"{path}: no person in any of its {len(frames)} frames\n  remove the file or restore its labels"
        )
    track_names = sorted(set(ids), key=natural_order)
    track_of = {name: i for i, name in enumerate(track_names)}
    keys, starts = list(frames), np.array(starts)

    def place(row: int) -> str:
        return f"frame {keys[np.searchsorted(starts, row, side='right') - 1]}, {ids[row]}"

    directed = np.array([first_rows, second_rows, codes], np.int64)
    pairs, types, merged = merge_annotations(directed, name_lists, multi_label)
    return Sequence(
        name=path.stem,
        width=size[0],
        height=size[1],
        size_source=source,
        keys=keys,
        times=np.array([int(Path(key).stem) for key in keys]),
        starts=starts,
        boxes=check_boxes(path, boxes, *size, source, place),
        tracks=np.array([track_of[person] for person in ids]),
        track_names=track_names,
        groups=np.array(groups),
        pairs=pairs,
        types=types,
        image_found=image_found,
        counts=counts | merged,
    )


def find_images(
    name: str, keys: list[str], data_path: Path | str | None
) -> tuple[np.ndarray, tuple[int, int], str]:
    """Which frames have an image, (width, height) of the panorama and where that size comes from."""
    folder = Path(data_path) / IMAGE_FOLDER / name if data_path is not None else None
    images = list_images(folder) if folder is not None else []
    present = set(images)
    found = np.array([key in present for key in keys])
    if not images:
        return found, PANORAMA_SIZE, "no image; the official JRDB panorama is assumed"
    return found, read_image_size(folder / images[0]), f"{name}/{images[0]}"


def list_images(folder: Path) -> list[str]:
    """The names of the images in a sequence's folder, sorted; none where there is no such folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png")))


def check_names(path: Path, key: str, person: str, names: tuple[str, ...]) -> None:
    """DataError, with the nearest known name, for an interaction name that is not one of the 19."""
    for name in names:
        if name not in CLASS_OF_NAME:
            close = difflib.get_close_matches(name, INTERACTION_NAMES, n=1)
            known = f"known names: {', '.join(INTERACTION_NAMES[:4])} ..."
            raise DataError(
                f"{path}: frame {key}, {person}\n  unknown interaction name {name!r}; "
                f"{f'did you mean {close[0]!r}?' if close else known}\n"
                "  correct the file, or add the name to CLASS_OF_NAME in datasets/jrdb/labels.py"
            )


def merge_annotations(
    directed: np.ndarray, name_lists: list[tuple[str, ...]], policy: str
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Directed annotations -> undirected pairs (M, 2), lower row first, types (M,) and counts.

    directed (3, D) int64: row of the person annotated, row of the partner, index into `name_lists`.
    """
    named = np.array([len(names) > 0 for names in name_lists], bool)[directed[2]]
    counts = {"unnamed_annotations": int((~named).sum())}
    first, second, code = directed[:, named]
    if not len(first):
        return np.empty((0, 2), np.int64), np.empty(0, np.int64), counts
    # One bit per name: the labels of a pair from either side are ORs of these.
    bits = np.array([sum({1 << INTERACTION_NAMES.index(n) for n in names}) for names in name_lists], np.int64)
    pairs = np.sort(np.stack([first, second], 1), axis=1)
    order = np.lexsort((first, pairs[:, 1], pairs[:, 0]))  # stable: one direction keeps the order of the file
    pairs, code, forward = pairs[order], code[order], (first < second)[order]
    begin = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(1)])
    there = np.bitwise_or.reduceat(np.where(forward, bits[code], 0), begin)
    back = np.bitwise_or.reduceat(np.where(forward, 0, bits[code]), begin)
    classes = np.zeros(len(begin), np.int64)  # one bit per class
    for index, name in enumerate(INTERACTION_NAMES):
        classes |= (((there | back) >> index) & 1) << CLASS_OF_NAME[name]
    types = np.frexp(classes)[1].astype(np.int64) - 1  # the highest bit: classes go from frequent to rare
    if policy == "first":
        types = np.array([CLASS_OF_NAME[name_lists[c][0]] for c in code[begin]], np.int64)
    elif policy == "drop":
        types[(classes & (classes - 1)) != 0] = -1
    counts["multi_label_pairs"] = int((((there & (there - 1)) != 0) | ((back & (back - 1)) != 0)).sum())
    counts["conflicting_pairs"] = int(((there != back) & (there > 0) & (back > 0)).sum())
    counts["one_sided_pairs"] = int(((there == 0) | (back == 0)).sum())
    counts["untyped_pairs"] = int((types < 0).sum())
    return pairs[begin], types, counts
