"""Point clouds in the files of other tools, .pcd and .ply: columns x, y, z and one of LAST, in any case."""

import itertools

import numpy as np

MAX_SCAN = 10_000_000  # points; the real scans hold about 90,000
LAST = ("label", "class", "tag", "objtag", "rgb", "intensity", "reflectance", "i")  # names of a fourth column


def read_pcd(data: bytes) -> list[np.ndarray]:
    """The Point Cloud Library's format, ascii or binary."""
    head, header, line = 0, {}, b""
    while not line.startswith(b"DATA"):
        end = data.index(b"\n", head)
        line, head = data[head:end].strip(), end + 1
        words = line.decode("ascii").split()
        header[words[0] if words else "#"] = words[1:]
    if header["DATA"] not in (["ascii"], ["binary"]):
        raise ValueError(f"DATA {' '.join(header['DATA'])} is not supported")
    names, counts = header["FIELDS"], map(int, header.get("COUNT", ["1"] * len(header["FIELDS"])))
    fields = []  # padding is called _, and may be there several times
    for name, kind, size, count in zip(names, header["TYPE"], header["SIZE"], counts, strict=True):
        kind = {"F": "f", "U": "u", "I": "i"}[kind] + size
        fields += [(name if name != "_" and k == 0 else f"_{len(fields) + k}", kind) for k in range(count)]
    return _pick(data[head:], fields, int(header["POINTS"][0]), header["DATA"] == ["ascii"], "<")


def read_ply(data: bytes) -> list[np.ndarray]:
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
    properties = itertools.takewhile(lambda line: line[:1] == ["property"], lines[begin + 1 :])
    fields = [(line[2], names[line[1]]) for line in properties]
    order = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
    body = data[data.index(b"\n", end) + 1 :]
    return _pick(body, fields, int(lines[begin][2]), kind == "ascii", order)


def _pick(
    body: bytes, fields: list[tuple[str, str]], count: int, ascii: bool, order: str
) -> list[np.ndarray]:
    """Columns x, y, z and, where there is one, the intensity, class or colour, of `count` records."""
    if count > MAX_SCAN:
        raise ValueError(f"{count:,} points")
    fields = [(name.lower(), kind) for name, kind in fields]  # CARLA writes I and ObjTag
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
