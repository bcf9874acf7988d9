"""Class ids from semantic images and scans, which hold ids or the colours of a palette.

A semantic image holds ids (as grey, or in red with green and blue 0) or colours. In one with a colour table
(mode P) that is neither, the indices are the ids. A semantic scan holds ids, or colours as 0xRRGGBB. CARLA's
palette (0.9.10 to 0.9.13) has colours in common with AnoVox's but numbers them differently, so the palette is
determined for a whole data set and never guessed.
"""

import contextlib
import functools
from collections import Counter

import numpy as np

from datasets.anovox.files import ScenarioFiles
from datasets.anovox.pointclouds import read_points
from datasets.images import read_palette_image
from utils.run.errors import DataError, counted, some
from utils.run.log import LOG

UNKNOWN_CLASS = 255
STRANGE_IDS = 8  # ids unknown to AnoVox that an image may hold: a user's own classes
_SHARED = [(128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
           (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
           (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
           (110, 190, 160), (170, 120, 50), (55, 90, 80), (45, 60, 150), (157, 234, 50), (81, 0, 81),
           (150, 100, 100), (230, 150, 140), (180, 165, 180)]  # fmt: skip
# Definitions.py of AnoVox; then the reds of its benchmark scripts.
ANOVOX = {(0, 0, 0): 0} | {colour: number for number, colour in enumerate(_SHARED, 1)}
ANOVOX |= {(245, number, 0): number for number in range(29, 35)} | {(245, 0, 0): 100}
ANOVOX |= {(220, 20, 61): 112, (255, 0, 1): 113, (3, 0, 143): 114, (0, 0, 71): 115, (0, 60, 101): 116,
           (0, 0, 231): 118, (119, 11, 33): 119, (0, 0, 1): 214}  # fmt: skip
ANOVOX |= {(250, 128, 114): 29, (255, 36, 0): 30, (224, 17, 95): 31, (184, 15, 10): 32}
# CityScapesPalette.h of CARLA 0.9.10 to 0.9.13.
CARLA = {(0, 0, 0): 0, (70, 70, 70): 1, (100, 40, 40): 2, (55, 90, 80): 3, (220, 20, 60): 4,
         (153, 153, 153): 5, (157, 234, 50): 6, (128, 64, 128): 7, (244, 35, 232): 8, (107, 142, 35): 9,
         (0, 0, 142): 10, (102, 102, 156): 11, (220, 220, 0): 12, (70, 130, 180): 13, (81, 0, 81): 14,
         (150, 100, 100): 15, (230, 150, 140): 16, (180, 165, 180): 17, (250, 170, 30): 18,
         (110, 190, 160): 19, (170, 120, 50): 20, (45, 60, 150): 21, (145, 170, 100): 22}  # fmt: skip
PALETTES, SKY, ROAD = {"AnoVox": ANOVOX, "CARLA": CARLA}, (70, 130, 180), (128, 64, 128)


@functools.cache
def _table(palette: str) -> np.ndarray:
    """(2**24,) class id of every colour 0xRRGGBB."""
    table = np.full(1 << 24, UNKNOWN_CLASS, np.uint8)
    for (red, green, blue), number in PALETTES[palette].items():
        table[red << 16 | green << 8 | blue] = number
    return table


def read_class_image(path, palette: str = "AnoVox") -> np.ndarray:
    """(H, W) uint8 class ids of a semantic image; DataError for unknown colours or too many unknown ids."""
    pixels = colours_or_ids(path)
    return colour_ids(pixels, palette, path) if pixels.dtype != np.uint8 else _check_ids(pixels, path)


def _check_ids(ids: np.ndarray, path, most: int = STRANGE_IDS) -> np.ndarray:
    strange = np.setdiff1d(np.flatnonzero(np.bincount(ids.ravel())), [*ANOVOX.values()])
    if len(strange) > most:
        found = f"{len(strange)} numbers that are no class ids: {some(strange, 8)}"
        cause = "Was it resized with interpolation, given its own palette, or is it no semantic file?"
        raise DataError(f"{path}: {found}.\n{cause} Export the class ids unchanged.")
    return ids


def colours_or_ids(path) -> np.ndarray:
    """(H, W) uint8 ids, or int32 colours 0xRRGGBB."""
    pixels, colours = read_palette_image(path)
    if colours is not None:  # mode P
        packed = (colours.astype(np.int32) << np.array([16, 8, 0])).sum(axis=1)
        used = np.unique(pixels)
        if fitting(packed[used]):
            return packed[pixels]
        # Programs that make files smaller number the ids that occur anew.
        coded = (colours[used] == colours[used, :1]).all() or not colours[used, 1:].any()
        return colours[pixels, 0] if coded else pixels
    red, green, blue = np.moveaxis(pixels, -1, 0)
    same = np.array_equal(red, green) and np.array_equal(green, blue)
    if same or not (green.any() or blue.any()):
        return np.ascontiguousarray(red)
    return (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue


def point_classes(column: np.ndarray, palette: str, path) -> np.ndarray:
    """(N,) uint8 class ids of the last column of a semantic scan."""
    values = _point_codes(column, path)
    return colour_ids(values, palette, path) if values.dtype != np.uint8 else _check_ids(values, path, 40)


def _point_codes(column: np.ndarray, path) -> np.ndarray:
    """(N,) uint8 ids, or int64 colours 0xRRGGBB."""
    values = column.astype(np.int64)
    if not np.array_equal(values, column) or (len(values) and (values.min() < 0 or values.max() >= 1 << 24)):
        raise DataError(f"{path}: the last column of a semantic scan holds class ids or colours 0xRRGGBB.")
    return values if values.max(initial=0) > 255 else values.astype(np.uint8)


def colour_ids(colours: np.ndarray, palette: str, path) -> np.ndarray:
    """uint8 class ids of colours 0xRRGGBB; DataError for a colour that is not in the palette."""
    ids = _table(palette)[colours]
    if (strange := ids == UNKNOWN_CLASS).any():
        counts = Counter(colours[strange].tolist())
        named = ", ".join(f"{_name(colour)} x {count:,}" for colour, count in counts.most_common(8))
        what = f"{counted(len(counts), 'colours')} not in {palette}'s palette: {named}"
        raise DataError(f"{path}: {what}.\nExport the class ids, or recolour it.")
    return ids


def fitting(colours: np.ndarray) -> list[str]:
    """Names of the palettes that have all these colours."""
    return [name for name in PALETTES if (_table(name)[colours] != UNKNOWN_CLASS).all()]


def find_palette(scenarios: list[ScenarioFiles], anomaly_ids: tuple[int, ...]) -> str:
    """AnoVox or CARLA, from a middle semantic image (or scan, without images) of a few scenarios or, if both
    fit, from all.

    If both still fit, either will do, unless `anomaly_ids` selects other colours in each: then, or if neither
    fits, a DataError lists the ids of every colour. Warns of ids that are not AnoVox's, and skips unreadable
    files."""
    labelled = [s.files["semantic_image"] or s.files["semantic_points"] for s in scenarios]
    labelled = list(filter(None, labelled))
    few = [files[sorted(files)[len(files) // 2]] for files in labelled[:: max(1, len(labelled) // 8)]]
    colours, ids, ahead = set(), set(), set()
    for paths in (few, (path for files in labelled for path in files.values())):
        for path in paths:
            with contextlib.suppress(DataError):
                scan = path.suffix.lower() != ".png"
                codes = _point_codes(read_points(path, True)[:, 3], path) if scan else colours_or_ids(path)
                ahead.update(np.unique(codes if scan else ahead_of_car(codes)).tolist())
                (ids if codes.dtype == np.uint8 else colours).update(np.unique(codes).tolist())
        used = np.array(sorted(colours), np.int64)
        fits = fitting(used)
        if not colours or len(fits) < len(PALETTES):
            break
    if unknown := sorted(ids - {*ANOVOX.values(), *anomaly_ids}):
        LOG.warning(f"class ids that AnoVox does not have count as normal: {some(unknown)} (--anomaly_ids)")
    if ids and not colours and ANOVOX[ROAD] not in ahead:
        seen = f"none of {counted(len(few), 'semantic files')} looked at shows a road (class {ANOVOX[ROAD]})"
        what = f"{seen} ahead: are its ids AnoVox's? Cityscapes' 29 to 33 are vehicles, not anomalies"
        LOG.warning(f"{what} (--anomaly_ids)")
    coded = {name: _table(name)[used] for name in PALETTES}
    if len({np.isin(coded[name], anomaly_ids).tobytes() for name in fits}) == 1:
        return fits[0]
    problem = "the colours fit both AnoVox's palette and CARLA's, but --anomaly_ids selects others in each"
    problem = problem if fits else "the colours fit neither AnoVox's palette nor CARLA's; their ids in each"
    each = {
        name: np.where(known == UNKNOWN_CLASS, "none", known.astype(str)) for name, known in coded.items()
    }
    lines = [f"  {_name(colour)}: {', '.join(f'{name} {each[name][k]}' for name in each)}"
             for k, colour in enumerate(used.tolist())]  # fmt: skip
    shown = some(lines, 30 if len(lines) < 60 else 3, "\n")
    remedy = "Export the class ids instead; in an image of instances they are the red alone."
    raise DataError(f"{few[0]} and others: {problem}:\n{shown}\n{remedy}")


def ahead_of_car(pixels: np.ndarray) -> np.ndarray:
    """The middle of an image below the horizon and above the car's own hood, where its road is."""
    height, width = pixels.shape
    return pixels[11 * height // 20 : 3 * height // 4, 2 * width // 5 : 3 * width // 5]


def _name(colour: int) -> str:
    return f"({colour >> 16}, {colour >> 8 & 255}, {colour & 255})"
