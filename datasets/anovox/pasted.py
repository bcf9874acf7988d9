"""Pastes objects into images and scans of normal recordings: the labels are known, not invented.

An object (pastes.py) stands on the ground, where the scan is flat and free. Some are pasted for one sensor
only. Shapes and textures differ between train, val and test, so that a test on pastes does not test memory.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.anovox.frame import Frame, Region
from datasets.anovox.pastes import Paste, paste_image, paste_scan
from datasets.anovox.raycast import Solid, hue_colour, stand
from datasets.images import read_image, read_image_size
from utils.run.errors import DataError

SHAPES = {"train": ("box", "ellipsoid", "blob"), "val": ("cylinder",), "test": ("chair", "cone")}
TEXTURES = {"train": "noise", "val": "checks", "test": "stripes"}  # in addition to "plain" and "cut"
SENSORS, SHARES = ("both", "camera", "lidar"), (0.7, 0.15, 0.15)
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
    modality: what the model reads of a frame. If both, it is drawn which of SENSORS see an object.
    sensors: which see every object instead; it is drawn for both."""

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


def draw_paste(
    scan: np.ndarray | None, projection: np.ndarray, size: tuple[int, int], seed: list[int], pasting: Pasting
) -> Paste | None:
    """A random object at a random place on the ground that the model can see: in an image of this `size`
    (width, height), or in the scan if it reads no image or the object is for the LiDAR alone; in both if both
    are to be judged. None if there is no such object among DRAWS."""
    part = pasting.part
    for attempt in range(DRAWS):
        rng = np.random.default_rng([*seed, attempt])
        drawn = str(rng.choice(SENSORS, p=SHARES))
        sensors = drawn if pasting.modality == "both" and not pasting.sensors else "both"
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
