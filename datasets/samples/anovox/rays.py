"""Ray casting of one scene for two sensors: a pinhole camera and a spinning LiDAR share every surface.

World: x along the road, y left, z up, in metres; the road is the plane z = 0. A sensor at `eye` looks along
+x. It is a grid of ray directions (rows, columns, 3); a hit is eye + t * direction. Camera directions have
x = 1, so t is the depth along x; LiDAR directions are unit vectors, so t is the range.
"""

from dataclasses import dataclass

import numpy as np

from datasets.anovox.raycast import Solid, Surface, intersect, rotation

GROUND, SKY = -1, -2  # surface indices; solids count from 0


@dataclass(frozen=True)
class Decal(Surface):
    """Flat on the ground: an ellipse, rectangle or cross (of two rectangles); `centre`, `size` are (x, y)."""

    opacity: float = 1.0


def camera_rays(height: int, width: int, fov: float = 90.0) -> np.ndarray:
    """Directions (height, width, 3) through the pixel centres: u = cx - f*y/x, v = cy - f*z/x, f = W/2 /
    tan(fov/2)."""
    focal = width / 2 / np.tan(np.radians(fov) / 2)
    left = (width / 2 - np.arange(width) - 0.5) / focal
    up = (height / 2 - np.arange(height) - 0.5) / focal
    return np.stack(np.broadcast_arrays(1.0, left[None, :], up[:, None]), axis=-1)


def lidar_rays(rings: int, azimuths: int, upper_fov: float = 15.0, lower_fov: float = -25.0) -> np.ndarray:
    """Unit directions (rings, azimuths, 3), the top ring first, as CARLA writes them; azimuth from -180 to
    180 degrees."""
    elevation = np.radians(np.linspace(upper_fov, lower_fov, rings))[:, None]
    azimuth = np.radians((np.arange(azimuths) + 0.5) * 360 / azimuths - 180)[None, :]
    x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    return np.stack(np.broadcast_arrays(x, y, np.sin(elevation)), axis=-1)


def cast(rays: np.ndarray, solids: list[Solid], eye: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First hit of every ray: t (rows, columns), inf in the sky, and a solid's index, GROUND or SKY."""
    down = rays[..., 2] < 0
    t = np.full(rays.shape[:2], np.inf)
    t[down] = -eye[2] / rays[..., 2][down]
    surface = np.where(down, GROUND, SKY)
    for index, (solid, window) in enumerate(zip(solids, windows(solids, eye, rays), strict=True)):
        if window is None:
            continue
        distance = intersect(solid, rays[window], eye)
        nearer = distance < t[window]
        t[window] = np.where(nearer, distance, t[window])
        surface[window] = np.where(nearer, index, surface[window])
    return t, surface


def windows(solids: list[Solid], eye: np.ndarray, rays: np.ndarray) -> list[tuple[slice, slice] | None]:
    """Rows and columns of the rays that can hit the upright cylinder around each solid; None if none can."""
    size, centre = np.array([s.size for s in solids]), np.array([s.centre for s in solids]) - eye
    far, radius = np.hypot(*centre.T[:2]), np.hypot(*size.T[:2]) / 2
    ahead = np.maximum(far - radius, 1e-6)
    half = np.where(far > radius, np.arcsin(np.minimum(radius / np.maximum(far, 1e-6), 1)), np.pi)
    azimuth = np.arctan2(rays[0, :, 1], rays[0, :, 0])
    turned = np.angle(np.exp(1j * (azimuth - np.arctan2(*centre.T[1::-1])[:, None])))  # (solids, columns)
    heights = centre[:, 2, None] + size[:, 2, None] * (-0.5, 0.5)
    slopes = np.stack([heights / ahead[:, None], heights / (far + radius)[:, None]])  # (2, solids, 2)
    low, high = slopes[..., 0].min(0), slopes[..., 1].max(0)
    slope = rays[..., 2] / np.hypot(rays[..., 0], rays[..., 1])
    rows = (slope.max(1) >= low[:, None] - 1e-9) & (slope.min(1) <= high[:, None] + 1e-9)
    columns = np.abs(turned) <= half[:, None] + 1e-9
    seen = rows.any(1) & columns.any(1)
    spans = [(k.argmax(1), k.shape[1] - k[:, ::-1].argmax(1)) for k in (rows, columns)]
    ends = zip(seen, *spans[0], *spans[1], strict=True)
    return [(slice(a, b), slice(c, d)) if shown else None for shown, a, b, c, d in ends]


def covers(decal: Decal, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which ground points (n,) a decal covers, and all points in its own axes (n, 2), metres."""
    local = np.column_stack([x - decal.centre[0], y - decal.centre[1]]) @ rotation(decal.yaw)[:2, :2]
    along, across = (local / (np.asarray(decal.size) / 2)).T
    if decal.kind == "ellipse":
        return along**2 + across**2 <= 1, local
    inside = (np.abs(along) <= 1) & (np.abs(across) <= 1)
    if decal.kind == "cross":
        inside &= (np.abs(along) <= 0.4) | (np.abs(across) <= 0.4)
    return inside, local
