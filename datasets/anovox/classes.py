"""Which class a pixel or a point is of: AnoVox's ids, as numbers or as the colours of a palette.

A semantic image holds ids (grey, or in red with green and blue 0), or colours; an image with a palette of its
own (mode P) holds colours if the palette's are known, else ids. A semantic scan holds ids, or colours as
0xRRGGBB. CARLA's own palette (0.9.10 to 0.9.13) shares colours with AnoVox's but numbers them otherwise, so
which one it is, is found out for a whole data set and never guessed.
"""

from __future__ import annotations

import functools

import numpy as np

from datasets.images import read_palette_image
from utils.run.errors import DataError

ANOMALY_IDS = (29, 30, 31, 32, 33, 34, 100)  # home, animal, nature, special, airplane, falling, anomaly
AGENT_IDS = (112, 113, 114, 115, 116, 118, 119)  # driven by agents: AnoVox leaves them out of evaluation
UNKNOWN_CLASS = 255
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
PALETTES = {"AnoVox": ANOVOX, "CARLA": CARLA}


@functools.cache
def _table(palette: str) -> np.ndarray:
    """(2**24,) class id of every colour 0xRRGGBB."""
    table = np.full(1 << 24, UNKNOWN_CLASS, np.uint8)
    for (red, green, blue), number in PALETTES[palette].items():
        table[red << 16 | green << 8 | blue] = number
    return table


def read_class_image(path, palette: str = "AnoVox") -> np.ndarray:
    """(H, W) uint8 class ids of a semantic image; DataError for a colour that the palette does not have."""
    pixels = _colours_or_ids(path)
    return pixels if pixels.dtype == np.uint8 else _to_ids(pixels, palette, path)


def _colours_or_ids(path) -> np.ndarray:
    """(H, W) uint8 ids, or int32 colours 0xRRGGBB."""
    pixels, colours = read_palette_image(path)
    if colours is not None:  # mode P
        used = np.unique(pixels)
        packed = (colours.astype(np.int32) << np.array([16, 8, 0])).sum(axis=1)
        known = [(_table(name)[packed[used]] != UNKNOWN_CLASS).all() for name in PALETTES]
        return packed[pixels] if any(known) else pixels
    if pixels.ndim == 2:
        return pixels
    red, green, blue = np.moveaxis(pixels, -1, 0)
    same = np.array_equal(red, green) and np.array_equal(green, blue)
    if same or not (green.any() or blue.any()):
        return np.ascontiguousarray(red)
    return (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue


def point_classes(column: np.ndarray, palette: str, path) -> np.ndarray:
    """(N,) uint8 class ids of the last column of a semantic scan."""
    values = column.astype(np.int64)
    if not np.array_equal(values, column) or (len(values) and (values.min() < 0 or values.max() >= 1 << 24)):
        raise DataError(f"{path}: the last column of a semantic scan holds class ids or colours 0xRRGGBB.")
    return values.astype(np.uint8) if values.max(initial=0) < 256 else _to_ids(values, palette, path)


def _to_ids(colours: np.ndarray, palette: str, path) -> np.ndarray:
    ids = _table(palette)[colours]
    if (strange := ids == UNKNOWN_CLASS).any():
        raise DataError(f"{path}: {_name_colours(colours[strange])}, no colours of {palette}'s palette.\n"
                        "Export the class ids, or recolour it.")  # fmt: skip
    return ids


def _name_colours(colours: np.ndarray) -> str:
    found, counts = np.unique(colours, return_counts=True)
    order = counts.argsort()[::-1][:8]
    named = [
        f"({c >> 16}, {c >> 8 & 255}, {c & 255}) x {n:,}"
        for c, n in zip(found[order], counts[order], strict=True)
    ]
    return f"{len(found)} colours, " + ", ".join(named)


def tell_palette(paths: list, anomaly_ids: tuple[int, ...]) -> str:
    """AnoVox or CARLA, by the colours in some semantic images.

    Where both fit it does not matter, unless one of `anomaly_ids` would be among the colours in either:
    that is a DataError that names each colour's id in both.
    """
    colours = set()
    for path in paths:
        pixels = _colours_or_ids(path)
        if pixels.dtype != np.uint8:
            colours |= set(np.unique(pixels).tolist())
    used = np.array(sorted(colours), np.int64)
    fits = [name for name in PALETTES if (_table(name)[used] != UNKNOWN_CLASS).all()]
    listed = "\n".join(
        f"  ({c >> 16}, {c >> 8 & 255}, {c & 255}): "
        + ", ".join(
            f"{name} {i if (i := int(_table(name)[c])) != UNKNOWN_CLASS else 'none'}" for name in PALETTES
        )
        for c in used.tolist()
    )
    if not fits:
        raise DataError(
            f"{paths[0]} and others: the colours are neither AnoVox's nor CARLA's; ids they would be:\n"
            f"{listed}\nExport the class ids, or recolour the images."
        )
    differ = [c for c in used if len({int(_table(name)[c]) in anomaly_ids for name in fits}) > 1]
    if differ:
        raise DataError(
            f"{paths[0]} and others: the colours fit AnoVox's palette and CARLA's, and --anomaly_ids means "
            f"other colours in each:\n{listed}\nExport the class ids, or recolour the images."
        )
    return fits[0]
