"""People without annotations: a folder of panoramas and a CSV of boxes.

    frame,id,x,y,w,h
    000015.jpg,pedestrian:3,3724,172,56,98

One row per person and frame, pixels of the panorama, x + w past its width for a person on the seam. `frame`
is the image's name or its number, counting 15 per second: the past of a pair is found by it. With a column
`sequence` the image is FOLDER/SEQUENCE/FRAME, without it FOLDER/FRAME.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas

from datasets.images import check_relative_name, read_image_size
from datasets.jrdb.labels import Sequence, check_boxes, natural_order
from utils.run.errors import CommandError, DataError

COLUMNS = ("frame", "id", "x", "y", "w", "h")
FRAME_NAME = re.compile(r"([0-9]{1,9})(\.(jpg|jpeg|png))?")


def read_box_table(table: Path, folder: Path) -> tuple[list[Sequence], list[Path]]:
    """The sequences named in the table, and the folder of images of each.

    Without a column of sequences there is one, called as the folder. CommandError for a table that is not
    there; DataError naming the row for a missing column, a bad or doubled frame, id or box, and for frames
    without an image.
    """
    rows = read_rows(table)
    names = rows["sequence"] if "sequence" in rows else pandas.Series(folder.resolve().name, rows.index)
    sequences, folders = [], []
    for name, mine in rows.groupby(names, sort=True):
        images = folder / check_relative_name(str(name), str(table)) if "sequence" in rows else folder
        sequences.append(build_sequence(str(name), table, mine, images))
        folders.append(images)
    return sequences, folders


def read_rows(table: Path) -> pandas.DataFrame:
    """The table as text, indexed by its line in the file."""
    try:
        rows = pandas.read_csv(table, dtype=str, keep_default_na=False, skipinitialspace=True)
    except FileNotFoundError as error:
        raise CommandError(f"--boxes {table}: no such file") from error
    except (ValueError, OSError) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        raise DataError(f"{table}: not a readable CSV ({error})\n  expected: {','.join(COLUMNS)}") from error
    rows.columns = rows.columns.str.strip()
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise DataError(
            f"{table}: no column {', '.join(missing)}\n"
            f"  found: {', '.join(rows.columns)}\n  expected: {','.join(COLUMNS)} and, if several, sequence"
        )
    if rows.empty:
        raise DataError(f"{table}: no row below the header\n  expected one row per person and frame")
    rows.index += 2  # the header is line 1
    return rows


def build_sequence(name: str, table: Path, rows: pandas.DataFrame, images: Path) -> Sequence:
    """One sequence of people by frame number and id, without groups or annotated pairs."""

    def bad(line: int, what: str) -> DataError:
        return DataError(f"{table}: line {line}\n  {what}\n  correct or remove the line")

    numbers = np.zeros(len(rows), np.int64)
    for k, (line, frame, person) in enumerate(zip(rows.index, rows["frame"], rows["id"], strict=True)):
        match = FRAME_NAME.fullmatch(frame.strip().lower())
        if match is None:
            raise bad(line, f"frame {frame!r}: expected a number, 15 per second, such as 000015.jpg or 15")
        if not person.strip():
            raise bad(line, "id is empty")
        numbers[k] = int(match[1])
    values = rows[["x", "y", "w", "h"]].apply(pandas.to_numeric, errors="coerce").to_numpy(float)
    if np.isnan(values).any():
        row = int(np.isnan(values).any(axis=1).argmax())
        raise bad(
            rows.index[row], f"box {rows.iloc[row][['x', 'y', 'w', 'h']].tolist()}: four numbers needed"
        )
    people = rows["id"].str.strip().tolist()
    track_names = sorted(set(people), key=natural_order)
    tracks = np.array([track_names.index(person) for person in people])
    order = np.lexsort((tracks, numbers))
    numbers, tracks, values, lines = numbers[order], tracks[order], values[order], rows.index[order]
    doubled = np.flatnonzero((np.diff(numbers) == 0) & (np.diff(tracks) == 0))
    if len(doubled):
        k = doubled[0] + 1
        raise bad(max(lines[k - 1], lines[k]), f"id {track_names[tracks[k]]} is in frame {numbers[k]} twice")

    times, counts = np.unique(numbers, return_counts=True)
    keys = find_images(images, times, table)
    size = read_image_size(images / keys[0])
    boxes = check_boxes(
        table, values.tolist(), *size, keys[0], lambda row: f"line {lines[row]}, frame {numbers[row]}"
    )
    return Sequence(
        name=name, width=size[0], height=size[1], size_source=keys[0], keys=keys, times=times,
        starts=np.r_[0, np.cumsum(counts)], boxes=boxes, tracks=tracks, track_names=track_names,
        groups=np.full(len(boxes), -1), pairs=np.empty((0, 2), np.int64), types=np.empty(0, np.int64),
        image_found=np.ones(len(keys), bool),
    )  # fmt: skip


def find_images(folder: Path, times: np.ndarray, table: Path) -> list[str]:
    """The image file of each frame number, whatever number of digits its name has."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    matches = {name: FRAME_NAME.fullmatch(name.lower()) for name in names}
    file_of = {int(match[1]): name for name, match in matches.items() if match and match[2]}
    missing = [number for number in times.tolist() if number not in file_of]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(times)} frames in {table.name} have no image\n"
            f"  first: {', '.join(f'{number:06d}.jpg' for number in missing[:3])}; "
            f"{len(file_of)} images found\n  add the images or remove the lines"
        )
    return [file_of[number] for number in times.tolist()]


def without_annotations(sequence: Sequence) -> Sequence:
    """The same people with no pair and no group known, so that every pair in range is a sample."""
    return replace(
        sequence,
        pairs=np.empty((0, 2), np.int64),
        types=np.empty(0, np.int64),
        groups=np.full(len(sequence.boxes), -1),
    )
