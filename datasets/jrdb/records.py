"""JRDB label files as they are written; every flaw is one DataError with file, frame and record."""

import gc
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from datasets.images import check_relative_name
from utils.run.errors import DataError

# Boxes are rounded to 1/1024 pixel, so that sums and differences of them are exact in float64.
BOX_GRID = 1024


def read_frames(path: Path) -> dict[str, list]:
    """Frame name -> its records, sorted by frame number.

    The garbage collector is off while parsing (2x faster).
    """
    try:
        with no_garbage_collection():
            content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise DataError(f"{path}: not valid JSON ({error})\n  download or copy the file again") from error
    except OSError as error:
        raise DataError(
            f"{path}: can not be read ({error.strerror})\n  check the file and its permissions"
        ) from error
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


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
