"""The pixels of ultrasound images: decoded once into the cache, with one scale of grey for all of them.

B-mode images are grey: they are read as luminance, the grey value itself where the three channels are equal,
unless --colour keeps the three channels.
"""

import argparse
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from datasets.cache import open_cache
from datasets.images import has_more_than_8_bits, read_grey, read_grey_limits, read_image
from datasets.ultrasound.records import Records, refuse_problems
from utils.run.errors import DataError
from utils.run.log import LOG

# Where the scanner prints, as fractions of height and width: top, bottom, left, right. In the 504x480
# originals the text stands in rows 418 to 434 and columns 0 to 148, the ruler's ticks in rows 473 to 480.
TEXT_BANDS = ((0.855, 0.92, 0.0, 0.32), (0.98, 1.0, 0.0, 1.0))


def blank_text(images: torch.Tensor) -> torch.Tensor:
    """Set the burnt-in text and the ruler of (..., H, W) images to black, in place; returns the images."""
    height, width = images.shape[-2:]
    for top, bottom, left, right in TEXT_BANDS:
        rows = slice(int(top * height), int(np.ceil(bottom * height)))
        images[..., rows, int(left * width) : int(np.ceil(right * width))] = 0
    return images


def read_sample(
    path: str | Path,
    image_size: Sequence[int],
    colour: bool = False,
    intensity_range: Sequence[float] | None = None,
) -> np.ndarray:
    """One image as the data set stores it, squashed to (H, W): uint8 (1, H + 1, W), or 3 channels of colour.

    Bilinear with antialiasing. The last row is no part of the image: its first value says whether the file
    shows colour that is lost here. Raises DataError.
    """
    height, width = image_size
    lost = False
    if colour:
        pixels = read_image(path, "RGB", intensity_range)
    else:
        pixels, lost = read_grey(path, intensity_range)
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    sample = np.zeros((3 if colour else 1, height + 1, width), np.uint8)
    sample[:, :-1] = np.moveaxis(np.atleast_3d(pixels), 2, 0)
    sample[:, -1, 0] = lost
    return sample


def decode_images(
    images: pd.DataFrame,
    train: Collection[str],
    records: Records,
    args: argparse.Namespace,
    cache_dir: Path | None,
) -> tuple[np.ndarray, dict[str, Any], dict[str, int]]:
    """All images, (N, C, H + 1, W) uint8, from the cache; how they were read; counts for the report.

    The intensity range of images of more than 8 bits is the bit depth that those of `train` need: one for
    all, so that brightness stays comparable. If an image can not be read, all are tried and listed.
    """
    cache = {"cache_dir": cache_dir, "limit_gb": args.cache_limit_gb, "log": LOG.info}
    deep = images[[has_more_than_8_bits(path) for path in images.path]]
    paths, chosen, cut = images.path.tolist(), args.intensity_range, 0
    try:
        if len(deep):
            produce = partial(_produce_limits, deep.path.tolist())
            limits = open_cache(
                "ultrasound_limits", {}, deep.path.tolist(), [1] * len(deep), (4,), produce, **cache
            )
            lows, highs = np.ascontiguousarray(limits).view("<u2").T.astype(int)  # (N,) each
            if chosen is None:
                mine = highs[deep.subject.isin(train)]
                greatest = int((mine if len(mine) else highs).max())
                chosen = [0, 2 ** max(8, greatest.bit_length()) - 1]
            cut = int(((lows < chosen[0]) | (highs > chosen[1])).sum())
        chosen = chosen or [0, 255]
        options = {
            "image_size": list(args.image_size),
            "colour": args.colour,
            "intensity_range": list(chosen) if len(deep) else None,
        }
        shape = (3 if args.colour else 1, args.image_size[0] + 1, args.image_size[1])
        produce = partial(_produce, paths, options)
        pixels = open_cache("ultrasound", options, paths, [1] * len(paths), shape, produce, **cache)
    except DataError:
        drop_unreadable(images, records)
        refuse_problems(records)
        raise
    read = {"intensity_range": list(chosen), "colour": args.colour}
    return pixels, read, {"images_of_more_than_8_bits": len(deep), "images_cut": cut}


def _produce(paths: Sequence[Path], options: dict[str, Any], k: int) -> np.ndarray:
    return read_sample(paths[k], **options)[None]  # (1, C, H + 1, W)


def _produce_limits(paths: Sequence[Path], k: int) -> np.ndarray:
    return np.array(read_grey_limits(paths[k]), "<u2").view(np.uint8)[None]  # (1, 4)


def drop_unreadable(images: pd.DataFrame, records: Records) -> pd.DataFrame:
    """Decode every image once; those that can not be read become problems and are left out."""
    with ProcessPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        reasons = list(pool.map(_why_unreadable, images.path, chunksize=16))
    unreadable = [(reason, path.name) for reason, path in zip(reasons, images.path, strict=True) if reason]
    records.problems["unreadable_images"] = unreadable
    records.images = images[[reason is None for reason in reasons]].reset_index(drop=True)
    return records.images.copy()


def _why_unreadable(path: Path) -> str | None:
    try:
        read_image(path, mode="L")
    except DataError as error:
        return str(error).splitlines()[0].removeprefix(f"{path}: ")
    return None
