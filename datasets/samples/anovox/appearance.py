"""Colours: what the camera makes of the surfaces that its rays hit, in the light of a CARLA weather
preset."""

from __future__ import annotations

import numpy as np

from datasets.samples.anovox.raycast import GROUND, SKY, Decal, Solid, covers, local_hit
from datasets.samples.anovox.town import ROAD, SKY_CLASS, TERRAIN, Town

ORANGE, WHITE = (0.95, 0.45, 0.05), (0.9, 0.9, 0.9)


def light_of(weather: str, rng: np.random.Generator) -> dict:
    """Sun direction and colour, ambient light, haze per metre, sky, wetness and exposure of a weather
    preset."""
    sunset = weather.endswith("Sunset")
    sky = weather.removesuffix("Sunset").removesuffix("Noon")
    strength = {
        "Clear": 0.75,
        "Cloudy": 0.3,
        "Wet": 0.6,
        "WetCloudy": 0.25,
        "MidRain": 0.2,
        "HardRain": 0.1,
        "SoftRain": 0.25,
    }[sky]
    haze = {"MidRain": 0.004, "HardRain": 0.008, "SoftRain": 0.003}.get(sky, 0.0008)
    height, turn = np.radians(15 if sunset else 60), rng.uniform(0, 2 * np.pi)
    colour = np.array((1.0, 0.82, 0.62) if sunset else (1.0, 0.98, 0.95))
    blue = np.array((0.8, 0.62, 0.5) if sunset else (0.45, 0.62, 0.88))
    return {
        "sun": np.array([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)]),
        "strength": strength * colour,
        "ambient": (1.0 - 0.7 * strength) * (0.8 if sunset else 1.0) * (0.5 + 0.5 * colour) * 0.85,
        "haze": haze,
        "sky": blue if strength > 0.5 else np.full(3, 0.6 if sunset else 0.75),
        "wet": 0.8 if sky not in ("Clear", "Cloudy") else 1.0,  # a wet road is darker
        "exposure": rng.uniform(0.9, 1.1),
    }


