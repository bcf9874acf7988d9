"""The place around the camera: a room or a square, ray-cast onto the panorama once per sequence."""

import numpy as np
from PIL import Image

from datasets.samples.jrdb.sketch import CAMERA_HEIGHT

HORIZON = 0.40  # row of the horizon / panorama height
BAYS = 61  # different pieces of wall
BAY = 3.2  # metres


def draw_walls(outdoor: bool, rng: np.random.Generator) -> np.ndarray:
    """Metres from the camera to the walls on the right and left, in front and behind."""
    return rng.uniform(24, 40, 4) if outdoor else rng.uniform(13, 24, 4)


def wall_distance(azimuth: np.ndarray, walls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rectangle around the camera -> per column metres to the wall, and a coordinate along the walls."""
    right, left, front, back = walls
    sin, cos = np.sin(azimuth), np.cos(azimuth)
    across = np.where(sin > 0, right, left) / np.maximum(np.abs(sin), 1e-6)
    along = np.where(cos > 0, front, back) / np.maximum(np.abs(cos), 1e-6)
    distance, sideways = np.minimum(across, along), across < along
    which = np.where(sideways, np.where(sin > 0, 0, 1), np.where(cos > 0, 2, 3))
    return distance, np.where(sideways, distance * cos, distance * sin) + 100.0 + 311.0 * which


def speckle(shape: tuple[int, int], cell: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise in about +-1: white noise, one value per `cell` pixels, enlarged; joins left and right."""
    rows, columns = max(2, shape[0] // cell), max(2, shape[1] // cell)
    coarse = rng.normal(0, 0.6, (rows, columns)).astype(np.float32)
    coarse = np.concatenate([coarse, coarse[:, :1]], 1)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def paint_walls(along: np.ndarray, level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(rows, columns, 3): bays of a wall, plain, in panels, or as busy as posters and shop windows.

    along (columns,) metres along the wall, level (rows, columns) metres above the floor.
    """
    base = rng.uniform(110, 200, 3) * rng.uniform(0.8, 1.05)
    contrast = rng.choice([0.03, 0.15, 0.6], (BAYS, 1, 1, 1), p=[0.3, 0.4, 0.3])
    tint = rng.uniform(-1, 1, (BAYS, 1, 1, 3)) + rng.uniform(-1, 1, (BAYS, 8, 10, 1))  # panels of 0.4 m
    blocks = np.clip(base * (1 + contrast * tint), 15, 245).astype(np.uint8)
    blocks[:, :2] = base * rng.uniform(0.45, 0.75)  # wainscot
    bay = np.floor(along / BAY).astype(int)
    column = ((along / BAY - bay) * 10).astype(int)
    row = np.where(level < 0.8, np.maximum(2.5 * level, 0), 2 + 2.5 * level % 6).astype(int)
    return blocks[(bay % BAYS)[None], row, column[None]]


def paint_plane(
    pixels: np.ndarray,
    mask: np.ndarray,
    metres: np.ndarray,
    azimuth: np.ndarray,
    tile: float,
    colour: np.ndarray,
) -> None:
    """A tiled floor or ceiling where `mask` (rows, columns) says; `metres` (rows, 1) away from the camera."""
    rows = mask.any(axis=1)
    metres = metres[rows]
    x, y = metres * np.sin(azimuth) / tile, metres * np.cos(azimuth) / tile
    line = np.minimum(x % 1.0, y % 1.0) * tile < 0.02 + 0.004 * metres
    checker = 0.1 * ((np.floor(x) + np.floor(y)) % 2)
    shade = (0.86 + checker + 0.008 * np.minimum(metres, 18)) * np.where(line, 0.74, 1.0)
    pixels[mask] = np.clip(shade[mask[rows]][:, None] * colour, 0, 250)


def draw_scenery(
    width: int, height: int, margin: int, outdoor: bool, walls: np.ndarray, rng: np.random.Generator
) -> Image.Image:
    """The empty panorama (RGB) with `margin` spare rows above and below."""
    rows = np.arange(-margin, height + margin, dtype=np.float32)[:, None] + 0.5
    azimuth = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5) * 2 * np.pi
    drop = (rows - HORIZON * height) / (width / (2 * np.pi))  # tangent of the angle below the horizon
    distance, along = wall_distance(azimuth, walls)
    ceiling = float(rng.uniform(3.4, 4.6))
    roofs = rng.uniform(4, 13, BAYS) if outdoor else np.full(BAYS, ceiling)
    level = (CAMERA_HEIGHT - drop * distance).astype(np.float32)  # height at which a ray meets the wall
    pixels = paint_walls(along, level, rng)
    floor = level < 0
    down = CAMERA_HEIGHT / np.maximum(drop, 1e-3)  # metres to the floor
    stone = rng.uniform(70, 150) * rng.uniform(0.9, 1.1, 3)
    paint_plane(pixels, floor, down, azimuth, float(rng.choice([0.6, 0.9, 1.5])), stone)
    above = level > roofs[np.floor(along / BAY).astype(int) // 3 % BAYS]
    if outdoor:
        clouds = 30 * np.clip(speckle(level.shape, 100, rng), 0, 1)[..., None]
        pixels[above] = (np.array([150.0, 175, 205]) + clouds)[above]
    else:
        up = (ceiling - CAMERA_HEIGHT) / np.maximum(-drop, 1e-3)
        paint_plane(pixels, above, up, azimuth, 1.2, rng.uniform(130, 190) * np.ones(3))
    grain = sum(size * speckle(level.shape, cell, rng) for size, cell in ((9.0, 3), (10.0, 9), (14.0, 60)))
    grained = pixels + (grain * np.where(above, 0.35, 1.0))[..., None]
    return Image.fromarray(np.clip(grained, 0, 255).astype(np.uint8))
