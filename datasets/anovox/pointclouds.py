"""Reads scans: .npy and .bin as CARLA and KITTI write them, .pcd and .ply of other tools, and voxel grids."""

import itertools
from collections.abc import Sequence

import numpy as np

from utils.run.errors import DataError

MAX_SCAN = 10_000_000  # points; the real scans hold about 90,000
MAX_METRES = 1000.0  # no LiDAR sees that far
INTENSITY = ("intensity", "reflectance", "reflectivity", "remission", "i")  # in any case
OTHER = ("ring", "time", "timestamp", "t")
COLOUR = ("rgb", "rgba")
CLASS = ("label", "class", "classification", "tag", "objtag", *COLOUR)
READ = {*"xyz", *INTENSITY, *CLASS}  # names of columns that `pick` knows


def read_points(path, classes: bool = False, turn: np.ndarray | None = None) -> np.ndarray:
    """Read a scan as (N, 4) floats: x, y, z and intensity, or with `classes` class id or colour 0xRRGGBB.

    Formats: .npy and .bin (float32, as in KITTI) with 4 columns, or 3 without intensity; .bin also with 5 or
    6, such as ring and time, as in nuScenes; .npy with named columns, .pcd and .ply in any column order.
    Intensity that is missing or NaN throughout becomes 1. Points whose x, y and z are all NaN are left out.
    `turn`: a rotation of the axes (ScenarioFiles.turn). DataError if the file is no scan, lacks classes or
    holds other values that are not finite."""
    try:
        columns = FORMATS[path.suffix.lower()](path, classes)
        if len(columns) == 3 and not classes:
            columns = [*columns, np.ones(len(columns[0]))]
        if len(columns) != 4:
            last = "class" if classes else "intensity"
            raise ValueError(f"{len(columns)} columns instead of x, y, z and {last}")
        points = np.column_stack(columns)
        points = points if points.dtype.kind == "f" else points.astype(np.float64)
        points = points[~np.isnan(points[:, :3]).all(axis=1)]  # rays without a return, in organised clouds
        if not classes and np.isnan(points[:, 3]).all():  # what some programs write without one
            points[:, 3] = 1
        bad = ~np.isfinite(points).all(axis=1)
        if len(points) > MAX_SCAN:
            raise ValueError(f"{len(points):,} points; more than {MAX_SCAN:,} is no LiDAR scan")
        if bad.any():
            found = f"{bad.sum():,} of {len(points):,} points are NaN or infinite"
            raise ValueError(f"{found}, the first in row {bad.argmax()}")
        if len(points) and (far := np.abs(points[:, :3]).max()) > MAX_METRES:
            raise ValueError(f"a point lies {far:,.4g} from the sensor, which is no distance in metres")
    except Exception as error:  # a damaged file can raise any exception
        remedy = "Export it again (x forward, y left, z up, metres; .bin: float32), or remove the frame."
        raise DataError(f"{path}: not a readable {path.suffix} scan ({error}).\n{remedy}") from error
    if turn is not None:
        points[:, :3] = points[:, :3] @ turn.T
    return points


def read_voxels(path) -> np.ndarray:
    """Read a voxel file: integers (M, 4) ix, iy, iz and class id."""
    try:
        voxels = np.asarray(_read_npy(path, classes=True))  # named columns are read too
        if len(voxels) != 4 or voxels.dtype.kind not in "iu":
            raise ValueError(f"{voxels.dtype} {voxels.T.shape} instead of integers (M, 4)")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable voxel file ({error}).") from error
    return voxels.T


def _read_npy(path, classes: bool) -> Sequence[np.ndarray]:
    """The columns of a table of numbers, (3 or 4, N)."""
    try:
        array = np.asarray(np.load(path, allow_pickle=False, mmap_mode="r"))
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise anything: SyntaxError, TokenError, ...
        raise ValueError("damaged, cut short, or no array of numbers as numpy writes it") from error
    if array.dtype.names and array.ndim == 1:
        return pick(array, classes)
    if array.size == 0:
        return np.zeros((4, 0), array.dtype)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"{array.dtype} {array.shape} instead of numbers (N, 4)")
    return array.T


def _read_bin(path, classes: bool) -> np.ndarray:
    """The columns (3 to 6, N) of a file of rows; without `classes` at most 4. With the right width, each row
    resembles the one before it most. A width and its double are alike where the order of the points is
    random: then the smaller is taken."""
    data = np.frombuffer(path.read_bytes(), "<f4")
    known = np.nan_to_num(data)
    change = {
        n: np.abs(known[n:] - known[:-n]).mean() for n in (3, 4, 5, 6) if len(data) % n == 0 < len(data) - n
    }
    least = 1.03 * min(change.values(), default=0)
    columns = data.reshape(-1, next((n for n, mean in change.items() if mean <= least), 4)).T
    return columns if classes else columns[:4]