def paint_image(
    rays,
    t,
    surface,
    solids: list[Solid],
    windows: list,
    decals: list[Decal],
    town: Town,
    eye,
    light: dict,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Camera image uint8 (H, W, 3) and class ids uint8 (H, W) of one cast."""
    height, width = surface.shape
    elevation = rays[..., 2] / np.linalg.norm(rays, axis=-1)
    image = light["sky"] * (1 - 0.35 * np.clip(elevation, 0, 1)[..., None])
    classes = np.full((height, width), SKY_CLASS, np.uint8)

    # The ground as if nothing stood on it: what a camouflaged solid shows instead of itself.
    down = rays[..., 2] < 0
    depth = -eye[2] / rays[..., 2][down]
    x, y = eye[0] + depth, eye[1] + depth * rays[..., 1][down]
    ids, colours = ground_at(x, y, decals, town, light["wet"])
    shine = light["ambient"] + light["strength"] * light["sun"][2]
    ground = np.zeros_like(image)
    ground[down] = haze_over(colours * shine, depth, light)
    flat = surface == GROUND
    image[flat] = ground[flat]
    classes[flat] = ids[flat[down]]

    for index in np.unique(surface[surface >= 0]):
        solid, window = solids[index], windows[index]
        hit = surface[window] == index
        classes[window][hit] = solid.class_id
        if solid.camouflaged:
            image[window][hit] = ground[window][hit]
            continue
        depth = t[window][hit]
        local, normal = local_hit(solid, eye + depth[:, None] * rays[window][hit])
        colour = pattern_colour(solid, local, normal)
        bright = (
            light["ambient"] * (0.75 + 0.25 * normal[:, 2:])
            + light["strength"] * np.clip(normal @ light["sun"], 0, 1)[:, None]
        )
        image[window][hit] = haze_over(colour * bright, depth, light)
    image = image * light["exposure"] + rng.normal(0, 0.012, image.shape)
    return (np.clip(image, 0, 1) ** (1 / 1.3) * 255 + 0.5).astype(np.uint8), classes


def haze_over(colour: np.ndarray, depth: np.ndarray, light: dict) -> np.ndarray:
    through = np.exp(-light["haze"] * depth)[:, None]
    return colour * through + light["sky"] * 0.9 * (1 - through)


def ground_at(x, y, decals: list[Decal], town: Town, wet: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Class ids (n,) and albedo (n, 3) of ground points; later decals lie over earlier ones."""
    on_road = (y > town.right_kerb) & (y < town.left_kerb)
    ids = np.where(on_road, ROAD, TERRAIN).astype(np.uint8)
    grain = 1 + 0.10 * (_noise(x, y, 0.35) - 0.5) + 0.12 * (_noise(x, y, 2.7) - 0.5)
    colours = np.where(on_road[:, None], np.multiply(town.asphalt, wet), town.grass) * grain[:, None]
    for decal in decals:
        reach = max(decal.size) / 2
        near = np.flatnonzero(np.abs(x - decal.centre[0]) <= reach * 1.42)
        inside = near[covers(decal, x[near], y[near])]
        colours[inside] = (1 - decal.opacity) * colours[inside] + decal.opacity * np.asarray(decal.colour)
        ids[inside] = decal.class_id
    return ids, colours


def _noise(x, y, cell: float) -> np.ndarray:
    """A fixed number in [0, 1) for each cell of the ground."""
    value = np.sin(np.floor(x / cell) * 12.9898 + np.floor(y / cell) * 78.233) * 43758.5453
    return value - np.floor(value)


def pattern_colour(solid: Solid, local: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Albedo (n, 3) at points on the solid's own axes (its centre is 0)."""
    colour = np.broadcast_to(np.asarray(solid.colour, float), local.shape).copy()
    half = np.asarray(solid.size) / 2
    upright = np.abs(normal[:, 2]) < 0.5
    if solid.pattern == "stripes":
        band = np.floor((local[:, 2] + 0.5 * local[:, 1] + 10) / 0.28) % 2 == 0
        colour[:] = np.where(band[:, None], ORANGE, WHITE)
    elif solid.pattern == "windows":
        along = local[:, 0] % 3.0
        colour[upright & (local[:, 2] % 3.0 > 1.4) & (along > 0.8) & (along < 2.2)] = (0.13, 0.16, 0.2)
    elif solid.pattern == "bump":
        colour[np.floor(local[:, 1] / 0.6) % 2 == 0] = (0.1, 0.1, 0.1)
    elif solid.pattern == "leaves":
        colour *= (0.7 + 0.6 * _noise(local[:, 0] + local[:, 2], local[:, 1], 0.3))[:, None]
    elif solid.pattern == "glass":
        colour[upright] = (0.09, 0.1, 0.12)
    elif solid.pattern == "car":
        _paint_car_ends(
            colour,
            local[:, 1],
            local[:, 2],
            half[1],
            upright,
            np.where(local[:, 0] < 0, -1, 1),
            local[:, 0],
            half[0],
        )
    elif solid.pattern == "car picture":  # the back of a car: body below, window above
        z = local[:, 2] + half[2] - 0.6
        _paint_car_ends(colour, local[:, 1], z, half[1], upright, -1, -half[0], half[0])
        colour[(z > 0.42) & (z < half[2] * 2 - 0.6) & (np.abs(local[:, 1]) < 0.88 * half[1])] = (
            0.09,
            0.1,
            0.12,
        )
    return colour


def _paint_car_ends(colour, y, z, half_width, upright, end, x, half_length) -> None:
    """Lights red behind and white in front, and the dark underside; z counts from the middle of a body from
    .2 to 1 m.
    """
    face = upright & (np.abs(np.abs(x) - half_length) < 0.02)
    lamp = face & (np.abs(y) > 0.6 * half_width) & (z > 0.0) & (z < 0.28)
    colour[lamp & (np.asarray(end) < 0)] = (0.8, 0.03, 0.03)
    colour[lamp & (np.asarray(end) > 0)] = (0.95, 0.95, 0.9)
    colour[upright & (z < -0.2)] = (0.05, 0.05, 0.05)


def label_points(
    surface: np.ndarray, points: np.ndarray, solids: list[Solid], decals: list[Decal], town: Town
) -> np.ndarray:
    """Class ids (n,) of LiDAR hits: `surface` (n,) from the cast (no SKY), `points` (n, 3) in the world."""
    if (surface == SKY).any():
        raise ValueError("the sky gives no return")
    of_solid = np.array(
        [solid.class_id for solid in solids] + [0]
    )  # GROUND is -1: the last entry, filled below
    ids = of_solid[surface]
    ground = surface == GROUND
    ids[ground] = ground_at(points[ground, 0], points[ground, 1], decals, town)[0]
    return ids
