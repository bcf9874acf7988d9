"""LiDAR in AnoVox: reading scans, sampling them, and the pixels that points fall on.

Axes of a scan: x forward, y to the left, z up, metres, the sensor at the origin.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import asdict, dataclass

import numpy as np

from utils.run.errors import DataError

MAX_SCAN = 10_000_000  # points; the real scans hold about 90,000
LAST = ("label", "class", "tag", "rgb", "intensity", "reflectance", "i")  # names of a fourth column
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


def read_points(path, classes: bool = False, turn: float = 0.0) -> np.ndarray:
    """A scan as (N, 4) floats, columns x, y, z and intensity, with `classes` class id or colour 0xRRGGBB.

    Files: .npy and .bin (float32, as KITTI writes) of 4 columns or, without intensity, 3; .pcd and .ply with
    x, y, z and what they call intensity, label or rgb. Intensity that a file lacks is 1. `turn`: degrees that
    the axes are turned to the right. DataError for a file that is no scan, lacks classes or is not finite.
    """
    try:
        if path.suffix == ".npy":
            columns = _read_npy(path)
        elif path.suffix == ".bin":
            data = np.frombuffer(path.read_bytes(), "<f4")
            # Where both fit, coordinates in the fourth column would be negative somewhere.
            four = len(data) % 4 == 0 and (len(data) % 3 > 0 or (data[3::4] >= 0).all())
            columns = data.reshape(-1, 4 if four else 3).T
        else:
            columns = {".pcd": _read_pcd, ".ply": _read_ply}[path.suffix](path.read_bytes())
        if len(columns) == 3 and not classes:
            columns = [*columns, np.ones(len(columns[0]))]
        if len(columns) != 4:
            last = "class" if classes else "intensity"
            raise ValueError(f"{len(columns)} columns instead of x, y, z and {last}")
    except FileNotFoundError:
        raise DataError(f"{path}: no such scan.") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError, UnicodeDecodeError) as error:
        remedy = "Export it again, or remove the frame."
        raise DataError(f"{path}: not a readable {path.suffix} scan ({error}).\n{remedy}") from error
    points = np.column_stack(columns)
    if len(points) > MAX_SCAN:
        raise DataError(f"{path}: {len(points):,} points; more than {MAX_SCAN:,} is no LiDAR scan.")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise DataError(
            f"{path}: {bad.sum():,} of {len(points):,} points are NaN or infinite, "
            f"the first in row {bad.argmax()}.\nExport the scan again, or remove the frame."
        )
    if turn:
        cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        points[:, :2] = points[:, :2] @ np.array([[cosine, sine], [-sine, cosine]])
    return points


def read_voxels(path) -> np.ndarray:
    """A voxel file: integers (M, 4) ix, iy, iz and class id."""
    try:
        voxels = _read_npy(path)
        if len(voxels) != 4 or voxels.dtype.kind not in "iu":
            raise ValueError(f"{voxels.dtype} {voxels.T.shape} instead of integers (M, 4)")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable voxel file ({error}).") from error
    return voxels.T


def _read_npy(path) -> np.ndarray:
    """The columns of a table of numbers, (3 or 4, N)."""
    try:
        if isinstance(path, os.PathLike):
            array = np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))
        else:
            array = np.load(path.open(), allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged header makes numpy raise anything: SyntaxError, TokenError, ...
        raise ValueError(str(error)) from error
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"{array.dtype} {array.shape} instead of numbers (N, 4)")
    return array.T


def _read_pcd(data: bytes) -> list[np.ndarray]:
    """The Point Cloud Library's format, ascii or binary: columns x, y, z and one of LAST."""
    head, header, line = 0, {}, b""
    while not line.startswith(b"DATA"):
        end = data.index(b"\n", head)
        line, head = data[head:end].strip(), end + 1
        words = line.decode("ascii").split()
        header[words[0] if words else "#"] = words[1:]
    both = zip(header["TYPE"], header["SIZE"], strict=True)
    types = [{"F": "f", "U": "u", "I": "i"}[kind] + size for kind, size in both]
    if header["DATA"] not in (["ascii"], ["binary"]):
        raise ValueError(f"DATA {' '.join(header['DATA'])} is not supported")
    fields = list(zip(header["FIELDS"], types, strict=True))
    return _pick(data[head:], fields, int(header["POINTS"][0]), header["DATA"] == ["ascii"], "<")


def _read_ply(data: bytes) -> list[np.ndarray]:
    """The Stanford format, ascii or binary: its first element, the vertices."""
    end = data.index(b"end_header")
    lines = [line.split() for line in data[:end].decode("ascii").splitlines()]
    if not lines or lines[0] != ["ply"]:
        raise ValueError("it does not begin with ply")
    names = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
             "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
             "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"}  # fmt: skip
    kind = next(line[1] for line in lines if line and line[0] == "format")
    begin = next(k for k, line in enumerate(lines) if line[:2] == ["element", "vertex"])
    fields = []
    for line in lines[begin + 1 :]:
        if line[:1] != ["property"]:
            break
        fields.append((line[2], names[line[1]]))
    order = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
    body = data[data.index(b"\n", end) + 1 :]
    return _pick(body, fields, int(lines[begin][2]), kind == "ascii", order)


def _pick(
    body: bytes, fields: list[tuple[str, str]], count: int, ascii: bool, order: str
) -> list[np.ndarray]:
    """Columns x, y, z and, where there is one, the intensity, class or colour, of `count` records."""
    if count > MAX_SCAN:
        raise ValueError(f"{count:,} points")
    if ascii:
        rows = np.loadtxt(body.decode("ascii").splitlines()[:count], ndmin=2, dtype=np.float64)
        columns = dict(zip([name for name, _ in fields], rows.reshape(-1, len(fields)).T, strict=True))
    else:
        record = np.frombuffer(body, np.dtype([(name, order + kind) for name, kind in fields]), count)
        columns = {name: record[name] for name, _ in fields}
    if len(columns["x"]) != count:
        raise ValueError(f"{len(columns['x']):,} of {count:,} points")
    if "rgb" in columns and dict(fields)["rgb"] == "f4":  # the bits of a float are the colour
        columns["rgb"] = np.ascontiguousarray(columns["rgb"], np.float32).view(np.uint32)
    if {"red", "green", "blue"} <= columns.keys():
        red, green, blue = (columns[name].astype(np.int64) for name in ("red", "green", "blue"))
        columns["rgb"] = red << 16 | green << 8 | blue
    last = next((columns[name] for name in LAST if name in columns), None)
    return [columns[name] for name in "xyz"] + ([] if last is None else [last])


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