def _read_pcd(path, classes: bool) -> list[np.ndarray]:
    """Read the Point Cloud Library's format: ascii, binary or binary_compressed."""
    data, head, header, line = path.read_bytes(), 0, {}, b""
    while not line.startswith(b"DATA"):
        end = data.index(b"\n", head)
        line, head = data[head:end].strip(), end + 1
        words = line.decode("latin-1").split()
        header[words[0] if words else "#"] = words[1:]
    (kind,), body, count = header["DATA"], data[head:], int(header["POINTS"][0])
    counts, fields = map(int, header.get("COUNT", ["1"] * len(header["FIELDS"]))), []
    for name, letter, size, times in zip(
        header["FIELDS"], header["TYPE"], header["SIZE"], counts, strict=True
    ):
        fields += [(name, "<" + {"F": "f", "U": "u", "I": "i"}[letter] + size)] * times
    names = [name for name, _ in fields]  # some are alike: padding is always called _
    if twice := sorted({name for name in names if name.lower() in READ and names.count(name) > 1}):
        raise ValueError(f"several of its columns are called {' and '.join(twice)}")
    fields = [(f"_{k}" if name in names[:k] else name, code) for k, (name, code) in enumerate(fields)]
    if kind == "binary_compressed":  # column by column
        packed, size = np.frombuffer(body, "<u4", 2).tolist()
        if size != count * np.dtype(fields).itemsize:
            raise ValueError(f"{size:,} bytes are not {count:,} points")
        body, at, table = decompress(body[8 : 8 + packed]), 0, np.zeros(count, fields)
        for name, code in fields:
            table[name] = np.frombuffer(body, code, count, at)
            at += table[name].nbytes
        return pick(table, classes)
    if kind not in ("ascii", "binary"):
        raise ValueError(f"DATA {kind} is not supported")
    return pick(_read_table(body, fields, count, kind == "ascii"), classes)


def decompress(data: bytes) -> bytearray:
    """Decompress LibLZF: literal bytes, and copies of earlier output."""
    out, at = bytearray(), 0
    while at < len(data):
        length, at = data[at] >> 5, at + 1
        if not length:
            end = at + 1 + data[at - 1]
            out += data[at:end]
        else:
            end = at + 1 + (length == 7)
            begin = len(out) - ((data[at - 1] & 31) << 8) - data[end - 1] - 1
            length += 2 + (data[at] if length == 7 else 0)
            piece = out[begin : begin + length]
            out += (piece * (length // max(len(piece), 1) + 1))[:length]  # a copy may overlap itself
        at = end
    return out


def _read_ply(path, classes: bool) -> list[np.ndarray]:
    """Read the vertices of the Stanford format, ascii or binary; they must be its first element."""
    data = path.read_bytes()
    end = data.index(b"\nend_header")
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()]
    lines = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    if not lines or lines[0] != ["ply"]:
        raise ValueError("it does not begin with ply")
    names = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
             "float": "f4", "double": "f8"}  # fmt: skip
    kind = next(line[1] for line in lines if line[0] == "format")
    order = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
    begin = next(k for k, line in enumerate(lines) if line[0] == "element")
    if lines[begin][1] != "vertex":
        raise ValueError(f"its first element is {lines[begin][1]}, not vertex")
    properties = itertools.takewhile(lambda line: line[0] == "property", lines[begin + 1 :])
    fields = [(line[2], order + np.dtype(names.get(line[1], line[1])).str[1:]) for line in properties]
    body = data[data.index(b"\n", end + 1) + 1 :]
    return pick(_read_table(body, fields, int(lines[begin][2]), kind == "ascii"), classes)


def _read_table(body: bytes, fields: list[tuple[str, str]], count: int, ascii: bool) -> np.ndarray:
    """`count` records with named columns."""
    if count > MAX_SCAN:
        raise ValueError(f"{count:,} points")
    if ascii:  # whole numbers may be written with decimals
        numbers = [(name, "f8") for name, _ in fields]
        lines = body.decode("ascii").splitlines()[:count]
        table = np.loadtxt(lines, numbers, ndmin=1) if lines else np.zeros(0, numbers)
        table = table.astype([(name, code if name.lower() in COLOUR else "f8") for name, code in fields])
    else:
        table = np.frombuffer(body[: count * np.dtype(fields).itemsize], fields)
    if len(table) != count:
        raise ValueError(f"{len(table):,} of {count:,} points")
    return table


def pick(table: np.ndarray, classes: bool) -> list[np.ndarray]:
    """From a table with named columns: x, y, z and, if present, the intensity, or with `classes` the class or
    colour 0xRRGGBB: a column with a name of CLASS, or else the only further one. ValueError if there are
    several."""
    # CARLA writes I and ObjTag, CloudCompare scalar_Label.
    columns = {name.lower().removeprefix("scalar_"): table[name] for name in table.dtype.names}
    for name in columns.keys() & COLOUR:
        bits = columns[name]  # a float stores the colour in its bits; the top byte may be alpha
        bits = np.ascontiguousarray(bits, "f4").view("u4") if bits.dtype.kind == "f" else bits
        columns[name] = bits.astype(np.int64) & 0xFFFFFF
    if {"red", "green", "blue"} <= columns.keys():
        red, green, blue = (columns[name].astype(np.int64) for name in ("red", "green", "blue"))
        columns["rgb"] = red << 16 | green << 8 | blue
    last = [name for name in (CLASS if classes else INTENSITY) if name in columns]
    if classes and not last:
        last = [name for name in columns if name not in (*"xyz", *OTHER) and not name.startswith("_")]
        if len(last) > 1:
            raise ValueError(f"its columns {', '.join(last)} do not say which is the class: name it label")
    return [columns[name] for name in (*"xyz", *last[:1])]


FORMATS = {".npy": _read_npy, ".bin": _read_bin, ".pcd": _read_pcd, ".ply": _read_ply}
