"""JRDB-Social annotations as numpy columns, read one sequence at a time.

The folder is the official one; images are needed only by runs that look at pixels:

    DATA/labels/labels_2d_activity_social_stitched/SEQUENCE.json
    DATA/images/image_stitched/SEQUENCE/000015.jpg               3760x480; frame numbers count 15 per second
    DATA/split.json                                              optional; wins over --split_method

A person is a row. Rows are sorted by frame number and then by person id, whatever the order in the file, so
everything built on them is independent of the order of files, frames and records. Demographics are not read.
"""

import difflib
import gc
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.images import check_relative_name, read_image_size
from utils.run.errors import CommandError, DataError

LABEL_FOLDER = Path("labels") / "labels_2d_activity_social_stitched"
IMAGE_FOLDER = Path("images") / "image_stitched"
PANORAMA_SIZE = (3760, 480)  # width, height of the stitched JRDB panorama, for sequences without any image

# Boxes are rounded to 1/1024 pixel, so that sums and differences of them are exact in float64.
BOX_GRID = 1024

INTERACTION_CLASSES = ("walking together", "standing together", "conversation", "sitting together", "others")
# Classes go from frequent to rare among the 19 published names. The map is fixed, whatever a split's own
# counts are, so that class k means the same in every split, checkpoint and evaluation.
CLASS_OF_NAME = {name: k for k, name in enumerate(INTERACTION_CLASSES[:4])} | dict.fromkeys(
    ("going upstairs together", "moving together", "looking at robot together", "looking at sth together",
     "walking toward each other", "eating together", "going downstairs together", "bending together",
     "holding sth together", "cycling together", "interaction with door together", "hugging",
     "looking into sth together", "shaking hand", "waving hand together"), 4,
)  # fmt: skip
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


def read_frames(path: Path) -> dict[str, list]:
    """Frame name -> its records, sorted by frame number. Parsed without garbage collection, 2x faster."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise DataError(f"{path}: not valid JSON ({error})\n  download or copy the file again") from error
    except OSError as error:
        raise DataError(
            f"{path}: can not be read ({error.strerror})\n  check the file and its permissions"
        ) from error
    finally:
        if enabled:
            gc.enable()
    frames = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(frames, dict) or not frames:
        raise DataError(
            f'{path}: no frames\n  expected {{"labels": {{"000015.jpg": [records]}}}}\n'
            "  check that it is a JRDB-Social label file"
        )
    numbers = {}
    for key, records in frames.items():
        check_relative_name(key, str(path))
        if not re.fullmatch(r"[0-9]{1,9}\.(jpg|jpeg|png)", key):
            raise DataError(
                f"{path}: frame name {key!r}\n  expected a number and an ending, such as 000015.jpg"
            )
        if not isinstance(records, list):
            raise DataError(f"{path}: frame {key} holds {type(records).__name__}, not a list of records")
        if numbers.setdefault(int(Path(key).stem), key) != key:
            raise DataError(
                f"{path}: frames {numbers[int(Path(key).stem)]} and {key} have one number\n  keep one of them"
            )
    return {numbers[number]: frames[numbers[number]] for number in sorted(numbers)}


def read_group(path: Path, key: str, person: str, record: dict) -> int:
    """The social group id of a record, -1 where the file gives none."""
    group = record.get("social_group")
    group = group.get("cluster_ID") if isinstance(group, dict) else group
    if group is None:
        return -1
    if isinstance(group, bool) or not isinstance(group, int) or not 0 <= group < 2**62:
        raise DataError(
            f"{path}: frame {key}, {person}\n"
            f"  social_group cluster_ID is {group!r}, expected a whole number from 0"
        )
    return group


def read_interactions(path: Path, key: str, person: str, record: dict) -> list[dict]:
    """The H-interaction entries of a record (HHI in later files); empty where the key is absent."""
    entries = record.get("H-interaction", record.get("HHI")) or []
    for entry in entries if isinstance(entries, list) else [None]:
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("pair"), str)
            and isinstance(entry.get("inter_labels"), dict)
        ):
            raise DataError(
                f"{path}: frame {key}, {person}, H-interaction\n  found {str(entry)[:80]}\n"
                '  expected [{"pair": "pedestrian:N", "inter_labels": {"walking together": 1}}]'
            )
    return entries


def check_boxes(
    path: Path, boxes: list, width: int, height: int, source: str, place: Callable[[int], str]
) -> np.ndarray:
    """(R, 4) float64 boxes on the 1/1024 pixel grid of a width x height panorama sized by `source`.

    DataError naming the first record (by `place`) whose box is not on the panorama. x + w may exceed width.
    """

    def bad(row: int, what: str) -> DataError:
        return DataError(
            f"{path}: {place(row)}\n  box {str(boxes[row])[:80]}: {what}\n  correct or remove the record"
        )

    for row, box in enumerate(boxes):
        if not (isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)):
            raise bad(row, "expected four numbers x, y, w, h")
        if not all(abs(v) < 1e9 for v in box):
            raise bad(row, "a coordinate is not finite")
    array = np.array(boxes, dtype=np.float64)
    x, y, w, h = array.T
    outside = f"outside the {width}x{height} panorama (size from {source})"
    for wrong, what in (
        ((w <= 0) | (h <= 0), "width and height must be positive"),
        ((x < 0) | (y < 0), "x and y must not be negative (a person on the seam has x + w > width)"),
        ((x >= width) | (w > width) | (y >= height), outside),
    ):
        if wrong.any():
            raise bad(int(wrong.argmax()), what)
    return np.maximum(np.rint(array * BOX_GRID), [0, 0, 1, 1]) / BOX_GRID


def bad_record(path: Path, key: str, position: int, record: object, what: str, remedy: str) -> DataError:
    """The error for a record that lacks something, named by its place in the frame."""
    found = str(record)[:80]
    return DataError(
        f"{path}: frame {key}, record {position}\n  {what}: {found}\n  {remedy}, or remove the record"
    )


def natural_order(person: str) -> tuple[int, str]:
    """pedestrian:9 before pedestrian:10."""
    return len(person), person


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
