"""Crop people from a 360-degree panorama, also across its seam.

1. Round the box x, y, w, h (pixels, x + w may exceed the width) to whole pixels, halves up.
2. Enlarge it by 15% about its centre (7.5% on every side), then lengthen the side that is too short for the
   output's H:W, so that nobody is distorted. Round the size halves up and the corner down. The size of a
   crop depends only on the size of the box, not on its position.
3. Wrap columns around the panorama as often as needed. Fill rows above and below the image with its mean
   colour, computed from integer sums, so that rotating the panorama and its boxes leaves every crop
   bit-identical.
4. Resize with antialiased bilinear interpolation on uint8.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from datasets.cache import open_cache
from datasets.images import read_scene
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import IMAGE_FOLDER
from datasets.jrdb.problems import Problems
from utils.run.errors import DataError

MARGIN_PERCENT = 15  # of the box's width and height


def load_crops(part: JRDBPairDataset, data_path: Path | str, size: tuple[int, int], **cache: object) -> None:
    """Set part.crops and part.crop_rows: crops of everybody in the split's pairs, read from the cache or cut
    and cached. size (H, W); cache: options of open_cache. DataError for images that are missing, unreadable
    or of another size; CommandError above `limit_gb`."""
    paths, _, counts, persons, sizes = images_needed(part, data_path)
    boxes = part.boxes[persons]
    part.crop_rows = np.full(len(part.boxes), -1)
    part.crop_rows[persons] = np.arange(len(persons))
    settings, shape = {"panoramas": sizes, "boxes": boxes}, (3, *size)
    produce = partial(_crop_image, paths, np.split(boxes, np.cumsum(counts)[:-1]), size, sizes)
    part.crops = open_cache(f"crops_{part.name}", settings, paths, counts.tolist(), shape, produce, **cache)


def images_needed(
    part: JRDBPairDataset, data_path: Path | str
) -> tuple[list[Path], np.ndarray, np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Paths of the K images that people are cut from, whether each exists, people per image, person rows, and
    the sizes (W, H) of the K images."""
    pairs = part if part.near is None else part.near
    persons = np.unique([pairs.left, pairs.right])
    frames, counts = np.unique(part.people_frames[persons], return_counts=True)
    folder = Path(data_path) / IMAGE_FOLDER
    paths = [folder / part.sequences[part.frame_sequences[f]] / str(part.frame_keys[f]) for f in frames]
    sizes = [part.pano_sizes[part.frame_sequences[f]] for f in frames]
    return paths, part.image_found[frames], counts, persons, sizes


def find_problems(
    part: JRDBPairDataset, data_path: Path | str, problems: Problems, decode: bool = False
) -> None:
    """Add missing images to `problems` and, with `decode`, damaged ones and those of another size."""
    paths, exist, *_, sizes = images_needed(part, data_path)
    for path, exists, size in zip(paths, exist, sizes, strict=True):
        if not exists:
            what = f"missing images of the {part.name} split, which needs {len(paths)}"
            problems.add(what, "add them; only stage 1 runs with --features geometry need none", f"{path}")
        elif decode:
            try:
                read_panorama(path, size)
            except DataError as error:
                what, _, remedy = str(error).partition("\n")
                problems.add("an image that cannot be used", remedy, what)


def read_panorama(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read an image of `size` (W, H) as (H, W, 3) uint8; DataError if it has another size or more bits."""
    image = read_scene(path)
    height, width = image.shape[:2]
    if (width, height) != size:
        what = f"the panorama is {width}x{height} pixels, others of its sequence {size[0]}x{size[1]}"
        raise DataError(f"{path}: {what}\nBoxes are in pixels: all frames need the annotated size.")
    return image


def _crop_image(paths, boxes_per_image, size, panoramas, k) -> np.ndarray:
    return crop_people(read_panorama(paths[k], panoramas[k]), boxes_per_image[k], size)


def crop_regions(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Steps 1 and 2: boxes (n, 4) x, y, w, h -> regions (n, 4) int64 left, top, width, height."""
    x, y, width, height = np.floor(np.asarray(boxes, np.float64).reshape(-1, 4) + 0.5).astype(np.int64).T
    width, height = np.maximum(width, 1), np.maximum(height, 1)
    # In integers, so that no region depends on the floating-point rounding of 1.15 * 50.
    reach = np.maximum(width * size[0], height * size[1]) * (100 + MARGIN_PERCENT)
    crop_width = (2 * reach + 100 * size[0]) // (200 * size[0])
    crop_height = (2 * reach + 100 * size[1]) // (200 * size[1])
    left = x + (width - crop_width) // 2
    top = y + (height - crop_height) // 2
    return np.stack([left, top, crop_width, crop_height], axis=1)


def crop_people(image: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Panorama (H, W, 3) uint8 and boxes (n, 4) -> crops (n, 3, *size) uint8; size = (height, width)."""
    height, width = image.shape[:2]
    regions = crop_regions(boxes, size)
    crops = np.empty((len(regions), 3, *size), np.uint8)
    # Sum over rows first: numpy adds whole rows of bytes 20 times faster than it reduces two axes at once.
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
