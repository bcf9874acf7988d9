"""The pixels of ultrasound images: decoded once into the cache with one grey scale for all, read in batches.

B-mode images are grey. They are read as luminance, which is the grey value itself if the three channels are
equal; --colour keeps three channels.
"""

import argparse
import contextlib
import hashlib
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import Dataset

from datasets.cache import open_cache
from datasets.images import has_more_than_8_bits, read_grey, read_grey_limits, read_image
from datasets.ultrasound.problems import AgeProblems
from utils.run.errors import CommandError, DataError, some
from utils.run.log import LOG

GROUPS = ("group", "sex", "bmi")  # of subjects, if the table has them: errors are reported for each
# Where the scanner prints, as fractions of height and width: top, bottom, left, right. In the 504x480
# originals the text is in rows 418 to 434 and columns 0 to 148, the ruler's ticks are in rows 473 to 480.
TEXT_BANDS = ((0.855, 0.92, 0.0, 0.32), (0.98, 1.0, 0.0, 1.0))
DRAWINGS = "{} images are almost entirely black and white, like masks; they are read like any other: {}"
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
LIMITS = np.dtype([("low", "<u2"), ("high", "<u2")])  # grey values of an image of over 8 bits


def decode_images(
    images: pd.DataFrame, train: Collection[str], args: argparse.Namespace
) -> tuple[pd.DataFrame, np.ndarray, list[float]]:
    """Decode all images into the cache; those of more than 8 bits ("deep") share one range of grey values.

    Returns `images` with the flags deep and cut (values beyond the range), the decoded images, (N,) of
    `sample_type`, and the range, [black, white]. One range keeps the brightness of images comparable; without
    --intensity_range it is the bit depth that the images of the subjects in `train` need."""
    cached = partial(open_cache, item_shape=(), cache_dir=args.cache_dir, limit_gb=args.cache_limit_gb)
    paths, limits = images.path.tolist(), args.intensity_range
    if limits and limits[0] >= limits[1]:
        raise CommandError("--intensity_range: LOW is not below HIGH")
    if "deep" not in images:
        images = images.assign(deep=[has_more_than_8_bits(path) for path in paths], cut=False)
    deep = images[images.deep]
    if len(deep):
        files = deep.path.tolist()
        read, counts = partial(_read_limits, files), [1] * len(files)
        found = cached("ultrasound_limits", {}, files, counts, produce=read, dtype=LIMITS)
        lows, highs = found["low"].astype(int), found["high"].astype(int)  # (N,) each
        if limits is None:
            in_train = highs[deep.subject.isin(train)]
            highest = int(max(in_train if len(in_train) else highs))
            limits = [0, 2 ** max(8, highest.bit_length()) - 1]
        images.loc[deep.index, "cut"] = cut = (lows < limits[0]) | (highs > limits[1])
        if 2 * cut.sum() > len(images):  # said before such images are taken for copies
            beyond = f"{cut.sum()} of {len(images)} images hold values beyond {limits}"
            LOG.warning(f"{beyond} (--intensity_range)")
    limits = [float(limit) for limit in limits or (0, 255)]  # as --config reads them: the same cache
    options = {"image_size": list(args.image_size), "colour": args.colour}
    options["intensity_range"] = limits if len(deep) else None
    sample = sample_type(args.image_size, args.colour)
    read, counts = partial(_decode, paths, options, sample), [1] * len(paths)
    return images, cached("ultrasound", options, paths, counts, produce=read, dtype=sample), limits


def sample_type(image_size: Sequence[int], colour: bool) -> np.dtype:
    """The cache entry of an image: pixels (1 or 3, H, W), whether colour was lost, and whether they are blank
    because the file cannot be read."""
    shape = (3 if colour else 1, *image_size)
    return np.dtype([("pixels", np.uint8, shape), ("colour_lost", bool), ("unreadable", bool)])


def _read_limits(paths: Sequence[Path], k: int) -> np.ndarray:
    item = np.zeros(1, LIMITS)
    with contextlib.suppress(DataError):
        item[0] = read_grey_limits(paths[k])
    return item


