"""The place around the camera: a room or a square, ray-cast onto the panorama once per sequence."""

import numpy as np
from PIL import Image

from datasets.samples.jrdb.sketch import CAMERA_HEIGHT

HORIZON = 0.40  # row of the horizon / panorama height


def speckle(shape: tuple[int, int], cell: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise in about +-1: white noise, one value per `cell` pixels, enlarged; joins left and right."""
    rows, columns = max(2, shape[0] // cell), max(2, shape[1] // cell)
    coarse = rng.normal(0, 0.6, (rows, columns)).astype(np.float32)
    coarse = np.concatenate([coarse, coarse[:, :1]], 1)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def grid_lines(x: np.ndarray, y: np.ndarray, pitch: float, distance: np.ndarray) -> np.ndarray:
    """True where a grid of the given pitch has a line, of a width that grows with the distance; metres."""
    width = (0.02 + 0.004 * distance) / pitch
    return ((x / pitch) % 1.0 < width) | ((y / pitch) % 1.0 < width)


def wall_distance(azimuth: np.ndarray, walls: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rectangle around the camera -> per column distance, coordinate along the wall (metres), which wall."""
    right, left, front, back = walls
    sin, cos = np.sin(azimuth), np.cos(azimuth)
    across = np.where(sin > 0, right, left) / np.maximum(np.abs(sin), 1e-6)
    along = np.where(cos > 0, front, back) / np.maximum(np.abs(cos), 1e-6)
    sideways = across < along
    distance = np.minimum(across, along)
    coordinate = np.where(sideways, distance * cos, distance * sin) + 100.0
    which = np.where(sideways, np.where(sin > 0, 0, 1), np.where(cos > 0, 2, 3))
    return distance, coordinate, which


def paint_walls(pixels, mask, along, which, height, rng: np.random.Generator, outdoor: bool) -> None:
    """Windows, doors, posters and boards, one per bay of the wall. mask, height (rows, columns): where the
    wall shows, metres above the floor; along, which: wall_distance."""
    base = rng.uniform(120, 200, 3) * rng.uniform(0.8, 1.05)
    wainscot = base * rng.uniform(0.45, 0.75)
    pitch = 4.5 if outdoor else 3.2
    bay = np.floor(along / pitch).astype(int)
    local = along - bay * pitch
    index = (bay + 97 * which) % 61
    shares = [0.15, 0.65, 0.08, 0.04, 0.08] if outdoor else [0.30, 0.28, 0.14, 0.18, 0.10]
    kind = rng.choice(5, 61, p=shares)[index][None, :]
    tint = rng.uniform(30, 225, (61, 3))[index]
    local = local[None, :]
    shade = (1.0 + 0.06 * rng.normal(size=61))[index][None, :]
    wall = base[None, None, :] * shade[..., None] * np.ones((pixels.shape[0], 1, 1))
    pixels[mask] = wall[mask]
    low = mask & (height < 0.95)
    pixels[low] = wainscot
    rail = mask & (np.abs(height - 0.98) < 0.05)
    pixels[rail] = wainscot * 0.6
    storey = height if not outdoor else height % 3.4
    glass = mask & (kind == 1) & (local > 0.4) & (local < pitch - 0.4) & (storey > 0.9) & (storey < 2.7)
    light = np.array([206.0, 224, 236]) if not outdoor else np.array([70.0, 88, 106])
    mullion = ((local * 2.2) % 1.0 < 0.10) | ((storey * 1.1) % 1.0 < 0.07)
    pixels[glass] = light
    pixels[glass & mullion] = (66, 64, 62)
    blind = glass & (storey > (1.4 + 1.1 * (index % 7) / 7)[None, :]) & ((storey * 14) % 1.0 < 0.55)
    pixels[blind] *= 0.82
    door = mask & (kind == 2) & (local > 1.0) & (local < 2.1) & (height < 2.15)
    pixels[door] = np.broadcast_to(tint[None] * 0.35 + np.array([70.0, 46, 26]), pixels.shape)[door]
    frame = mask & (kind == 2) & (local > 0.92) & (local < 2.18) & (height < 2.24) & ~door
    pixels[frame] = (52, 48, 44)
    poster = mask & (kind == 3) & (local > 0.7) & (local < 2.3) & (height > 1.05) & (height < 2.1)
    rows, columns = np.nonzero(poster)
    if len(rows):
        blocks = rng.uniform(0.35, 1.25, (61, 12, 9, 3))
        r = ((height[rows, columns] - 1.05) / 1.05 * 12).astype(int).clip(0, 11)
        c = ((local[0, columns] - 0.7) / 1.6 * 9).astype(int).clip(0, 8)
        pixels[rows, columns] = np.clip(tint[columns] * blocks[index[columns], r, c], 10, 245)
    board = mask & (kind == 4) & (local > 0.4) & (local < pitch - 0.3) & (height > 0.95) & (height < 2.2)
    pixels[board] = (224, 226, 222)
    letters = (local * 7.3 + np.floor(height * 9) * 2.7) % 3.0 < 1.9
    writing = board & ((height * 9) % 1.0 < 0.28) & letters & (height > 1.2)
    pixels[writing] = np.broadcast_to(tint[None] * 0.4, pixels.shape)[writing]


def draw_scenery(
    width: int, height: int, margin: int, outdoor: bool, walls: np.ndarray, rng: np.random.Generator
) -> Image.Image:
    """The empty panorama (RGB) with `margin` spare rows above and below."""
    focal = width / (2 * np.pi)
    rows = np.arange(-margin, height + margin, dtype=np.float32)[:, None] + 0.5
    azimuth = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5) * 2 * np.pi
    horizon = HORIZON * height
    distance, along, which = wall_distance(azimuth, walls)
    drop = (rows - horizon) / focal  # tangent of the angle below the horizon
    ceiling = float(rng.uniform(3.4, 4.6)) if not outdoor else 0.0
    roof = np.full(61, ceiling) if not outdoor else rng.uniform(4, 13, 61)
    roof_here = roof[(np.floor(along / 4.5).astype(int) // 3 + 7 * which) % 61]
    level = CAMERA_HEIGHT - drop * distance[None, :]  # height at which a ray meets the wall
    floor = level < 0
    above = level > roof_here[None, :]
    pixels = np.zeros((len(rows), width, 3), np.float32)

    paint_walls(pixels, ~floor & ~above, along, which, level, rng, outdoor)

    # Metres from the camera to the floor point.
    down = np.where(floor, CAMERA_HEIGHT / np.maximum(drop, 1e-3), 1.0)
    x, y = down * np.sin(azimuth)[None, :], down * np.cos(azimuth)[None, :]
    tile = float(rng.choice([0.6, 0.9, 1.2])) if not outdoor else float(rng.choice([0.5, 1.5, 2.5]))
    stone = rng.uniform(70, 150) * rng.uniform(0.9, 1.1, 3)
    checker = ((np.floor(x / tile) + np.floor(y / tile)) % 2) * rng.uniform(0.02, 0.14)
    colour = stone[None, None, :] * (0.86 + checker + 0.10 * np.clip(down / 12, 0, 1.5))[..., None]
    colour[grid_lines(x, y, tile, down) & (down < 18)] *= 0.74
    if outdoor:
        lawn = np.sin(x / 7.0 + rng.uniform(0, 6)) + np.sin(y / 9.0 + rng.uniform(0, 6)) > 0.75
        colour[lawn] = np.array([74.0, 96, 50]) * rng.uniform(0.8, 1.2)
    pixels[floor] = colour[floor]

    if outdoor:
        sky = np.clip(1.0 - (horizon - rows) / (horizon + margin), 0, 1)
        clouds = 0.9 * speckle(pixels.shape[:2], 160, rng) + 0.5 * speckle(pixels.shape[:2], 50, rng)
        clouds = np.clip(clouds, 0, 1)[..., None] * 60
        blue = np.array([112.0, 150, 200]) + sky[..., None] * np.array([80.0, 60, 30]) + clouds
        pixels[above] = np.clip(blue, 0, 250)[above]
    else:
        up = np.where(above, (ceiling - CAMERA_HEIGHT) / np.maximum(-drop, 1e-3), 1.0)
        x, y = up * np.sin(azimuth)[None, :], up * np.cos(azimuth)[None, :]
        panel = np.full((*up.shape, 3), rng.uniform(130, 190)) * (1.05 - 0.02 * np.clip(up, 0, 20))[..., None]
        panel[grid_lines(x, y, 1.2, up)] *= 0.72
        lamp = ((x / 1.2) % 3.0 < 1.0) & ((y / 1.2) % 4.0 < 1.0)
        panel[lamp] = (250, 250, 240)
        pixels[above] = panel[above]

    plants(pixels, horizon + margin, focal, distance, outdoor, rng)
    sizes = ((9.0, 3), (10.0, 9), (14.0, 60))
    grain = sum(size * speckle(pixels.shape[:2], cell, rng) for size, cell in sizes)
    pixels += (grain * np.where(above, 0.35, 1.0))[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def plants(pixels, horizon: float, focal: float, distance: np.ndarray, outdoor: bool, rng) -> None:
    """Pillars indoors, trees outdoors, against the walls so that everybody stands in front of them."""
    width = pixels.shape[1]
    rows = np.arange(pixels.shape[0])
    for _ in range(9 if outdoor else 6):
        centre = int(rng.integers(width))
        scale = focal / (distance[centre] - 0.6)  # pixels per metre
        foot = horizon + CAMERA_HEIGHT * scale
        if outdoor:
            crown, top = rng.uniform(1.3, 2.6) * scale, foot - rng.uniform(3.5, 6.5) * scale
            for dx in range(-int(0.15 * scale) - 1, int(0.15 * scale) + 2):
                pixels[int(max(top, 0)) : int(foot), (centre + dx) % width] = (66, 52, 40)
            green = np.array([48.0, 82, 40]) * rng.uniform(0.75, 1.3)
            for _ in range(26):
                cx, cy = centre + rng.normal(0, 0.5) * crown, top + rng.normal(0, 0.45) * crown
                r = rng.uniform(0.25, 0.5) * crown
                y0, y1 = int(max(cy - r, 0)), int(max(cy + r, 0))
                columns = np.arange(int(cx - r), int(cx + r) + 1)
                blob = (rows[y0:y1, None] - cy) ** 2 + (columns[None, :] - cx) ** 2 < r * r
                leaf = np.broadcast_to(green * rng.uniform(0.7, 1.35), (*blob.shape, 3))
                leaf = leaf + rng.normal(0, 9, (*blob.shape, 1))
                region = pixels[y0:y1, columns % width]
                region[blob[: len(region)]] = leaf[: len(region)][blob[: len(region)]]
                pixels[y0:y1, columns % width] = region
        else:
            half = rng.uniform(0.25, 0.5) * scale
            tone = rng.uniform(140, 215)
            for dx in range(-int(half), int(half) + 1):
                shade = 0.62 + 0.38 * np.cos(1.4 * (dx / half + 0.3))
                pixels[: int(foot), (centre + dx) % width] = tone * shade
