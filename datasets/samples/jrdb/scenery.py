"""Draw the place around the camera, a room or a square: ray-cast onto the panorama once per sequence."""

import numpy as np
from PIL import Image

from datasets.samples.jrdb.figure import CAMERA_HEIGHT

HORIZON = 0.40  # row of the horizon / panorama height
BAYS = 61  # different bays before they repeat along the walls


def speckle(shape: tuple[int, int], cell: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of about +-1: one random value per `cell` pixels, enlarged; left and right join."""
    rows, columns = max(2, shape[0] // cell), max(2, shape[1] // cell)
    coarse = rng.normal(0, 0.6, (rows, columns)).astype(np.float32)
    coarse = np.concatenate([coarse, coarse[:, :1]], 1)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def draw_scenery(
    width: int, height: int, margin: int, outdoor: bool, room: float, rng: np.random.Generator
) -> Image.Image:
    """The empty panorama (RGB) with `margin` spare rows above and below; room: metres to the nearest wall."""
    shape, focal = (height + 2 * margin, width), width / (2 * np.pi)
    azimuth = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5) * 2 * np.pi
    rows = np.arange(-margin, height + margin, dtype=np.float32)[:, None] + 0.5
    drop = (rows - HORIZON * height) / focal  # tangent of the angle below the horizon
    sin, cos = np.sin(azimuth), np.cos(azimuth)
    right, left, front, back = room * rng.uniform(1, 1.6, 4)  # metres to the walls
    across = np.where(sin > 0, right, left) / np.maximum(np.abs(sin), 1e-6)
    ahead = np.where(cos > 0, front, back) / np.maximum(np.abs(cos), 1e-6)
    distance = np.minimum(across, ahead)
    along = np.where(across < ahead, cos, sin) * distance + np.where(across < ahead, 100, 300)
    level = CAMERA_HEIGHT - drop * distance  # metres above the floor at which a ray meets the wall
    bay = (along // 9.0).astype(int) % BAYS
    roof = (rng.uniform(4, 13, BAYS) if outdoor else np.full(BAYS, rng.uniform(3.0, 3.4)))[bay]
    floor, above = level < 0, level > roof
    pixels = paint_walls(along, level, 4.5 if outdoor else 3.2, rng)

    metres = np.where(floor, CAMERA_HEIGHT / np.maximum(drop, 1e-3), 1.0)  # to the point on the floor
    stone = rng.uniform(70, 150) * rng.uniform(0.9, 1.1, 3)
    pixels[floor] = paint_tiles(metres * sin, metres * cos, metres, stone, rng.uniform(0.5, 2.0), rng)[floor]
    if outdoor:
        clouds = 0.9 * speckle(shape, 160, rng) + 0.5 * speckle(shape, 50, rng)
        sky = np.array([150.0, 180, 215]) + 60 * np.clip(clouds, 0, 1)[..., None]
    else:
        metres = np.where(above, (roof - CAMERA_HEIGHT) / np.maximum(-drop, 1e-3), 1.0)
        x, y = metres * sin, metres * cos
        sky = paint_tiles(x, y, metres, np.full(3, rng.uniform(130, 190)), 1.2, rng)
        sky[((x / 1.2) % 3.0 < 1.0) & ((y / 1.2) % 4.0 < 1.0)] = (250, 250, 240)  # lamps
    pixels[above] = sky[above]

    for _ in range(9):  # pillars indoors, trunks and crowns outdoors, against the walls
        centre = int(rng.integers(width))
        scale = focal / (distance[centre] - 0.6)  # pixels per metre
        foot = int(margin + HORIZON * height + CAMERA_HEIGHT * scale)
        half = max(1, int((0.15 if outdoor else rng.uniform(0.25, 0.5)) * scale))
        columns = np.arange(centre - half, centre + half + 1)
        shade = np.cos(1.4 * ((columns - centre) / half + 0.3))[:, None] * 0.4 + 0.6
        top = max(0, foot - int(4.5 * scale)) if outdoor else 0
        pixels[top:foot, columns % width] = shade * ((66, 52, 40) if outdoor else rng.uniform(140, 215, 3))
        if outdoor:
            columns = np.arange(centre - int(2.5 * scale), centre + int(2.5 * scale))
            up = (foot - np.arange(len(rows))[:, None]) / scale - rng.uniform(3.5, 5.5)
            crown = np.hypot((columns - centre) / scale, up) / rng.uniform(1.3, 2.2)
            leaves = speckle(crown.shape, max(3, int(0.4 * scale)), rng)
            here = np.nonzero(crown + 0.3 * leaves < 1)
            green = np.array([48.0, 82, 40]) * rng.uniform(0.75, 1.3)
            pixels[here[0], columns[here[1]] % width] = green * (1 + 0.3 * leaves[here][:, None])
    grain = sum(size * speckle(shape, cell, rng) for size, cell in ((9.0, 3), (10.0, 9), (14.0, 60)))
    pixels += (grain * np.where(above, 0.35, 1.0))[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def paint_walls(along: np.ndarray, level: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """(rows, columns, 3): walls with a wainscot and, in every bay of `pitch` metres, patterned rectangles as
    windows, doors or posters. along (columns,), level (rows, columns): metres along the wall, above floor."""
    bay, local = (along // pitch).astype(int) % BAYS, along % pitch
    base = rng.uniform(110, 200) + rng.uniform(-25, 25, 3)
    tones = base * (1.0 + 0.06 * rng.normal(size=(BAYS, 1)))
    pixels = np.where((level < 0.98)[..., None], base * rng.uniform(0.45, 0.75), tones[bay])
    for _ in range(3):
        start, low = rng.uniform(0.3, pitch - 1.2, BAYS), rng.choice([0.0, 0.9, 1.1], BAYS)
        wide, tall = rng.uniform(0.5, 2.0, BAYS), rng.uniform(0.8, 1.9, BAYS)
        tint = rng.uniform(60, 210, (BAYS, 1)) + rng.uniform(-30, 30, (BAYS, 3))
        blocks = 1 + rng.choice([0.03, 0.2], (BAYS, 1, 1)) * rng.uniform(-1, 1, (BAYS, 10, 8))
        c, r = (local - start[bay]) / wide[bay] * 8, (level % 3.4 - low[bay]) / tall[bay] * 10
        rows, columns = np.nonzero((c > 0) & (c < 8) & (r > 0) & (r < 10))
        pattern = blocks[bay[columns], r[rows, columns].astype(int), c[columns].astype(int)]
        pixels[rows, columns] = tint[bay[columns]] * pattern[:, None]
    return pixels


def paint_tiles(x, y, metres, colour: np.ndarray, tile: float, rng: np.random.Generator) -> np.ndarray:
    """(rows, columns, 3): a checkered plane with joints, which get wider with distance as pixels do."""
    checker = ((x // tile + y // tile) % 2) * rng.uniform(0.02, 0.14)
    joint = (0.02 + 0.004 * metres) / tile
    line = ((x / tile % 1.0 < joint) | (y / tile % 1.0 < joint)) & (metres < 18)
    return colour * ((0.9 + checker) * np.where(line, 0.74, 1.0))[..., None]
