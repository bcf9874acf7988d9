"""People cut out of a 360-degree panorama, correct across its seam.

The rule, in this order:

1. The box x, y, w, h (pixels, x may run past the width) is rounded to whole pixels, halves up.
2. It grows by 15% (7.5% of its size on every side), then the side that is too short for the output's H:W is
   lengthened, both about the box's centre. The size is rounded to whole pixels, halves up, and the corner
   down. No person is squashed, and a crop's size depends on the box's size only, never on where it stands.
3. Columns wrap round, as often as needed: the pixels are those of the panorama tiled without end. Rows above
   and below the image take its mean colour, rounded from integer sums, so that turning the panorama together
   with its boxes changes no crop by a single bit.
4. Antialiased bilinear resize on uint8.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from datasets.cache import open_cache
from datasets.images import read_image
from utils.run.errors import DataError

MARGIN_PERCENT = 15  # of the box's width and height
RULE = 1  # part of the cache's key; raise it when a change here changes pixels


def crop_regions(boxes: np.ndarray, size: tuple[int, int], pano_width: int, pano_height: int) -> np.ndarray:
    """(n, 4) boxes x, y, w, h -> (n, 4) int64 regions left, top, width, height (steps 1 and 2).

    Raises DataError for a box that is no number, has no area, is over twice as large as the panorama, or lies
    wholly above or below it.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    limit = [2 * pano_width, 2 * pano_height]
    bad = ~(np.abs(boxes) < 1e9).all(1)  # NaN is not below it either
    bad |= (boxes[:, 2:] <= 0).any(1) | (boxes[:, 2:] > limit).any(1)
    bad |= (boxes[:, 1] >= pano_height) | (boxes[:, 1] + boxes[:, 3] <= 0)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"box {row} {boxes[row].tolist()} (x, y, w, h) can not be cut from a panorama of "
            f"{pano_width} x {pano_height}.\nCorrect the annotation or leave this person out."
        )
    x, y, width, height = np.floor(boxes + 0.5).astype(np.int64).T
    width, height = np.maximum(width, 1), np.maximum(height, 1)
    # In integers, so that no region hangs on how 1.15 * 50 is rounded.
    reach = np.maximum(width * size[0], height * size[1]) * (100 + MARGIN_PERCENT)
    crop_width = (2 * reach + 100 * size[0]) // (200 * size[0])
    crop_height = (2 * reach + 100 * size[1]) // (200 * size[1])
    left = x + (width - crop_width) // 2
    top = y + (height - crop_height) // 2
    return np.stack([left, top, crop_width, crop_height], axis=1)


def crop_people(image: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Panorama (H, W, 3) uint8 and boxes (n, 4) -> crops (n, 3, *size) uint8; size = (height, width)."""
    height, width = image.shape[:2]
    regions = crop_regions(boxes, size, width, height)
    crops = np.empty((len(regions), 3, *size), np.uint8)
    # Column sums first: numpy adds whole rows of bytes 20 times faster than it reduces two axes at once.
    columns = image.reshape(height, width * 3).sum(axis=0, dtype=np.uint32)
    sums = columns.reshape(width, 3).sum(axis=0, dtype=np.int64)
    mean = (sums + height * width // 2) // (height * width)
    for crop, (left, top, crop_width, crop_height) in zip(crops, regions, strict=True):
        region = np.empty((crop_height, crop_width, 3), np.uint8)
        first, last = max(top, 0), min(top + crop_height, height)  # rows inside the image
        region[: first - top] = mean
        region[last - top :] = mean
        left %= width
        if left + crop_width <= width:
            region[first - top : last - top] = image[first:last, left : left + crop_width]
        else:
            columns = np.arange(left, left + crop_width) % width
            region[first - top : last - top] = np.take(image[first:last], columns, axis=1)
        pixels = torch.from_numpy(region).permute(2, 0, 1)[None]  # (1, 3, h, w) channels last: the fast path
        crop[:] = F.interpolate(pixels, size=tuple(size), mode="bilinear", antialias=True)[0].numpy()
    return crops


def crop_cache(
    image_paths: Sequence[Path],
    boxes_per_image: Sequence[np.ndarray],
    size: tuple[int, int],
    expected_width_height: tuple[int, int],
    cache_dir: Path | None = None,
    limit_gb: float = 4.0,
    workers: int | None = None,
    log: Callable[[str], None] = print,
) -> np.memmap:
    """The crops of all boxes of all images in order, a cached read-only uint8 array (boxes, 3, *size).

    Every panorama is decoded once, ever. DataError for missing, unreadable or differently sized images and
    for bad boxes; CommandError above `limit_gb`.
    """
    boxes_per_image = [np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in boxes_per_image]
    counts = [len(boxes) for boxes in boxes_per_image]
    every_box = np.concatenate(boxes_per_image) if boxes_per_image else np.zeros((0, 4))
    panorama = tuple(expected_width_height)
    settings = {"rule": RULE, "margin": MARGIN_PERCENT, "panorama": panorama, "boxes": every_box}
    produce = partial(_crop_image, image_paths, boxes_per_image, tuple(size), panorama)
    return open_cache(
        "crops", settings, image_paths, counts, (3, *size), produce, cache_dir, limit_gb, workers, log
    )


def _crop_image(image_paths, boxes_per_image, size, expected, k) -> np.ndarray:
    image = read_image(image_paths[k])
    if (found := (image.shape[1], image.shape[0])) != expected:
        raise DataError(
            f"{image_paths[k]}: the panorama is {found[0]} x {found[1]} pixels, the other frames are "
            f"{expected[0]} x {expected[1]}.\nBoxes are in pixels: all frames need the annotated size."
        )
    try:
        return crop_people(image, boxes_per_image[k], size)
    except DataError as error:
        raise DataError(f"{image_paths[k]}: {error}") from None
