"""Colours of the camera image: surfaces hit by its rays, in the light of a weather preset."""

import numpy as np

from datasets.anovox.raycast import Solid, Surface, local_hit
from datasets.samples.anovox.rays import GROUND, Decal, cast, covers
from datasets.samples.anovox.scenario import ROAD, SKY_CLASS, TERRAIN, Frame, Town

GLASS = (0.09, 0.1, 0.12)


def light_of(weather: str, rng: np.random.Generator) -> dict:
    """Sun, ambient light, haze per metre, sky, wetness and exposure of one of AnoVox's weather presets."""
    sunset = weather.endswith("SUNSET")
    sky = weather.removesuffix("SUNSET").removesuffix("NOON").strip("_").replace("RAINY", "RAIN")
    strength = {"CLEAR": 0.75, "CLOUDY": 0.3, "WET": 0.6, "WET_CLOUDY": 0.25, "MID_RAIN": 0.2,
                "HARD_RAIN": 0.1, "SOFT_RAIN": 0.25}[sky]  # fmt: skip
    haze = {"MID_RAIN": 0.004, "HARD_RAIN": 0.008, "SOFT_RAIN": 0.003}.get(sky, 0.0008)
    height, turn = np.radians(15 if sunset else 60), rng.uniform(0, 2 * np.pi)
    colour = np.array((1.0, 0.82, 0.62) if sunset else (1.0, 0.98, 0.95))
    blue = np.array((0.8, 0.62, 0.5) if sunset else (0.45, 0.62, 0.88))
    return {
        "sun": np.array([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)]),
        "strength": strength * colour,
        "ambient": (1.0 - 0.7 * strength) * (0.8 if sunset else 1.0) * (0.5 + 0.5 * colour) * 0.85,
        "haze": haze,
        "sky": blue if strength > 0.5 else np.full(3, 0.6 if sunset else 0.75),
        "wet": 0.8 if sky not in ("CLEAR", "CLOUDY") else 1.0,  # a wet road is darker
        "exposure": rng.uniform(0.9, 1.1),
    }