def _decode(paths: Sequence[Path], options: dict[str, Any], sample: np.dtype, k: int) -> np.ndarray:
    item = np.zeros(1, sample)
    try:
        item["pixels"], item["colour_lost"] = read_sample(paths[k], **options)
    except DataError:
        item["unreadable"] = True
    return item


def read_sample(
    source: Path | np.ndarray, image_size: Sequence[int], colour: bool = False,
    intensity_range: Sequence[float] | None = None,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """(image resized to (1, H, W) uint8, or (3, H, W) in colour, aspect not kept; whether colour was lost).

    source: its file, or its pixels (h, w) or (h, w, 3) uint8. Bilinear with antialiasing. Raises DataError.
    """
    (height, width), colour_lost = image_size, False
    if isinstance(source, np.ndarray):
        pixels = np.asarray(Image.fromarray(source).convert("RGB" if colour else "L"))
    elif colour:
        pixels = read_image(source, "RGB", intensity_range)
    else:
        pixels, colour_lost = read_grey(source, intensity_range)
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return np.moveaxis(np.atleast_3d(pixels), 2, 0), colour_lost


def judge_pixels(images: pd.DataFrame, decoded: np.ndarray, problems: AgeProblems) -> pd.DataFrame:
    """The images that can be read and belong to one subject only, with their hashes; the index, which is the
    row in `decoded`, stays. Other images go to `problems`. Raises DataError for those not excluded."""
    for path in images.path[decoded["unreadable"]]:
        reason = "not readable when the cache was built: delete it (data/cache, or --cache_dir)"
        try:
            read_image(path, mode="L")
        except DataError as error:
            reason = str(error).splitlines()[0].removeprefix(f"{path}: ").rstrip(".")
        problems.add("unreadable_images", path.name, reason)
    images, stored = images[~decoded["unreadable"]], decoded["pixels"]
    pixels = [stored[k] for k in images.index]  # views: the file is not read into memory
    images = images.assign(hash=[hashlib.sha256(image).hexdigest() for image in pixels])
    names, owner = images.path.map(lambda path: path.name), images.subject.to_numpy()
    shared = images.groupby("hash").subject.transform("nunique") > 1
    for _, same in names[shared].groupby(images.hash, sort=False):
        problems.add("duplicate_images", some(same, 4, " = "))
    for pair in find_copies(pixels, owner) if not shared.all() else ():
        if images.hash.iloc[pair].nunique() > 1:
            problems.add("duplicate_images", " = ".join(names.iloc[pair]) + " (saved again)")
            shared.iloc[pair] = True
    if any(faint := [int(image.max()) - image.min() < 16 for image in pixels]):
        problems.notes.append(f"{sum(faint)} images span less than 16 of 256 greys: {some(names[faint], 3)}")
    if any(drawn := [is_drawing(image) for image in pixels]):
        LOG.warning(DRAWINGS.format(sum(drawn), some(names[drawn], 3)))
    images = images[~shared]
    problems.refuse(images)
    return images


def find_copies(images: Sequence[np.ndarray], owner: np.ndarray) -> list[list[int]]:
    """Pairs of images (N of C, H, W) of different owners (N,) that show the same, as when one was saved again
    as JPEG: their differences from the mean image are nearly equal in 4 x 4 pixels and correlate in detail
    (in real images .99 with a copy, at most .57 with another person's image)."""
    from scipy.spatial import cKDTree  # slow to import

    mean = sum(image.astype(np.float32) for image in images) / len(images)
    small = [F.adaptive_avg_pool2d(torch.from_numpy(image - mean), 4).numpy().ravel() for image in images]
    reach, pairs = 0.1 * np.linalg.norm(small, axis=1), set()
    for k, near in enumerate(cKDTree(small).query_ball_point(small, reach)):
        near = near if images[k].min() < images[k].max() else []  # not of a uniform image
        pairs |= {(*sorted((j, k)),) for j in near if owner[j] != owner[k]}
    with np.errstate(all="ignore"):  # the correlation of images without details is NaN
        details = ((pair, [np.diff(images[k] - mean).ravel() for k in pair]) for pair in sorted(pairs))
        return [list(pair) for pair, two in details if np.corrcoef(two)[0, 1] > 0.98]


def is_drawing(image: np.ndarray) -> bool:
    """Whether few pixels of an image (C, H, W) lie between its lowest and highest value, as in a mask. On a
    black screen a scan is small too, but hardly any of its pixels has the highest value."""
    low, high = ((image == limit).mean() for limit in (image.min(), image.max()))
    return bool(low < 1 and 1 - low - high < max(0.08, min(0.3, low, high)))  # real images: at least half


class UltrasoundAgeDataset(Dataset):
    """One part of a split. A sample is an image; `__getitems__` returns a batch as a dict of tensors:

    images (B, 1, H, W) uint8, with --colour (B, 3, H, W); ages (B,) float32 in --target_unit;
    subject_ids (B,) int64, positions in `subjects`; indices (B,) int64, the samples asked for.
    Attributes: `subjects`, the names, and per sample files (names), ages, subject_ids and groups, a list for
    each of GROUPS that the table has ("" for a blank cell)."""

    def __init__(self, decoded: np.ndarray, images: pd.DataFrame, mask_text: bool = False) -> None:
        """decoded: all images, from `decode_images`. images: path, subject, age and GROUPS of this part; the
        index is the row in decoded."""
        self.decoded, self.mask_text = decoded, mask_text
        self.rows = images.index.to_numpy()
        self.files = [path.name for path in images.path]
        self.subjects = sorted(set(images.subject))
        self.subject_ids = np.searchsorted(self.subjects, images.subject.tolist())
        self.ages = images.age.to_numpy(np.float32)
        self.frames = np.arange(len(images))  # each image is a frame of its own
        self.groups = {key: images[key].tolist() for key in GROUPS if key in images and images[key].any()}

    def statistics(self) -> np.ndarray:
        """(N, 31) `grey_statistics`, the inputs of a reference model without learned features."""
        images = (self.__getitems__([k])["images"][0].numpy() for k in range(len(self)))
        return np.stack([grey_statistics(image) for image in images])

    def group_names(self) -> list[str]:
        return list(self.subjects)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        indices = np.asarray(indices, dtype=np.int64)
        pixels = self.decoded[self.rows[indices]]["pixels"]
        images = torch.from_numpy(np.ascontiguousarray(pixels))  # (B, 1, H, W), with --colour (B, 3, H, W)
        if self.mask_text:
            images = blank_text(images)
        return {
            "images": images,
            "ages": torch.from_numpy(self.ages[indices]),
            "subject_ids": torch.from_numpy(self.subject_ids[indices]),
            "indices": torch.from_numpy(indices),
        }


def grey_statistics(image: np.ndarray) -> np.ndarray:
    """(31,) numbers on the greys of an image (C, H, W): mean, standard deviation, skewness, nine percentiles,
    mean steps along columns and rows, spread of the Laplacian, and the means of 4 x 4 fields."""
    grey = image.mean(axis=0, dtype=np.float32)  # (H, W)
    mean, sd = grey.mean(), grey.std() + 1e-6
    down, right = np.diff(grey, axis=0), np.diff(grey, axis=1)
    bend = np.diff(down, axis=0)[:, 1:-1] + np.diff(right, axis=1)[1:-1]
    fields = [part.mean() for rows in np.array_split(grey, 4) for part in np.array_split(rows, 4, axis=1)]
    off = grey - mean
    levels = mean, sd, (off * off * off).mean() / sd**3, *np.percentile(grey, PERCENTILES)
    texture = np.abs(down).mean(), np.abs(right).mean(), bend.std()
    return np.nan_to_num(np.array([*levels, *texture, *fields], np.float32))  # of less than 4 pixels


def blank_text(images: torch.Tensor) -> torch.Tensor:
    """Set the burnt-in text and the ruler of (..., H, W) images to black, in place; returns the images."""
    height, width = images.shape[-2:]
    for top, bottom, left, right in TEXT_BANDS:
        rows = slice(int(top * height), int(np.ceil(bottom * height)))
        images[..., rows, int(left * width) : int(np.ceil(right * width))] = 0
    return images
