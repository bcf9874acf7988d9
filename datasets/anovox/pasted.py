"""Pastes objects into images and scans of normal recordings: the labels are known, not invented.

An object stands on the ground, where the scan is flat and free. In the image it has shading, soft edges, a
shadow on the ground and image noise. A LiDAR ray that hits it returns from its surface instead of from the
background. Some objects are pasted for one sensor only. Shapes and textures differ between train, val and
test, so that a test on pastes does not test memory.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.anovox.frame import Frame, Region
from datasets.anovox.raycast import Colour, Solid, hue_colour, intersect, local_hit, rotation, stand
from datasets.images import read_image, read_image_size
from utils.run.errors import DataError

SHAPES = {"train": ("box", "ellipsoid", "blob"), "val": ("cylinder",), "test": ("chair", "cone")}
TEXTURES = {"train": "noise", "val": "checks", "test": "stripes"}  # in addition to "plain" and "cut"
SENSORS, SHARES = ("both", "camera", "lidar"), (0.7, 0.15, 0.15)
# By --modality: some of SENSORS, from which is drawn which sensors see an object
DRAWN = {"both": SENSORS, "lidar": ("both", "lidar"), "camera": ("both",)}
NEAR, FAR = 4.5, 28.0  # metres ahead
MIN_HITS = 4  # returns in the model's region from an object that the model sees in the scan alone
DRAWS = 20  # of an object, until the model can see it
TRIES = 60  # to find a free place
NO_SCAN_HEIGHT = -1.7  # metres; of the ground relative to the sensor, if there is no scan


@dataclass(frozen=True)
class Pasting:
    """How objects of a `part` are pasted into frames, and how often each frame appears.

    copies: every frame appears 2 * `copies` times, alternately unchanged and with an object.
    share: instead, every frame appears unchanged with its own label, and this share of the normal frames
    appears once more with an object.
    modality: what the model reads of a frame.
    sensors: which of SENSORS see every object, drawn for both; otherwise that is drawn, too."""

    part: str
    copies: int = 1
    modality: str = "both"
    share: float = 0.0
    sensors: str = ""


def paste_into(
    frames: list[Frame], labels: np.ndarray, pasting: Pasting, seed: int
) -> tuple[np.ndarray, np.ndarray, list[Frame]]:
    """Indices into `frames` (M,), labels (M,), and the frames themselves, some with a pasted object."""
    every, times = np.arange(len(frames)), 2 * pasting.copies
    rows, copies = np.repeat(every, times), np.tile(np.arange(times), len(every))
    if pasting.share:
        normal = np.flatnonzero(labels == 0)
        chosen = np.linspace(0, len(normal) - 1, round(pasting.share * len(normal))).round().astype(int)
        rows, copies = np.append(every, normal[chosen]), np.repeat((0, 1), (len(every), len(chosen)))
    donors = tuple(sorted({frame.path("image") for frame in frames}))
    sources = [
        frame if pasting.share and not copy
        else PastedFrame(frame.scenario, frame.number, frame.coding, copy, pasting, donors, seed)
        for frame, copy in zip((frames[row] for row in rows), copies.tolist(), strict=True)
    ]  # fmt: skip
    return rows, np.where(copies % 2, 1, labels[rows]), sources


@dataclass(frozen=True)
class PastedFrame(Frame):
    """A frame with an object pasted into it, the same in image, scan and truth."""

    copy: int = 0  # number of this copy; odd copies get an object
    pasting: Pasting | None = None
    donors: tuple[Path, ...] = ()  # images that textures are cut from
    run_seed: int = 42

    @property
    def seeds(self) -> list[int]:
        return [self.seed(self.run_seed), self.copy]

    @cached_property
    def paste(self) -> Paste | None:
        """The pasted object, None in an unchanged copy. DataError if none can be seen: the label says so."""
        if self.copy % 2 == 0:
            return None
        scan = super().scan() if self.path("points") else None
        size = read_image_size(self.path("image"))
        if paste := draw_paste(scan, self.scenario.projection, size, self.seeds, self.pasting):
            return paste
        sensor = "points" if self.pasting.modality == "lidar" else "image"
        what = f"none of {DRAWS} objects pasted into this frame can be seen. Is no ground ahead in view?"
        remedy = "Remove the frame, or use another --modality, or --paste_share 0."
        raise DataError(f"{self.path(sensor)}: {what}\n{remedy}")

    def image(self) -> np.ndarray:
        return self._pasted()[0] if self.paste else super().image()

    def _pasted(self) -> tuple[np.ndarray, np.ndarray]:
        """The image with the object, and the share of each pixel (H, W) that it covers."""
        rng = np.random.default_rng([*self.seeds, 9])
        donor = read_image(rng.choice(self.donors)) if self.paste.texture == "cut" else None
        return paste_image(super().image(), self.paste, self.scenario.projection, self.seeds, donor)

    def scan(self) -> np.ndarray:
        return self._returns()[0]

    def _returns(self) -> tuple[np.ndarray, np.ndarray]:
        """The scan, and which returns (N,) come from the pasted object."""
        scan = super().scan()
        if self.paste is None:
            return scan, np.zeros(len(scan), bool)
        return paste_scan(scan, self.paste, self.seeds)

    def true_pixels(self) -> np.ndarray | None:
        if self.paste is None:
            return np.zeros(read_image_size(self.path("image"))[::-1], np.int8)
        return (self._pasted()[1] > 0.5).astype(np.int8)

    def true_points(self) -> tuple[np.ndarray, np.ndarray] | None:
        scan, hit = self._returns()
        return scan[:, :3], hit.astype(np.int8)


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


def draw_paste(
    scan: np.ndarray | None, projection: np.ndarray, size: tuple[int, int], seed: list[int], pasting: Pasting
) -> Paste | None:
    """A random object at a random place on the ground that the model can see: in an image of this `size`
    (width, height), or in the scan if it reads no image or the object is for the LiDAR alone; in both if both
    are to be judged. None if there is no such object among DRAWS."""
    allowed, part = ("both",) if pasting.sensors else DRAWN[pasting.modality], pasting.part
    share = np.array([SHARES[SENSORS.index(name)] for name in allowed])
    for attempt in range(DRAWS):
        rng = np.random.default_rng([*seed, attempt])
        sensors = str(rng.choice(allowed, p=share / share.sum()))
        x, y, ground = _find_place(scan, projection, rng)
        shape, extent, yaw = str(rng.choice(SHAPES[part])), rng.uniform(0.5, 1.7), rng.uniform(0, np.pi)
        solids = _build(shape, x, y, ground, extent, yaw, rng)
        extent = float(max(max(solid.size) for solid in solids))
        colours = tuple(tuple(_draw_colour(part, rng)) for _ in range(2))
        texture = str(rng.choice(("plain", TEXTURES[part], "cut")))
        paste = Paste(solids, (x, y, ground), extent, sensors, texture, colours)
        if _is_seen(paste, scan, projection, size, seed, pasting):
            return replace(paste, sensors=pasting.sensors or sensors)
    return None


def _is_seen(paste: Paste, scan, projection, size, seed: list[int], pasting: Pasting) -> bool:
    blind = "lidar" in (pasting.modality, paste.sensors)
    if blind or (pasting.sensors and pasting.modality == "both"):  # each by itself
        moved, hit = paste_scan(scan, paste, seed)
        if Region().contains(moved[hit, :3]).sum() < (MIN_HITS if blind else 1):
            return False
    blank = np.zeros((*size[::-1], 3), np.uint8)
    return blind or paste_image(blank, paste, projection, seed, blank)[1].max() > 0.5


def _draw_colour(part: str, rng: np.random.Generator) -> np.ndarray:
    """Any colour; training only has every other of six bands of hue, as in the built-in sample."""
    hue = rng.uniform(0, 6)
    return hue_colour(hue - (part == "train" and hue % 2 >= 1), rng.uniform(0, 1), rng.uniform(0.1, 1))


def _find_place(scan, projection, rng) -> tuple[float, float, float]:
    """x, y and height of a free place on the ground in view of the camera."""
    points = None if scan is None else scan[(scan[:, 0] > 3) & (scan[:, 2] < 0.5), :3]
    best = (8.0, 0.0, NO_SCAN_HEIGHT)
    for _ in range(TRIES):
        distance = NEAR * (FAR / NEAR) ** rng.random()  # log-uniform: as many near as far
        column = rng.uniform(-0.85, 0.85)  # of the image, -1 to 1
        ray = np.linalg.solve(projection[:, :3], np.array([column, 0.0, 1.0]))[:2]
        x, y = (ray / np.hypot(*ray) * distance).tolist()
        if points is None:
            return x, y, NO_SCAN_HEIGHT
        near = points[np.hypot(points[:, 0] - x, points[:, 1] - y) < max(1.2, 0.08 * distance)]
        if len(near) < 3:
            continue
        low, high = np.percentile(near[:, 2], [10, 95])
        best = (x, y, float(np.median(near[:, 2])))
        if high - low < 0.35 and low < -0.7:  # flat, and below the sensor
            return best
    return best


def _build(shape: str, x: float, y: float, ground: float, size: float, yaw: float, rng) -> tuple[Solid, ...]:
    """The solids of a shape standing on the ground."""

    def solid(kind, w, d, h, dx=0.0, dy=0.0, up=0.0):
        return stand(kind, x + dx, y + dy, ground + up, (w, d, h), yaw=yaw)

    a, b = rng.uniform(0.5, 1.0, 2) * size
    if shape == "cylinder":
        return (solid("cylinder", a, a, size),)
    if shape == "blob":  # three overlapping ellipsoids
        shifts = rng.uniform(-0.3, 0.3, (3, 2)) * size
        return tuple(solid("ellipsoid", 0.7 * size, 0.6 * a, 0.5 * b + 0.2, *shift) for shift in shifts)
    if shape == "chair":
        back = 0.4 * a * np.array([np.cos(yaw), np.sin(yaw)])
        return solid("box", a, a, size / 2), solid("box", 0.2 * a, a, size, *back)
    if shape == "cone":
        widths = enumerate((a, 0.6 * a, 0.3 * a))
        return tuple(solid("cylinder", w, w, size / 3, up=k * size / 3) for k, w in widths)
    return (solid(shape, size, a, b),)


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
