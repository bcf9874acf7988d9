"""One frame read from its files: image, scan, ground truth, and the arrays that are cached for training.

Axes of a scan: x forward, y left, z up, in metres, with the sensor at the origin. Classes are coded as ids
or colours, see palettes.py.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.anovox.files import NORMALITY, UNKNOWN_KIND, ScenarioFiles
from datasets.anovox.palettes import PALETTES, point_classes, read_class_image
from datasets.anovox.pointclouds import read_points, read_voxels
from datasets.cache import describe_files, open_cache
from datasets.images import read_scene
from utils.run.errors import DataError

ANOMALY_IDS = (29, 30, 31, 32, 33, 34, 100)  # home, animal, nature, special, airplane, falling, anomaly
AGENT_IDS = (112, 113, 114, 115, 116, 118, 119)  # driven by agents, which AnoVox excludes from evaluation
REFERENCE_AREA = 512 * 768  # anomalous pixels are counted at this image size
CELL_GRID = (8, 12)  # rows and columns of the image cells in which anomalies are located
UNKNOWN = -1  # no label
UNKNOWN_SHARE = 255  # no semantic image
GROUND = -0.4  # metres; half of a scan's points lie lower
NO_POINT = "a point in the model's region"
# The files beside this one that make the arrays, too
READERS = ("palettes.py", "pointclouds.py", "pasted.py", "pastes.py", "raycast.py")
NEIGHBOUR = 0.5  # metres; the LiDAR has noise of .1 m along the ray, the semantic LiDAR has none

# (kind, key, files, items per file, item shape, produce(k), **options) -> the items; see open_cache
Store = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Region:
    """The part of a scan that the model sees: the road ahead, without points on the ego vehicle."""

    sector: float = 100.0  # degrees, centred on straight ahead; the camera sees 90
    max_range: float = 40.0  # metres
    min_range: float = 2.5  # metres; nearer points lie on the ego vehicle
    min_height: float = -4.0  # metres, relative to the sensor
    max_height: float = 1.0  # metres; higher points are no obstacles
    cell: float = 0.4  # metres; one point per cell of this size (for 1,024 points; half for 4,096)

    def contains(self, xyz: np.ndarray) -> np.ndarray:
        """(N,) bool: which points (N, 3) lie in the region."""
        distance = np.hypot(xyz[:, 0], xyz[:, 1])
        ahead = np.abs(np.arctan2(xyz[:, 1], xyz[:, 0])) <= math.radians(self.sector / 2)
        near = (distance >= self.min_range) & (distance <= self.max_range)
        return ahead & near & (xyz[:, 2] >= self.min_height) & (xyz[:, 2] <= self.max_height)


@dataclass(frozen=True)
class Frame:
    """The files of one moment of a drive. Truth: 1 = anomaly, 0 = normal, -1 = left out (agents)."""

    scenario: ScenarioFiles
    number: int
    coding: tuple[str, tuple[int, ...]] = ("AnoVox", ANOMALY_IDS)  # palette, ids of anomalies
    paste, copy = None, 0  # for frames with a pasted object, see pasted.py

    def seed(self, seed: int) -> int:
        """This frame's own seed, whatever other frames the data set holds."""
        text = f"{seed}/{self.scenario.name}/{self.number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def path(self, sensor: str) -> Path | None:
        """The file of a sensor, None if there is none."""
        return self.scenario.files[sensor].get(self.number)

    def image(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self._shaped(read_scene(self.path("image")), "image")

    def _shaped(self, pixels: np.ndarray, sensor: str) -> np.ndarray:
        """`pixels` (H, W, ...); with scans, DataError if the aspect ratio is not that of the first image."""
        height, width = pixels.shape[:2]
        first_width, first_height = self.scenario.image_size or (width, height)
        distorted = abs(width * first_height / (height * first_width) - 1) >= 0.01
        if distorted and self.scenario.files["points"]:
            found = f"{width}x{height} pixels, but its scenario began with {first_width}x{first_height}"
            remedy = "LiDAR points would fall on wrong pixels: export it again with that aspect ratio."
            raise DataError(f"{self.path(sensor)}: {found}.\n{remedy}")
        return pixels

    def scan(self) -> np.ndarray:
        """(N, 4) x, y, z, intensity; N = 0 without a file."""
        path = self.path("points")
        return read_points(path, turn=self.scenario.turn) if path else np.zeros((0, 4), np.float32)

    def pixel_classes(self) -> np.ndarray | None:
        """(H, W) uint8 class ids; None without a file."""
        if (path := self.path("semantic_image")) is None:
            return None
        return self._shaped(read_class_image(path, self.coding[0]), "semantic_image")

    def point_classes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Places (N, 3) and their class ids (N,); None without a file."""
        if (path := self.path("semantic_points")) is None:
            return None
        known = read_points(path, classes=True, turn=self.scenario.turn)
        return known[:, :3], point_classes(known[:, 3], self.coding[0], path)

    def true_pixels(self) -> np.ndarray | None:
        """Truth (H, W) int8; None if unknown."""
        return None if (classes := self.pixel_classes()) is None else self._truth(classes)

    def true_points(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Places (N, 3) and their truth (N,) int8; None if unknown."""
        return None if (known := self.point_classes()) is None else (known[0], self._truth(known[1]))

    def _truth(self, classes: np.ndarray) -> np.ndarray:
        agents = np.isin(classes, [number for number in AGENT_IDS if number not in self.coding[1]])
        return np.where(agents, -1, np.isin(classes, self.coding[1])).astype(np.int8)

    # The label, and the arrays that are cached.

    def counts(self, with_voxels: bool) -> np.ndarray:
        """(1, 4) float32: anomalous pixels at 768 x 512, anomalous points in the region, metres to the
        nearest, anomalous voxels. NaN without a file. Voxel grids are large: read only `with_voxels`."""
        pixels = points = distance = voxels = np.nan
        if (shown := self.true_pixels()) is not None:
            pixels = (shown == 1).sum() * REFERENCE_AREA / shown.size
        if (known := self.true_points()) is not None:
            hits = known[0][known[1] == 1]
            hits = hits[Region().contains(hits)]
            points = len(hits)
            distance = np.linalg.norm(hits, axis=1).min() if points else np.nan
        if with_voxels and (grid := self.path("voxels")):
            voxels = np.isin(read_voxels(grid)[:, 3], self.coding[1]).sum()
        return np.array([[pixels, points, distance, voxels]], np.float32)

    def digests(self) -> np.ndarray:
        """(1, 2) uint64: by which copies of image and scan are recognised; 0 without a file, or if it is so
        small that it shows nothing and may be the same in any drive."""
        width, height = self.scenario.image_size or (0, 0)
        found = np.zeros((1, 2), np.uint64)
        for k, (sensor, least) in enumerate({"image": 0.03 * width * height, "points": 0}.items()):
            data = path.read_bytes() if (path := self.path(sensor)) else b""
            if len(data) > 1000 + least:
                found[0, k] = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
        return found

    def label(self, rule: str, counts: np.ndarray, min_pixels: float, min_points: int) -> int:
        """1, 0 or UNKNOWN by a rule of labels.py; counts (4,): the result of `counts`."""
        (pixels, points, _, voxels), kind = counts, self.scenario.kind
        if rule == "scenario":
            return UNKNOWN if kind == UNKNOWN_KIND else int(kind != NORMALITY)
        if rule == "voxel":
            return int(voxels > 0) if np.isfinite(voxels) else 0 if kind == NORMALITY else UNKNOWN
        if pixels >= min_pixels or points >= min_points:
            return 1
        if kind == NORMALITY or (rule == "pasted" and kind == UNKNOWN_KIND):
            return 0
        # No sensor shows it. Unknown if the scenario has ground truth of a sensor that this frame lacks.
        sensors = ("semantic_image", "semantic_points")
        lost = [sensor for sensor in sensors if self.scenario.files[sensor] and not self.path(sensor)]
        return 0 if not lost and np.isfinite([pixels, points]).any() else UNKNOWN

    def pixels(self, size: tuple[int, int]) -> np.ndarray:
        """(1, H, W, 3) uint8 at `size` = (H, W), resized with antialiased bilinear interpolation."""
        image = self.image()
        if image.shape[:2] != size:
            image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        return image[None]

    def points(self, seed: int, count: int, cell: float, with_truth: bool) -> np.ndarray:
        """(1, count, 5) float32 x, y, z, intensity, and the truth of the nearest labelled return: 0 if none
        is within NEIGHBOUR, NaN if unknown. Rows without a point are NaN."""
        packed = np.full((count, 5), np.nan, np.float32)
        chosen = sample_points(self.scan(), Region(cell=cell), count, self.seed(seed))
        packed[: len(chosen), :4] = chosen
        known = self.true_points() if with_truth else None
        if known is not None and len(chosen):
            from scipy.spatial import cKDTree  # slow to import; only needed to build the cache

            near, found = cKDTree(known[0]).query(chosen[:, :3], distance_upper_bound=NEIGHBOUR)
            packed[: len(chosen), 4] = np.where(np.isfinite(near), np.append(known[1], 0)[found], 0)
        return packed[None]

    def cells(self) -> np.ndarray:
        """(1, rows, columns) uint8: anomalous share of each cell in 254ths; UNKNOWN_SHARE without truth."""
        if (truth := self.true_pixels()) is None:
            return np.full((1, *CELL_GRID), UNKNOWN_SHARE, np.uint8)
        edges = [np.linspace(0, truth.shape[k], CELL_GRID[k] + 1).round().astype(int) for k in (0, 1)]
        counts = np.add.reduceat((truth == 1).astype(int), edges[0][:-1], 0)
        counts = np.add.reduceat(counts, edges[1][:-1], 1)
        return np.ceil(254 * counts / np.outer(*map(np.diff, edges))).astype(np.uint8)[None]


def cached_results(
    frames: Sequence[Frame], method: Callable[..., np.ndarray], shape: tuple[int, ...],
    sensors: Sequence[str], settings: dict, key: dict, store: Store = open_cache, **cache,
) -> np.ndarray:  # fmt: skip
    """The results of `method`, a method of Frame, with its settings for all frames, (F, *shape).

    They are read from the cache, where they have the method's name, as long as images, files of `sensors`,
    calibration, settings, `key` and READERS stay the same. `cache`: cache_dir, limit_gb and dtype."""
    images = [frame.path("image") for frame in frames]
    paths = [frame.path(sensor) for sensor in sensors for frame in frames]
    turns = [np.eye(3) if frame.scenario.turn is None else frame.scenario.turn for frame in frames]
    poses = [np.append(frame.scenario.projection, turn) for frame, turn in zip(frames, turns, strict=True)]
    key = key | settings | {"coding": frames[0].coding, "poses": np.stack(poses)}
    key |= {"classes": [sorted(PALETTES[frames[0].coding[0]].items()), AGENT_IDS]}  # people correct them
    key |= {"known": [path is not None for path in paths]}
    key |= {"read": describe_files([path for path in paths if path])}
    key |= {"code": [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in READERS]}
    kind, counts = f"anovox_{method.__name__}", [1] * len(frames)
    return store(kind, key, images, counts, shape, partial(_make, method, settings, frames), **cache)


def _make(method: Callable[..., np.ndarray], settings: dict, frames: Sequence[Frame], k: int) -> np.ndarray:
    return method(frames[k], **settings)


def sample_points(points: np.ndarray, region: Region, max_points: int, seed: int) -> np.ndarray:
    """At most `max_points` of the region's points (n, 4) float32: one per cell, then a random draw.

    The first N points of a file would be its topmost ring, which is sky. One point per cell keeps the sample
    from following the density of the scan, which falls with the square of the distance. The draw is without
    replacement and depends only on the set of points and the seed, not on the order of the points."""
    points = np.asarray(points, np.float32)
    points = points[region.contains(points)]
    points = points[np.lexsort(points.T)]
    if len(points) == 0:
        return points
    rng = np.random.default_rng(seed)
    points = points[rng.permutation(len(points))]
    cells = np.floor(points[:, :3] / region.cell).astype(np.int64)
    _, first = np.unique(cells @ np.array([1 << 40, 1 << 20, 1]), return_index=True)
    return points[np.sort(first)[:max_points]]  # in the order of the permutation: a fair draw


def lacking(points: np.ndarray) -> str:
    """What the region's points (N, 3+) of a whole turn around the sensor, z up, never lack; '' if nothing."""
    points = points[np.isfinite(points[:, 2])]
    if not len(points):
        return NO_POINT
    if abs(np.sign(points[:, 1]).sum()) == len(points):
        return "points on both sides"
    return "ground below the sensor" if np.median(points[:, 2]) > GROUND else ""
