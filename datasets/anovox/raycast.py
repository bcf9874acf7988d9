"""Ray casting of one scene for two sensors: a pinhole camera and a spinning LiDAR share every surface.

World: x along the road, y left, z up, in metres; the road is the plane z = 0. A sensor at `eye` looks along
+x. It is a grid of ray directions (rows, columns, 3); a hit is eye + t * direction. Camera directions have
x = 1, so t is the depth along x; LiDAR directions are unit vectors, so t is the range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GROUND, SKY = -1, -2  # surface indices; solids count from 0
Colour = tuple[float, float, float]  # albedo, 0..1


@dataclass(frozen=True)
class Surface:
    """The fields that solids and decals share; `size` is along their own axes, before rotation by `yaw`."""

    kind: str
    centre: tuple[float, ...]
    size: tuple[float, ...]
    colour: Colour = (0.0, 0.0, 0.0)
    class_id: int = 0
    second: Colour = (0.0, 0.0, 0.0)  # the other colour of its pattern
    pattern: str = "plain"
    yaw: float = 0.0


@dataclass(frozen=True)
class Solid(Surface):
    """A box, upright cylinder or ellipsoid; `centre` and `size` are (x, y, z)."""

    car: str = ""  # "body" has lights and windows, "cabin" windows all round
    seen_by: str = "both"  # "lidar": the camera sees the road behind it; "camera": no return from it


@dataclass(frozen=True)
class Decal(Surface):
    """Flat on the ground: an ellipse, rectangle or cross (of two rectangles); `centre`, `size` are (x, y)."""

    opacity: float = 1.0


def stand(kind: str, x: float, y: float, base: float, size: tuple[float, float, float], **look) -> Solid:
    """A solid whose bottom is at height `base`; `look`: its other fields."""
    return Solid(kind, (x, y, base + size[2] / 2), size, **look)


def hue_colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB, 0..1, of a hue in sixths of the colour circle."""
    ramp = np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1
    return value * (1 - saturation * (1 - np.clip(ramp, 0, 1)))


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


def rotation(yaw: float) -> np.ndarray:
    """Rotation (3, 3) from local to world axes about z."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


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


def intersect(solid: Solid, rays: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Smallest t > 0 at which each ray (..., 3) enters the solid, inf if it misses. Slab method for flat
    faces, quadratic formula for round ones."""
    half_x, half_y, half_z = np.asarray(solid.size) / 2
    cosine, sine = np.cos(solid.yaw), np.sin(solid.yaw)
    ox, oy, oz = eye - np.asarray(solid.centre)
    dx, dy, dz = rays[..., 0], rays[..., 1], rays[..., 2]
    # In the solid's own axes and half sizes, where it is a unit box, cylinder or sphere.
    ox, oy, oz = (ox * cosine + oy * sine) / half_x, (oy * cosine - ox * sine) / half_y, oz / half_z
    dx, dy, dz = (dx * cosine + dy * sine) / half_x, (dy * cosine - dx * sine) / half_y, dz / half_z
    with np.errstate(divide="ignore", invalid="ignore"):
        if solid.kind == "ellipsoid":
            a, b = dx * dx + dy * dy + dz * dz, dx * ox + dy * oy + dz * oz
            spans = [_solve(a, b, ox * ox + oy * oy + oz * oz - 1)]
        elif solid.kind == "cylinder":
            spans = [_slab(oz, dz), _solve(dx * dx + dy * dy, dx * ox + dy * oy, ox * ox + oy * oy - 1)]
        else:
            spans = [_slab(oz, dz), _slab(ox, dx), _slab(oy, dy)]
        enter, leave = spans[0]
        for near, far in spans[1:]:
            enter, leave = np.maximum(enter, near), np.minimum(leave, far)
        return np.where((enter <= leave) & (enter > 1e-6), enter, np.inf)


def _slab(origin: float, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The t at which rays enter and leave -1..1 on one axis."""
    first, second = (-1 - origin) / direction, (1 - origin) / direction
    return np.minimum(first, second), np.maximum(first, second)


def _solve(a: np.ndarray, b: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Roots of a t^2 + 2 b t + c = 0, NaN if a ray misses."""
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


def local_hit(solid: Solid, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points (n, 3) on a solid -> coordinates from its centre in its own axes, and outward normals in
    world axes."""
    turn = rotation(solid.yaw)
    local = (points - solid.centre) @ turn
    unit = local / (np.asarray(solid.size) / 2)
    if solid.kind == "box":
        normal = np.zeros_like(unit)
        face = np.arange(len(unit)), np.abs(unit).argmax(-1)
        normal[face] = np.sign(unit[face])
    else:
        normal = unit / (np.asarray(solid.size) / 2)
        if solid.kind == "cylinder":
            lid = np.abs(unit[:, 2]) > 1 - 1e-6
            normal[:, 2] = np.where(lid, np.sign(unit[:, 2]), 0)
            normal[lid, :2] = 0
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return local, normal @ turn.T


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