def paint_image(
    frame: Frame, town: Town, rays, light: dict, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Camera image uint8 (H, W, 3) and class ids uint8 (H, W)."""
    eye = frame.eye
    t, surface = cast(rays, frame.solids, eye)
    elevation = rays[..., 2] / np.linalg.norm(rays, axis=-1)
    image = light["sky"] * (1 - 0.35 * np.clip(elevation, 0, 1)[..., None])
    classes = np.full(surface.shape, SKY_CLASS, np.uint8)

    # The ground as if nothing stood on it; solids that only the LiDAR sees are painted like it.
    down = rays[..., 2] < 0
    depth = -eye[2] / rays[..., 2][down]
    x, y = eye[0] + depth, eye[1] + depth * rays[..., 1][down]
    ids, colours = ground_at(x, y, frame.decals, town, light["wet"])
    shine = light["ambient"] + light["strength"] * light["sun"][2]
    ground = np.zeros_like(image)
    ground[down] = haze_over(colours * shine, depth, light)
    flat = surface == GROUND
    image[flat] = ground[flat]
    classes[flat] = ids[flat[down]]

    for index in np.unique(surface[surface >= 0]):
        solid, hit = frame.solids[index], surface == index
        classes[hit] = solid.class_id
        if solid.seen_by == "lidar":
            image[hit] = ground[hit]
            continue
        depth = t[hit]
        local, normal = local_hit(solid, eye + depth[:, None] * rays[hit])
        sunlit = light["strength"] * np.clip(normal @ light["sun"], 0, 1)[:, None]
        bright = light["ambient"] * (0.75 + 0.25 * normal[:, 2:]) + sunlit
        image[hit] = haze_over(pattern_colour(solid, local, normal) * bright, depth, light)
    image = image * light["exposure"] + rng.normal(0, 0.012, image.shape)
    return (np.clip(image, 0, 1) ** (1 / 1.3) * 255 + 0.5).astype(np.uint8), classes


def haze_over(colour: np.ndarray, depth: np.ndarray, light: dict) -> np.ndarray:
    through = np.exp(-light["haze"] * depth)[:, None]
    return colour * through + light["sky"] * 0.9 * (1 - through)


def ground_at(x, y, decals: list[Decal], town: Town, wet: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Class ids (n,) and albedo (n, 3) of ground points; later decals cover earlier ones."""
    on_road = (y > town.right_kerb) & (y < town.left_kerb)
    ids = np.where(on_road, ROAD, TERRAIN).astype(np.uint8)
    grain = 1 + 0.10 * (_noise(x, y, 0.35) - 0.5) + 0.12 * (_noise(x, y, 2.7) - 0.5)
    colours = np.where(on_road[:, None], np.multiply(town.asphalt, wet), town.grass) * grain[:, None]
    for decal in decals:
        reach = max(decal.size) / 2
        near = np.flatnonzero(np.abs(x - decal.centre[0]) <= reach * 1.42)
        covered, local = covers(decal, x[near], y[near])
        inside, colour = near[covered], texture(decal, local[covered])
        colours[inside] = (1 - decal.opacity) * colours[inside] + decal.opacity * colour
        ids[inside] = decal.class_id
    return ids, colours


def _noise(x, y, cell: float) -> np.ndarray:
    """A pseudo-random number in [0, 1), fixed for each cell of the ground."""
    value = np.sin(np.floor(x / cell) * 12.9898 + np.floor(y / cell) * 78.233) * 43758.5453
    return value - np.floor(value)


def texture(surface: Surface, local: np.ndarray) -> np.ndarray:
    """Albedo (n, 3) at points (n, 2 or 3) in the surface's own axes: its two colours in its pattern."""
    colour = np.broadcast_to(np.asarray(surface.colour, float), (len(local), 3)).copy()
    if surface.pattern == "stripes":
        other = np.floor((local @ (0.5, 1.0, 1.0)[: local.shape[1]]) / 0.3) % 2 == 0
    elif surface.pattern == "checks":
        other = np.floor(local / 0.35).sum(axis=1) % 2 == 0
    elif surface.pattern == "spots":
        other = ((local % 0.4 - 0.2) ** 2).sum(axis=1) < 0.016 * local.shape[1] / 2
    else:
        return colour
    colour[other] = surface.second
    return colour


def pattern_colour(solid: Solid, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Albedo (n, 3) at points in the solid's own axes (its centre is 0)."""
    colour, half = texture(solid, local), np.asarray(solid.size) / 2
    upright = np.abs(normal[:, 2]) < 0.5
    x, y, z = local.T
    if solid.pattern == "windows":
        colour[upright & (z % 3.0 > 1.4) & (x % 3.0 > 0.8) & (x % 3.0 < 2.2)] = (0.13, 0.16, 0.2)
    elif solid.pattern == "bump":
        colour[np.floor(y / 0.6) % 2 == 0] = (0.1, 0.1, 0.1)
    elif solid.pattern == "leaves":
        colour *= (0.7 + 0.6 * _noise(x + z, y, 0.3))[:, None]
    if solid.car == "cabin":
        colour[upright] = GLASS
    elif solid.car == "body":  # red rear and white front lamps, a dark underside, a van's windows
        z = z + half[2]  # above the lower edge
        ends = upright & (np.abs(np.abs(x) - half[0]) < 0.02)
        lamps = ends & (np.abs(y) > 0.6 * half[1]) & (z > 0.4) & (z < 0.68)
        colour[lamps & (x < 0)], colour[lamps & (x > 0)] = (0.8, 0.03, 0.03), (0.95, 0.95, 0.9)
        colour[upright & (z < 0.2)] = (0.05, 0.05, 0.05)
        colour[ends & (z > 0.9) & (z < 2 * half[2] - 0.15) & (np.abs(y) < 0.8 * half[1])] = GLASS
    return colour
