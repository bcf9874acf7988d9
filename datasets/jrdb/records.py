"""The records of one label file, as they stand in it: people by frame, their boxes, groups and interactions.

What is wrong is gathered in `Problems`, with the file, the frame and the person.
"""

import difflib
import gc
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.images import check_relative_name, read_image_size
from datasets.jrdb.problems import Problems
from utils.run.errors import DataError

IMAGE_FOLDER = Path("images") / "image_stitched"
PANORAMA_SIZE = (3760, 480)  # width, height of the stitched JRDB panorama, for sequences without any image
BOX_GRID = 1024  # boxes are rounded to 1/1024 pixel: sums and differences of them are exact in float64
ANY_OTHER = "*"  # in a class map: whatever name is not in it


class Person(NamedTuple):
    """One record: who, in which frame (index), and where that stands, for messages."""

    frame: int
    id: str
    record: dict
    place: str


def read_frames(path: Path, problems: Problems) -> dict[str, list]:
    """Frame name -> its records, sorted by frame number; parsed without garbage collection, 2x faster."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        problems.add("not valid JSON", "download or copy the file again", f"{path}: {error}")
        return {}
    except OSError as error:
        problems.add("can not be read", "check the file and its permissions", f"{path}: {error.strerror}")
        return {}
    finally:
        if enabled:
            gc.enable()
    frames = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(frames, dict) or not frames:
        remedy = 'expected {"labels": {"000015.jpg": [records]}}: check that it is a JRDB-Social label file'
        problems.add("no frames", remedy, f"{path}")
        return {}
    numbers = {}
    for key, records in frames.items():
        try:
            check_relative_name(key, str(path))
        except DataError as error:
            problems.add("a frame's name leads elsewhere", "rename the frame", str(error).splitlines()[0])
            continue
        if (number := frame_number(key)) is None:
            remedy = "expected a number and an ending, such as 000015.jpg"
            problems.add("frame name without a number", remedy, f"{path}: frame name {key!r}")
        elif not isinstance(records, list):
            remedy = "a frame is a list of records"
            problems.add("a frame is no list", remedy, f"{path}: frame {key} holds {type(records).__name__}")
        elif numbers.setdefault(number, key) != key:
            where = f"{path}: frames {numbers[number]} and {key} have one number"
            problems.add("two frames with one number", "keep one of them", where)
    return {numbers[number]: frames[numbers[number]] for number in sorted(numbers)}


def frame_number(key: str) -> int | None:
    """The last number in a frame's name, such as 15 of 000015.jpg or IMG_15.png; None where there is none."""
    match = re.fullmatch(r"(?:.*[^0-9])?([0-9]{1,9})[^0-9]*\.(jpg|jpeg|png)", key, re.IGNORECASE)
    return int(match[1]) if match else None


def read_people(
    frames: Mapping[str, list], path: Path, counts: dict[str, int], problems: Problems
) -> Iterator[Person]:
    """Everybody, frame by frame and by id; of two records with one id in a frame the first counts."""
    for frame, (key, records) in enumerate(frames.items()):
        people = {}
        for position, record in enumerate(records):
            person = record.get("label_id") if isinstance(record, dict) else None
            missing = "label_id" if not isinstance(person, str) or not person else "box"
            if missing == "label_id" or "box" not in record:
                example = '"label_id": "pedestrian:N"' if missing == "label_id" else '"box": [x, y, w, h]'
                problems.add(f"no {missing}", f"add {example}, or remove the record",
                             f"{path}: frame {key}, record {position}: {str(record)[:80]}")  # fmt: skip
            elif person in people:
                counts["duplicate_ids"] += 1
            else:
                people[person] = record
        for person in sorted(people, key=natural_order):
            yield Person(frame, person, people[person], f"{path}: frame {key}, {person}")


def natural_order(person: str) -> tuple[int, str]:
    """pedestrian:9 before pedestrian:10."""
    return len(person), person


def read_group(person: Person, problems: Problems) -> tuple[int, int]:
    """The social group id of a person, -1 where it is in none, and the group label's difficulty (0 to 3)."""
    entry = person.record.get("social_group")
    group, hard = (
        (entry.get("cluster_ID"), entry.get("cluster_stat")) if isinstance(entry, dict) else (entry, 0)
    )
    if group is None:
        group = -1
    if isinstance(group, bool) or not isinstance(group, int) or not -(2**62) < group < 2**62:
        remedy = "expected a whole number; below 0 is nobody's group"
        problems.add("social_group cluster_ID is no number", remedy, f"{person.place}: cluster_ID {group!r}")
        group = -1
    return max(group, -1), hard if type(hard) in (int, float) else 0


