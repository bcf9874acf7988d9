"""A pasted object, and how camera and LiDAR see it.

In the image it has shading, soft edges, a shadow on the ground and image noise. A LiDAR ray that hits it
returns from its surface instead of from the background.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

from datasets.anovox.raycast import Colour, Solid, intersect, local_hit, rotation


@dataclass(frozen=True)
class Paste:
    """A pasted object: solids in LiDAR axes, the sensors that see it, and its colours."""

    solids: tuple[Solid, ...]
    centre: tuple[float, float, float]  # on the ground
    size: float  # metres, the largest extent
    sensors: str
    texture: str
    colours: tuple[Colour, Colour]

    @property
    def hue(self) -> float:
        """Hue of the first colour, 0..1."""
        return colorsys.rgb_to_hsv(*self.colours[0])[0]

    @property
    def distance(self) -> float:
        return float(np.hypot(*self.centre[:2]))


def paste_scan(scan: np.ndarray, paste: Paste, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The scan (N, 4) with rays shortened where the object stops them, and which rays those are (N,) bool.

    A new return takes the intensity of an existing one at that range, and range noise like a LiDAR's."""
    if paste.sensors == "camera" or len(scan) == 0:
        return scan, np.zeros(len(scan), bool)
    rng = np.random.default_rng([*seed, 1])
    scan = np.array(scan, np.float32)
    ranges = np.linalg.norm(scan[:, :3], axis=1)
    rays = scan[:, :3] / np.maximum(ranges, 1e-6)[:, None]
    stop = np.min([intersect(solid, rays, np.zeros(3)) for solid in paste.solids], axis=0)
    hit = stop < ranges - 0.05
    if hit.any():
        stop = stop[hit] + rng.normal(0, rng.uniform(0.01, 0.1), hit.sum())
        order = np.argsort(ranges)
        like = order[np.minimum(np.searchsorted(ranges[order], stop), len(order) - 1)]
        scan[hit] = np.column_stack([stop[:, None] * rays[hit], scan[like, 3]])
    return scan, hit


def paste_image(
    image: np.ndarray, paste: Paste, projection: np.ndarray, seed: list[int], donor: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The image (H, W, 3) uint8 with the object, and the share of each pixel that it covers (H, W) 0..1.

    If only the LiDAR sees the object, the image stays as it is and the share shows where the object would be.
    `donor`: the image that a texture "cut" comes from."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.float32)
    window = _window(paste, projection, height, width)
    if window is None:
        return image, cover
    rng = np.random.default_rng([*seed, 2])
    rows, columns = window
    # Two rays per pixel and axis, for soft edges.
    v = (np.arange(2 * rows.start, 2 * rows.stop) + 0.5) / height - 1
    u = (np.arange(2 * columns.start, 2 * columns.stop) + 0.5) / width - 1
    inverse = np.linalg.inv(projection[:, :3])
    eye = -inverse @ projection[:, 3]
    rays = np.stack(np.broadcast_arrays(u[None], v[:, None], 1.0), -1) @ inverse.T  # (2h, 2w, 3)
    distances = np.stack([intersect(solid, rays, eye) for solid in paste.solids])
    nearest, t = distances.argmin(0), distances.min(0)

    patch = image[window].astype(np.float32) / 255
    patch *= 1 - _halve(_shadow(paste, rays, eye)[..., None] * rng.uniform(0.3, 0.7))
    sun = rng.normal(size=3)
    sun[2] = abs(sun[2]) + 0.5
    sun /= np.linalg.norm(sun)
    cut = paste.texture == "cut"  # keeps its own brightness; other textures take that of the surroundings
    brightness = np.clip(2 * (0.5 if cut else max(float(patch.mean()), 0.08)), 0.3, 1.3)
    picture = _cut(donor, rng) if cut else rng.random((8, 8, 3))
    colour = np.zeros((*t.shape, 3), np.float32)
    for index, solid in enumerate(paste.solids):
        seen = (nearest == index) & np.isfinite(t)
        local, normal = local_hit(solid, eye + t[seen][:, None] * rays[seen])
        shade = 0.65 + 0.5 * np.clip(normal @ sun, 0, 1)
        colour[seen] = _texture(paste, local / np.max(solid.size), picture) * shade[:, None]
    colour *= brightness * rng.uniform(0.8, 1.2)
    solid_share = np.isfinite(t).astype(np.float32)[..., None]
    share = _halve(solid_share)
    colour = _halve(colour * solid_share) / np.maximum(share, 1e-6)
    colour += rng.normal(0, rng.uniform(0.002, 0.02), colour.shape)
    cover[window] = share[..., 0]
    if paste.sensors != "lidar":
        image = image.copy()
        mixed = np.clip(share * colour + (1 - share) * patch, 0, 1)
        image[window] = (mixed * 255 + 0.5).astype(np.uint8)
    return image, cover


def _window(paste: Paste, projection: np.ndarray, height: int, width: int) -> tuple[slice, slice] | None:
    """Rows and columns that the object and its shadow can cover, None if out of view."""
    signs = 0.75 * np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
    hulls = [signs * solid.size @ rotation(solid.yaw).T + solid.centre for solid in paste.solids]
    points = np.concatenate(hulls) @ projection[:, :3].T + projection[:, 3]
    if (points[:, 2] < 0.2).any():
        return None
    u, v = ((points[:, :2] / points[:, 2:] + 1) / 2 * (width, height)).T
    top, bottom = max(0, int(v.min())), min(height, int(v.max()) + 2)
    left, right = max(0, int(u.min())), min(width, int(u.max()) + 2)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _shadow(paste: Paste, rays: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Strength of the object's shadow, 0..1, at the ground point of each ray."""
    x, y, ground = paste.centre
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (ground - eye[2]) / rays[..., 2]
        distance = np.hypot(eye[0] + t * rays[..., 0] - x, eye[1] + t * rays[..., 1] - y)
    radius = 0.65 * paste.size
    return np.where(t > 0, np.clip(1.5 - distance / radius, 0, 1), 0).astype(np.float32)


def _texture(paste: Paste, local: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Colours (n, 3), 0..1, at points (n, 3) on a solid, in units of its size."""
    first, second = map(np.array, paste.colours)
    if paste.texture == "plain":
        return np.broadcast_to(first, local.shape)
    if paste.texture in ("stripes", "checks"):
        across = (local @ (3.0, 4.0, 5.0))[:, None]
        cells = np.floor(local * 6 if paste.texture == "checks" else across)
        return np.where(cells.sum(1, keepdims=True) % 2 == 0, first, second)
    height, width = picture.shape[:2]
    rows = np.clip((0.5 - local[:, 2]) * height, 0, height - 1).astype(int)
    columns = np.clip((0.5 + local[:, 0] - local[:, 1]) % 1 * width, 0, width - 1).astype(int)
    piece = picture[rows, columns]
    return piece if paste.texture == "cut" else 0.6 * first + 0.4 * piece


def _cut(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square piece of an image, below its upper third, 0..1."""
    height, width = image.shape[:2]
    side = int(rng.uniform(0.06, 0.25) * height)
    top, left = rng.integers(height // 3, height - side), rng.integers(0, width - side)
    return image[top : top + side, left : left + side] / 255


def _halve(values: np.ndarray) -> np.ndarray:
    """Mean over blocks of 2 x 2."""
    return values.reshape(values.shape[0] // 2, 2, values.shape[1] // 2, 2, -1).mean((1, 3))
