"""Reads columns x, y, z and one more from the point clouds of other tools: .pcd, .ply, .npy with names."""

import itertools
from collections.abc import Mapping

import numpy as np

MAX_SCAN = 10_000_000  # points; the real scans hold about 90,000
INTENSITY = ("intensity", "reflectance", "reflectivity", "remission", "i")  # in any case
COLOUR = ("rgb", "rgba")
CLASS = ("label", "class", "classification", "tag", "objtag", *COLOUR)


def read_pcd(data: bytes, classes: bool) -> list[np.ndarray]:
    """Read the Point Cloud Library's format: ascii, binary or binary_compressed."""
    head, header, line = 0, {}, b""
    while not line.startswith(b"DATA"):
        end = data.index(b"\n", head)
        line, head = data[head:end].strip(), end + 1
        words = line.decode("latin-1").split()
        header[words[0] if words else "#"] = words[1:]
    (kind,), body, count = header["DATA"], data[head:], int(header["POINTS"][0])
    names, counts = header["FIELDS"], map(int, header.get("COUNT", ["1"] * len(header["FIELDS"])))
    fields = []  # padding fields are all called _
    for name, letter, size, times in zip(names, header["TYPE"], header["SIZE"], counts, strict=True):
        code = {"F": "f", "U": "u", "I": "i"}[letter] + size
        fields += [(name if name != "_" and k == 0 else f"_{len(fields) + k}", code) for k in range(times)]
    if kind == "binary_compressed":  # stored column by column
        packed, size = np.frombuffer(body, "<u4", 2).tolist()
        if size != count * np.dtype(fields).itemsize:
            raise ValueError(f"{size:,} bytes are not {count:,} points")
        body, at, columns = decompress(body[8 : 8 + packed]), 0, {}
        for name, code in fields:
            columns[name] = np.frombuffer(body, "<" + code, count, at)
            at += columns[name].nbytes
        return pick(columns, classes)
    if kind not in ("ascii", "binary"):
        raise ValueError(f"DATA {kind} is not supported")
    return pick(_columns(body, fields, count, kind == "ascii", "<"), classes)


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


def read_ply(data: bytes, classes: bool) -> list[np.ndarray]:
    """Read the vertices of the Stanford format, ascii or binary; they must be its first element."""
    end = data.index(b"\nend_header")
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()]
    lines = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    if not lines or lines[0] != ["ply"]:
        raise ValueError("it does not begin with ply")
    names = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
             "float": "f4", "double": "f8"}  # fmt: skip
    kind = next(line[1] for line in lines if line[0] == "format")
    begin = next(k for k, line in enumerate(lines) if line[0] == "element")
    if lines[begin][1] != "vertex":
        raise ValueError(f"its first element is {lines[begin][1]}, not vertex")
    properties = itertools.takewhile(lambda line: line[0] == "property", lines[begin + 1 :])
    fields = [(line[2], np.dtype(names.get(line[1], line[1])).str[1:]) for line in properties]
    order = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
    body = data[data.index(b"\n", end + 1) + 1 :]
    return pick(_columns(body, fields, int(lines[begin][2]), kind == "ascii", order), classes)


def _columns(
    body: bytes, fields: list[tuple[str, str]], count: int, ascii: bool, order: str
) -> dict[str, np.ndarray]:
    """Columns of `count` records by name."""
    if count > MAX_SCAN:
        raise ValueError(f"{count:,} points")
    if not ascii:
        record = np.frombuffer(body[: count * np.dtype(fields).itemsize], [(n, order + k) for n, k in fields])
        rows = {name: record[name] for name, _ in fields}
    else:
        lines = body.decode("ascii").splitlines()[:count]
        table = np.loadtxt(lines, ndmin=2, dtype=np.float64) if lines else np.zeros(0)
        table = table.reshape(-1, len(fields)).T
        rows = {n: column.astype(k) if n.lower() in COLOUR else column
                for (n, k), column in zip(fields, table, strict=True)}  # fmt: skip
    if len(rows[fields[0][0]]) != count:
        raise ValueError(f"{len(rows[fields[0][0]]):,} of {count:,} points")
    return rows


def pick(columns: Mapping[str, np.ndarray], classes: bool) -> list[np.ndarray]:
    """x, y, z and, if present, the intensity, or with `classes` the class or colour 0xRRGGBB: a column with a
    name of CLASS, or else the only further one. ValueError if there are several."""
    # CARLA writes I and ObjTag, CloudCompare scalar_Label.
    columns = {name.lower().removeprefix("scalar_"): column for name, column in columns.items()}
    for name in columns.keys() & COLOUR:
        bits = columns[name]  # a float stores the colour in its bits; the top byte may be alpha
        bits = np.ascontiguousarray(bits, "f4").view("u4") if bits.dtype.kind == "f" else bits
        columns[name] = bits.astype(np.int64) & 0xFFFFFF
    if {"red", "green", "blue"} <= columns.keys():
        red, green, blue = (columns[name].astype(np.int64) for name in ("red", "green", "blue"))
        columns["rgb"] = red << 16 | green << 8 | blue
    last = [name for name in (CLASS if classes else INTENSITY) if name in columns]
    if classes and not last:
        last = [name for name in columns if name not in "xyz" and not name.startswith("_")]
        if len(last) > 1:
            raise ValueError(f"its columns {', '.join(last)} do not say which is the class: name it label")
    return [columns[name] for name in (*"xyz", *last[:1])]
