"""Ray casting of one scene for two sensors: a pinhole camera and a spinning LiDAR share every surface.

World: x along the road, y to the left, z up, metres; the road lies in z = 0. A sensor sits at `eye` and looks
along +x. A sensor is a grid of ray directions (rows, columns, 3); a hit is eye + t * direction. Camera
directions have x = 1, so t is the planar depth of the depth image; LiDAR directions are unit vectors, so t is
the range. Objects are culled to the rectangle of the grid that their bounding box covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GROUND, SKY = -1, -2  # surface indices; solids count from 0


@dataclass(frozen=True)
class Solid:
    """A box, an upright cylinder or an ellipsoid: `size` along its own axes, before the turn by `yaw`."""

    kind: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    colour: tuple[float, float, float]  # albedo 0..1
    class_id: int
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)  # the other colour of its pattern
    pattern: str = "plain"
    yaw: float = 0.0
    car: str = ""  # "body" has lights and windows, "cabin" windows all round
    seen_by: str = "both"  # "lidar": the camera sees the road behind it; "camera": no return from it


def box(centre, size, colour, class_id, **look) -> Solid:
    return Solid("box", centre, size, colour, class_id, **look)


def cylinder(centre, size, colour, class_id, **look) -> Solid:
    return Solid("cylinder", centre, size, colour, class_id, **look)


def ellipsoid(centre, size, colour, class_id, **look) -> Solid:
    return Solid("ellipsoid", centre, size, colour, class_id, **look)


@dataclass(frozen=True)
class Decal:
    """Something flat on the ground: an ellipse, a rectangle or a cross (two rectangles)."""

    kind: str
    centre: tuple[float, float]
    size: tuple[float, float]
    colour: tuple[float, float, float]
    class_id: int
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    yaw: float = 0.0
    opacity: float = 1.0


def camera_rays(height: int, width: int, fov: float = 90.0) -> np.ndarray:
    """Directions (height, width, 3) through the pixel centres: u = cx - f*y/x, v = cy - f*z/x, f = W/2 /
    tan(fov/2).
    """
    focal = width / 2 / np.tan(np.radians(fov) / 2)
    left = (width / 2 - np.arange(width) - 0.5) / focal
    up = (height / 2 - np.arange(height) - 0.5) / focal
    return np.stack(np.broadcast_arrays(1.0, left[None, :], up[:, None]), axis=-1)


def lidar_rays(rings: int, azimuths: int, upper_fov: float = 15.0, lower_fov: float = -25.0) -> np.ndarray:
    """Unit directions (rings, azimuths, 3), the top ring first, as CARLA writes them; azimuth from -180 to
    180 degrees.
    """
    elevation = np.radians(np.linspace(upper_fov, lower_fov, rings))[:, None]
    azimuth = np.radians((np.arange(azimuths) + 0.5) * 360 / azimuths - 180)[None, :]
    x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    return np.stack(np.broadcast_arrays(x, y, np.sin(elevation)), axis=-1)


def rotation(yaw: float) -> np.ndarray:
    """World from local axes, a turn about z."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def corners(solid: Solid, eye: np.ndarray) -> np.ndarray:
    """The eight corners (8, 3) of the bounding box, relative to the eye."""
    signs = np.array([[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (-0.5, 0.5)])
    return signs * solid.size @ rotation(solid.yaw).T + solid.centre - eye


def camera_window(
    solid: Solid, eye: np.ndarray, height: int, width: int, fov: float = 90.0
) -> tuple[slice, slice] | None:
    """Rows and columns of the image that can show the solid, None when it lies behind the camera."""
    hull = corners(solid, eye)
    if (hull[:, 0] <= 0).all():
        return None
    if (hull[:, 0] < 0.2).any():  # it reaches past the image plane: no finite rectangle bounds it
        return slice(0, height), slice(0, width)
    focal = width / 2 / np.tan(np.radians(fov) / 2)
    column = width / 2 - focal * hull[:, 1] / hull[:, 0]
    row = height / 2 - focal * hull[:, 2] / hull[:, 0]
    return _rectangle(row.min() - 1, row.max() + 1, column.min() - 1, column.max() + 1, height, width)


def lidar_window(
    solid: Solid,
    eye: np.ndarray,
    rings: int,
    azimuths: int,
    upper_fov: float = 15.0,
    lower_fov: float = -25.0,
) -> tuple[slice, slice] | None:
    """Rings and azimuths that can hit the solid, None when it lies between no two rings."""
    hull = corners(solid, eye)
    middle = np.asarray(solid.centre) - eye
    nearest = np.hypot(*middle[:2]) - np.hypot(*solid.size[:2]) / 2
    if nearest < 0.1:
        return slice(0, rings), slice(0, azimuths)
    farthest = nearest + np.hypot(*solid.size[:2])
    elevation = np.degrees(np.arctan2(hull[:, 2].repeat(2), np.tile([nearest, farthest], 8)))
    ring = (upper_fov - elevation) / (upper_fov - lower_fov) * (rings - 1)
    direction = np.arctan2(middle[1], middle[0])
    # Corners about the centre, wrapped.
    spread = np.angle(np.exp(1j * (np.arctan2(hull[:, 1], hull[:, 0]) - direction)))
    column = (np.degrees(direction + spread) + 180) / 360 * azimuths
    if column.min() < 1 or column.max() > azimuths - 1:  # straddles the seam behind the car
        return _rectangle(ring.min() - 1, ring.max() + 1, 0, azimuths, rings, azimuths)
    return _rectangle(ring.min() - 1, ring.max() + 1, column.min() - 1, column.max() + 1, rings, azimuths)


def _rectangle(top, bottom, left, right, height, width) -> tuple[slice, slice] | None:
    top, left = max(0, int(np.floor(top))), max(0, int(np.floor(left)))
    bottom, right = min(height, int(np.ceil(bottom)) + 1), min(width, int(np.ceil(right)) + 1)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def cast(
    rays: np.ndarray, solids: list[Solid], windows: list, eye: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First hit of every ray: t (rows, columns), inf in the sky, and the surface's index (a solid, GROUND or
    SKY).
    """
    down = rays[..., 2] < 0
    t = np.full(rays.shape[:2], np.inf)
    t[down] = -eye[2] / rays[..., 2][down]
    surface = np.where(down, GROUND, SKY)
    for index, (solid, window) in enumerate(zip(solids, windows, strict=True)):
        if window is None:
            continue
        distance = intersect(solid, rays[window], eye)
        nearer = distance < t[window]
        t[window] = np.where(nearer, distance, t[window])
        surface[window] = np.where(nearer, index, surface[window])
    return t, surface


def intersect(solid: Solid, rays: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Smallest t > 0 at which each ray (..., 3) enters the solid, inf where it misses. Slab method; quadratic
    formula.
    """
    half_x, half_y, half_z = np.asarray(solid.size) / 2
    cosine, sine = np.cos(solid.yaw), np.sin(solid.yaw)
    ox, oy, oz = eye - np.asarray(solid.centre)
    dx, dy, dz = rays[..., 0], rays[..., 1], rays[..., 2]
    # On the solid's own axes, in units of its half size, where it is the unit box, cylinder or sphere.
    ox, oy, oz = (ox * cosine + oy * sine) / half_x, (oy * cosine - ox * sine) / half_y, oz / half_z
    dx, dy, dz = (dx * cosine + dy * sine) / half_x, (dy * cosine - dx * sine) / half_y, dz / half_z
    with np.errstate(divide="ignore", invalid="ignore"):
        if solid.kind == "ellipsoid":
            a, b = dx * dx + dy * dy + dz * dz, dx * ox + dy * oy + dz * oz
            return _nearest(*_solve(a, b, ox * ox + oy * oy + oz * oz - 1))
        enter, leave = _slab(oz, dz)
        if solid.kind == "cylinder":
            sides = [_solve(dx * dx + dy * dy, dx * ox + dy * oy, ox * ox + oy * oy - 1)]
        else:
            sides = [_slab(ox, dx), _slab(oy, dy)]
        for near, far in sides:
            enter, leave = np.maximum(enter, near), np.minimum(leave, far)
        return _nearest(enter, leave)


def _slab(origin: float, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the rays are between -1 and 1 on one axis."""
    first, second = (-1 - origin) / direction, (1 - origin) / direction
    return np.minimum(first, second), np.maximum(first, second)


def _solve(a: np.ndarray, b: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Roots of a t^2 + 2 b t + c = 0, nan where a ray misses."""
    root = np.sqrt(b * b - a * c)
    return (-b - root) / a, (-b + root) / a


def _nearest(enter: np.ndarray, leave: np.ndarray) -> np.ndarray:
    return np.where((enter <= leave) & (enter > 1e-6), enter, np.inf)


def local_hit(solid: Solid, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points (n, 3) on a solid -> coordinates on its own axes from its centre, and outward normals in
    the world.
    """
    turn = rotation(solid.yaw)
    local = (points - solid.centre) @ turn
    unit = local / (np.asarray(solid.size) / 2)
    if solid.kind == "box":
        normal = np.zeros_like(unit)
        axis = np.abs(unit).argmax(-1)
        normal[np.arange(len(unit)), axis] = np.sign(unit[np.arange(len(unit)), axis])
    else:
        normal = unit / (np.asarray(solid.size) / 2)
        if solid.kind == "cylinder":
            lid = np.abs(unit[:, 2]) > 1 - 1e-6
            normal[:, 2] = np.where(lid, np.sign(unit[:, 2]), 0)
            normal[lid, :2] = 0
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return local, normal @ turn.T


def covers(decal: Decal, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which ground points (n,) a decal covers, and all of them on its own axes (n, 2), metres."""
    turn = rotation(decal.yaw)[:2, :2]
    local = np.column_stack([x - decal.centre[0], y - decal.centre[1]]) @ turn
    along, across = (local / (np.asarray(decal.size) / 2)).T
    if decal.kind == "ellipse":
        return along**2 + across**2 <= 1, local
    inside = (np.abs(along) <= 1) & (np.abs(across) <= 1)
    if decal.kind == "cross":
        inside &= (np.abs(along) <= 0.4) | (np.abs(across) <= 0.4)
    return inside, local
