"""LiDAR in AnoVox: reading scans, sampling them, and the pixels that points fall on.

Axes of a scan: x forward, y to the left, z up, metres, the sensor at the origin.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from utils.run.errors import DataError

MAX_SCAN = 10_000_000  # points; the real scans hold about 90,000
OUTSIDE = 2.0  # normalised pixel coordinate of a point that no pixel shows


@dataclass(frozen=True)
class Region:
    """The part of a scan the model is given: the road ahead, without points on the ego vehicle itself."""

    sector: float = 100.0  # degrees, centred on straight ahead; the camera sees 90
    max_range: float = 40.0  # metres
    min_range: float = 2.5  # metres; nearer points lie on the ego vehicle
    min_height: float = -4.0  # metres, relative to the sensor
    max_height: float = 1.0  # metres; what is higher is no obstacle
    cell: float = 0.4  # metres; at most one point per cell of this size (at 1,024 points; half at 4,096)

    def contains(self, xyz: np.ndarray) -> np.ndarray:
        """Which points (N, 3) lie in the region, (N,) bool."""
        distance = np.hypot(xyz[:, 0], xyz[:, 1])
        ahead = np.abs(np.arctan2(xyz[:, 1], xyz[:, 0])) <= math.radians(self.sector / 2)
        near = (distance >= self.min_range) & (distance <= self.max_range)
        return ahead & near & (xyz[:, 2] >= self.min_height) & (xyz[:, 2] <= self.max_height)

    def settings(self) -> dict:
        return asdict(self)


def read_points(path: Path) -> np.ndarray:
    """A scan as (N, 4) floats, columns x, y, z and intensity or class id.

    Files: .npy (N, 4), or the legacy .pcd, whose fourth column is the colour as an integer 0xRRGGBB.
    DataError for a file that is no scan or not finite.
    """
    points = _read_pcd(path) if path.suffix == ".pcd" else _load_array(path, "fiu", "intensity or class")
    if len(points) > MAX_SCAN:
        raise DataError(f"{path}: {len(points):,} points; more than {MAX_SCAN:,} is no LiDAR scan.")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise DataError(
            f"{path}: {bad.sum():,} of {len(points):,} points are NaN or infinite, "
            f"the first in row {bad.argmax()}.\nExport the scan again, or remove the frame."
        )
    return points


def read_voxels(path: Path) -> np.ndarray:
    """A voxel file: integers (M, 4) ix, iy, iz and class id."""
    return _load_array(path, "iu", "class, all integers")


def _load_array(path: Path, kinds: str, last: str) -> np.ndarray:
    """(N, 4) of one of the numpy `kinds`; `last` says what its last column is."""
    try:
        array = np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))
    except Exception as error:  # a damaged header makes numpy raise anything: SyntaxError, TokenError, ...
        remedy = "Export it again, or remove the frame."
        raise DataError(f"{path}: not a readable .npy array ({error}).\n{remedy}") from error
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in kinds:
        raise DataError(
            f"{path}: 4 columns are expected, x, y, z and {last}; found {array.dtype} {array.shape}.\n"
            "Export it again, or remove the frame."
        )
    return array


def _read_pcd(path: Path) -> np.ndarray:
    """The Point Cloud Library's format, ascii or binary: x, y, z and optionally rgb or intensity."""
    try:
        data = path.read_bytes()
        head, header, line = 0, {}, b""
        while not line.startswith(b"DATA"):
            end = data.index(b"\n", head)
            line, head = data[head:end].strip(), end + 1
            words = line.decode("ascii").split()
            header[words[0] if words else "#"] = words[1:]
        count = int(header["POINTS"][0])
        both = zip(header["TYPE"], header["SIZE"], strict=True)
        types = [{"F": "f", "U": "u", "I": "i"}[kind] + size for kind, size in both]
        record = np.dtype([(name, f"<{kind}") for name, kind in zip(header["FIELDS"], types, strict=True)])
        if count > MAX_SCAN:
            raise ValueError(f"{count:,} points")
        if header["DATA"] == ["ascii"]:
            rows = np.loadtxt(data[head:].decode("ascii").splitlines(), ndmin=2, dtype=np.float64)[:count]
            columns = dict(zip(header["FIELDS"], rows.T, strict=True))
            if "rgb" in columns and types[header["FIELDS"].index("rgb")] == "f4":
                columns["rgb"] = columns["rgb"].astype(np.float32).view(np.uint32)
        elif header["DATA"] == ["binary"]:
            rows = np.frombuffer(data, record, count, head)
            columns = {name: rows[name] for name in header["FIELDS"]}
            if "rgb" in columns:
                columns["rgb"] = np.ascontiguousarray(columns["rgb"]).view(np.uint32)
        else:
            raise ValueError(f"DATA {' '.join(header['DATA'])} is not supported")
        known = (columns[name] for name in ("rgb", "intensity", "label") if name in columns)
        last = next(known, np.ones(len(rows)))
        return np.column_stack([columns["x"], columns["y"], columns["z"], last]).astype(np.float64)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path}: not a readable .pcd point cloud ({error}).") from error


def sample_points(points: np.ndarray, region: Region, max_points: int, seed: int) -> np.ndarray:
    """At most `max_points` of the region's points (n, 4) float32: one per cell, then a random draw.

    The first N points of a file are its topmost ring, which is sky. A cell keeps the sampling from following
    the scan's own density, which falls with the square of the distance. The draw is without replacement. The
    result depends on the set of points and the seed only: equal points in another order give the same sample.
    """
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


def frame_seed(seed: int, scenario: str, frame_id: int) -> int:
    """One number per frame, whatever else the data set holds."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{scenario}/{frame_id}".encode()).digest()[:8], "little")


def project(points: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Pixels of points (..., 3+): (..., 2) u, v from -1 (left, top edge) to 1 (right, bottom edge).

    OUTSIDE where unseen. `projection` (3, 4), or one per leading index (..., 3, 4), maps x, y, z, 1 to
    (u * depth, v * depth, depth).
    """
    homogeneous = points[..., :3] @ np.swapaxes(projection[..., :3], -1, -2) + projection[..., None, :, 3]
    depth = homogeneous[..., 2:]
    pixels = homogeneous[..., :2] / np.where(depth > 0.05, depth, 1.0)
    seen = (depth[..., 0] > 0.05) & (np.abs(pixels) <= 1).all(axis=-1)
    return np.where(seen[..., None], pixels, OUTSIDE).astype(np.float32)
