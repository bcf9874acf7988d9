"""Solids in space, and where rays hit them; axes as of a scan: x forward, y left, z up, in metres."""

from dataclasses import dataclass

import numpy as np

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


def stand(kind: str, x: float, y: float, base: float, size: tuple[float, float, float], **look) -> Solid:
    """A solid whose bottom is at height `base`; `look`: its other fields."""
    return Solid(kind, (x, y, base + size[2] / 2), size, **look)


def hue_colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB, 0..1, of a hue in sixths of the colour circle."""
    ramp = np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1
    return value * (1 - saturation * (1 - np.clip(ramp, 0, 1)))


def rotation(yaw: float) -> np.ndarray:
    """Rotation (3, 3) from local to world axes about z."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


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
