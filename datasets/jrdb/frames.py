"""The frames of a sequence: their numbers, and which of them have an image."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.images import read_image_size
from datasets.jrdb.problems import Problems
from utils.run.errors import DataError, some

PANORAMA_SIZE = (3760, 480)  # width, height of the stitched JRDB panorama, for sequences without images
DATE = "20[0-9]{2}-?[01][0-9]-?[0-3][0-9]"
HOUR = "(?:0[1-9]|1[0-9]|2[0-3]|00(?=[-.]))"  # 000015 may be a frame
NO_NUMBER = (
    "-[0-9]+$",  # -1
    ".*[0-9]:[0-9]",  # times such as 0:15
    r"(?:[0-9]*|.*[0-9]{10})\.[0-9]+(?:\.[A-Za-z]+)?$",  # 1.5, cam_1305031102.175304.png
    r"[0-9]{10}_[0-9]+(?:\.[A-Za-z]+)?$",  # 1305031102_175304.png
    rf".*{DATE}[ T_-]+{HOUR}(?:[-.]?[0-5][0-9]){{2}}\.?[0-9]{{0,3}}[^0-9]*$",  # IMG_20240311_101500.jpg
)
# A frame's number is the last in its name, 15 in IMG_15.png.
NUMBER = re.compile(rf"(?!{'|'.join(NO_NUMBER)})(?:.*[^0-9])?([0-9]{{1,9}})[^0-9]*")


class Images(NamedTuple):
    """The images of a sequence of F frames."""

    keys: list[str]  # the name of the image or, without one, of the frame
    found: np.ndarray  # (F,) bool: the frame has an image
    size: tuple[int, int]  # width, height of the panorama
    source: str  # where the size comes from, in words


def frame_number(name: str) -> int | None:
    """The number in the name of a frame or image; None if there is none of at most nine digits."""
    # Roboflow renames IMG_15.png to IMG_15_png.rf.HASH.png.
    match = NUMBER.fullmatch(name.partition(".rf.")[0])
    return int(match[1]) if match else None


def number_frames(frames: Mapping[str, str], problems: Problems) -> dict[int, str]:
    """{number: name} in order, of frames {name: where it stands}. A name without a number is a problem, two
    names with the same number are another."""
    numbers = {}
    for name, where in frames.items():
        number = frame_number(name)
        if number is None:
            remedy = "expected a count of at most nine digits (no time) at --frame_rate, such as 000015.jpg"
            problems.add("frame name without a number", remedy, f"{where}, frame {name!r}")
        elif numbers.setdefault(number, name) != name:
            remedy = "the last number in a name counts: rename the frames, or name the sequence of each"
            problems.add("two frames with the same number", remedy, f"{where}: {numbers[number]} and {name}")
    return dict(sorted(numbers.items()))


def number_images(folder: Path, frames: Mapping[int, str], problems: Problems) -> dict[int, str]:
    """{number: image} of the images in a folder, by number. Of several with the number of a frame that which
    is called as `frames` {number: name} say counts, else they are a problem. Others: frames without an image
    that would all have one if they were numbered one higher or lower, because one side counts from 1, the
    other from 0 (a note, if that may be so without a missing image), or that count the images, as trackers
    do, which are numbered otherwise."""
    files, own = {}, {*frames.values()}
    for file in sorted(list_images(folder), key=lambda file: file not in own):
        number = frame_number(file)
        if files.setdefault(number, file) not in (file, frames.get(number)) and number in frames:
            remedy = "keep one image per frame, each camera in a folder of its own"
            problems.add("two images with the same number", remedy, f"{folder}: {files[number]} and {file}")
    files.pop(None, None)
    missing = frames.keys() - files
    for step in (1, -1):
        off = missing and files and (min(frames) < min(files) if step == 1 else max(frames) > max(files))
        if off and {number + step for number in frames} <= files.keys():
            where = f"{folder}: frames {min(frames)} to {max(frames)}, images {min(files)} to {max(files)}"
            remedy = f"number the frames as the images: add {step} to each"
            problems.add("frame numbers that are one off", remedy, where)
    if missing and files and len(files) - 1 <= max(frames) <= len(files) < max(files):
        where = f"{folder}: frames {some(sorted(frames), 3)} of {len(files)} images"
        remedy = f"give each the number of its image, one of {some(sorted(files), 3)}"
        problems.add("frame numbers that count the images", remedy, where)
    elif frames and files and (min(files), min(frames)) == (0, 1):
        problems.notes.append("images begin with 0, boxes with 1: if frames are counted from 1, subtract 1")
    return dict(sorted(files.items()))


def match_images(folder: Path | None, frames: Mapping[int, str], problems: Problems) -> Images:
    """Which of the frames {number: name} have an image in the folder, if given, and the size of the first
    readable one."""
    files = number_images(folder, frames, problems) if folder else {}
    keys = [files.get(number, name) for number, name in frames.items()]
    found = np.isin(list(frames), list(files))
    for file in files.values():
        try:
            return Images(keys, found, read_image_size(folder / file), f"{folder.name}/{file}")
        except DataError as error:
            reason = str(error).splitlines()[0]
    if files:
        problems.add("no image can be read", "copy the images again, or remove them", reason)
    return Images(keys, found, PANORAMA_SIZE, "no image; the official JRDB panorama is assumed")


def list_images(folder: Path) -> list[str]:
    """The sorted names of the images in a sequence's folder; [] if there is no such folder."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    ending = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
    return sorted(name for name in names if name[0] != "." and name.lower().endswith(ending))