def read_interactions(person: Person, problems: Problems) -> list[tuple[str, tuple]]:
    """(partner, ((name, difficulty), ..)) of a person's H-interaction entries (HHI in later files).

    A name whose value is 0 is no label. Empty where the key is absent.
    """
    entries, found = person.record.get("H-interaction", person.record.get("HHI")) or [], []
    for entry in entries if isinstance(entries, list) else [None]:
        labels = entry.get("inter_labels") if isinstance(entry, dict) else None
        if not isinstance(labels, dict) or not isinstance(entry.get("pair"), str):
            remedy = 'expected [{"pair": "pedestrian:N", "inter_labels": {"walking together": 1}}]'
            where = f"{person.place}, H-interaction: {str(entry)[:80]}"
            problems.add("an H-interaction entry of another form", remedy, where)
            continue
        difficulty = {name: v if type(v) in (int, float) else 1 for name, v in labels.items()}
        found.append((entry["pair"], tuple((name, v) for name, v in difficulty.items() if v > 0)))
    return found


def unknown_names(names: Iterable[str], classes: dict[str, int], place: str, problems: Problems) -> list[str]:
    """The names that have no class, gathered as problems with the nearest name that has one."""
    unknown = [name for name in names if name not in classes and ANY_OTHER not in classes]
    for name in unknown:
        close = difflib.get_close_matches(name, classes, n=1)
        what = f"unknown interaction name {name!r}" + (f", did you mean {close[0]!r}?" if close else "")
        remedy = 'correct the files, or give its class: --class_map FILE.json of {"name": "class"}'
        problems.add(what, remedy, place)
    return unknown


def clean_boxes(
    boxes: list, width: int, height: int, source: str, counts: dict[str, int]
) -> tuple[np.ndarray, dict[int, str]]:
    """(R, 4) float64 boxes on the 1/1024 pixel grid of a panorama sized by `source`, and {row: what is bad}.

    x is wrapped into [0, width), rows beyond the upper and lower edge are clipped; both are counted into
    `counts`, as are the bad ones. x + w may exceed width.
    """
    four = [isinstance(b, list) and len(b) == 4 and all(type(v) in (int, float) for v in b) for b in boxes]
    finite = [ok and all(abs(v) < 1e9 for v in box) for ok, box in zip(four, boxes, strict=True)]
    rows = [box if ok else [0, 0, 1, 1] for ok, box in zip(finite, boxes, strict=True)]
    x, y, w, h = np.array(rows, float).reshape(-1, 4).T
    outside = (x + w <= 0) | (x >= width) | (w > width) | (y + h <= 0) | (y >= height)
    bad = {}
    for wrong, what in (
        (outside, f"a box outside the {width}x{height} panorama (size from {source})"),
        ((w <= 0) | (h <= 0), "a box whose width and height are not positive"),
        (~np.array(finite, bool), "a box with a coordinate that is not finite"),
        (~np.array(four, bool), "a box that is not four numbers x, y, w, h"),
    ):
        bad |= dict.fromkeys(np.flatnonzero(wrong).tolist(), what)
    good = np.ones(len(x), bool)
    good[list(bad)] = False
    top, bottom = np.maximum(y, 0), np.minimum(y + h, height)
    counts["wrapped_boxes"] += int((good & (x < 0)).sum())
    counts["clipped_boxes"] += int((good & ((y < 0) | (y + h > height))).sum())
    counts["skipped_boxes"] += len(bad)
    grid = np.rint(np.stack([x, top, w, bottom - top], axis=1) * BOX_GRID)
    grid[:, 0] %= width * BOX_GRID
    return np.maximum(grid, [0, 0, 1, 1]) / BOX_GRID, dict(sorted(bad.items()))


def find_images(
    name: str, keys: list[str], data_path: Path | str | None, problems: Problems
) -> tuple[np.ndarray, tuple[int, int], str]:
    """Which frames have an image, (width, height) of the panorama and where that size comes from."""
    folder = Path(data_path) / IMAGE_FOLDER / name if data_path is not None else None
    images = list_images(folder) if folder is not None else []
    found = np.isin(keys, images) if keys else np.zeros(0, bool)
    if images:
        try:
            return found, read_image_size(folder / images[0]), f"{name}/{images[0]}"
        except DataError as error:
            remedy = "copy it again, or remove it"
            problems.add("an image can not be read", remedy, str(error).splitlines()[0])
    return found, PANORAMA_SIZE, "no image; the official JRDB panorama is assumed"


def list_images(folder: Path) -> list[str]:
    """The names of the images in a sequence's folder, sorted; none where there is no such folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png")))
