"""The frames of a sequence: their numbers, and which of them have an image."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.images import read_image_size
from datasets.jrdb.problems import Problems
from utils.run.errors import DataError
from utils.run.log import LOG

PANORAMA_SIZE = (3760, 480)  # width, height of the stitched JRDB panorama, for sequences without images
# A frame's number is the last in its name, 15 in IMG_15.png; a time (1.5, 0:15, 1305031102.175304.png) has
# none, nor has -1.
NUMBER = re.compile(r"(?!-[0-9]+$|.*[0-9]:[0-9]|(?:[0-9]*\.|[0-9]{10}_)[0-9]+(?:\.[A-Za-z]+)?$)"
                    r"(?:.*[^0-9])?([0-9]{1,9})[^0-9]*")  # fmt: skip


class Images(NamedTuple):
    found: np.ndarray  # (F,) bool: the frame has an image
    size: tuple[int, int]  # width, height of the panorama
    source: str  # where the size comes from, in words


def frame_number(name: str) -> int | None:
    """The number in the name of a frame or image; None if there is none of at most nine digits."""
    # Roboflow renames IMG_15.png to IMG_15_png.rf.HASH.png.
    match = NUMBER.fullmatch(name.partition(".rf.")[0])
    return int(match[1]) if match else None


def find_images(folder: Path, files: list[str], keys: list[str], problems: Problems) -> Images:
    """Which frames `keys` have an image among the `files`, and the size of the first file."""
    found = np.isin(keys, files or [""])
    try:
        if files:
            return Images(found, read_image_size(folder / files[0]), f"{folder.name}/{files[0]}")
    except DataError as error:
        problems.add("an unreadable image", "copy it again, or remove it", str(error).splitlines()[0])
    return Images(found, PANORAMA_SIZE, "no image; the official JRDB panorama is assumed")


def check_numbering(folder: Path, times: Iterable[int], files: Iterable[int], problems: Problems) -> None:
    """Add a problem if some frames have no image but all would have one if they were numbered one higher or
    lower: one side counts from 1, the other from 0. Warn if that may be so without a missing image."""
    times, files = {*times}, {*files}
    missing = times - files
    for step in (1, -1):
        if missing and {number + step for number in times} <= files:
            where = f"{folder}: frames {min(times)} to {max(times)}, images {min(files)} to {max(files)}"
            remedy = f"number the frames as the images: add {step} to each"
            problems.add("frame numbers that are one off", remedy, where)
    if times and files and (min(files), min(times)) == (0, 1):
        LOG.warning(f"{folder}: images begin with 0, boxes with 1: if frames are counted from 1, subtract 1")


def list_images(folder: Path) -> list[str]:
    """The sorted names of the images in a sequence's folder; [] if there is no such folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    ending = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
    return sorted(name for name in names if name[0] != "." and name.lower().endswith(ending))
