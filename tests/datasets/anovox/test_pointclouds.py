"""Scans as other tools write them: columns in any order and of any type, extra ones, none at all."""

import contextlib

import numpy as np
import pytest

from datasets.anovox.palettes import point_classes
from datasets.anovox.pointclouds import decompress, read_points
from utils.run.errors import DataError

KINDS = {"f4": "F", "u4": "U", "u1": "U", "u2": "U", "f8": "F"}
FIELDS = [("intensity", "<f4"), ("ring", "<u2"), ("z", "<f8"), ("y", "<f4"), ("x", "<f4"), ("rgb", "<f4"),
          ("Label", "<u1")]  # fmt: skip


@pytest.fixture
def records() -> np.ndarray:
    """Five points with more columns than anybody needs."""
    table, rng = np.zeros(5, FIELDS), np.random.default_rng(0)
    for name in ("x", "y", "z", "intensity"):
        table[name] = rng.uniform(0, 9, 5).round(3)
    table["ring"], table["Label"] = range(5), [1, 7, 29, 14, 100]
    table["rgb"] = np.full(5, 0xFF000000 | 245 << 16 | 30 << 8, "<u4").view("<f4")
    return table


def write_pcd(path, table: np.ndarray, kind: str):
    names = table.dtype.names
    types = [table.dtype[name].str[1:] for name in names]
    sizes, letters = (" ".join(words) for words in ([t[1] for t in types], [KINDS[t] for t in types]))
    head = [f"FIELDS {' '.join(names)}", f"SIZE {sizes}", f"TYPE {letters}"]
    head += [f"POINTS {len(table)}", f"DATA {kind}\n"]
    body = table.tobytes()
    if kind == "ascii":
        body = "\n".join(" ".join(repr(value) for value in row) for row in table.tolist()).encode()
    elif kind == "binary_compressed":  # column after column, in runs as they are
        plain = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in names)
        runs = [plain[k : k + 32] for k in range(0, len(plain), 32)]
        packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
        body = np.array([len(packed), len(plain)], "<u4").tobytes() + packed
    path.write_bytes("\n".join(head).encode() + body)
    return path


def write_ply(path, table: np.ndarray, order: str):
    words = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort"}
    lines = ["ply", f"format {order} 1.0", "comment made by hand", f"element vertex {len(table)}"]
    for name in table.dtype.names:
        lines += [f"property {words[table.dtype[name].str[1:]]} {name}", "comment about that"]
    lines += ["element face 1", "property list uchar int vertex_indices", "end_header\n"]
    swapped = table.astype(table.dtype.newbyteorder(">" if "big" in order else "<"))
    body = swapped.tobytes() + b"\x03" + bytes(12)
    if order == "ascii":
        body = "\n".join(" ".join(map(str, row)) for row in [*table.tolist(), (3, 0, 1, 2)]).encode()
    path.write_bytes("\n".join(lines).encode() + body)
    return path


def only(table: np.ndarray, names: list[str]) -> np.ndarray:
    rows = [tuple(row[name] for name in names) for row in table]
    return np.array(rows, [(name, table.dtype[name]) for name in names])


def columns(table: np.ndarray, last: str) -> np.ndarray:
    return np.column_stack([table[name].astype(float) for name in ("x", "y", "z", last)])


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
def test_a_pcd_file_gives_what_is_asked_for_whatever_else_it_holds(tmp_path, records, kind):
    path = write_pcd(tmp_path / "scan.pcd", records, kind)
    assert np.allclose(read_points(path), columns(records, "intensity"))
    assert np.allclose(read_points(path, classes=True), columns(records, "Label"))
    if kind == "ascii":  # which cannot hold what else such a float would be
        records["rgb"] = np.full(5, 245 << 16 | 30 << 8, "<u4").view("<f4")
    write_pcd(path, only(records, ["ring", "z", "y", "x", "rgb"]), kind)
    assert (read_points(path)[:, 3] == 1).all()  # a colour is no intensity
    coded = read_points(path, classes=True)[:, 3]
    assert (point_classes(coded, "AnoVox", path) == 30).all()  # whatever stands above the colour


def test_a_pcd_file_may_repeat_names_and_write_colours_with_decimals(tmp_path):
    head = "FIELDS x y z t t rgb\nSIZE 4 4 4 4 4 4\nTYPE F F F F F U\nPOINTS 2\nDATA ascii\n"
    colour = 245 << 16 | 30 << 8
    path = tmp_path / "scan.pcd"
    path.write_text(head + f"1 2 3 0 0 {colour}.0\n4 5 6 0 0 {colour:.8e}\n")
    assert read_points(path).tolist() == [[1, 2, 3, 1], [4, 5, 6, 1]]
    assert (point_classes(read_points(path, classes=True)[:, 3], "AnoVox", path) == 30).all()


@pytest.mark.parametrize("name", ["x", "intensity", "Label"])
def test_a_pcd_file_with_two_columns_for_one_value_is_refused(tmp_path, name):
    path = tmp_path / "scan.pcd"
    head = f"FIELDS x y z intensity Label {name}\nSIZE 4 4 4 4 4 4\nTYPE F F F F F F\nPOINTS 1\nDATA ascii\n"
    path.write_text(head + "1 2 3 4 5 6\n")
    with pytest.raises(DataError, match=f"several of its columns are called {name}"):
        read_points(path)


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_a_ply_file_with_comments_and_faces(tmp_path, records, order):
    table = only(records, ["intensity", "ring", "z", "y", "x", "Label"])
    path = write_ply(tmp_path / "scan.ply", table, order)
    assert np.allclose(read_points(path), columns(records, "intensity"))
    assert np.allclose(read_points(path, classes=True), columns(records, "Label"))
    head = path.read_bytes().replace(b"element vertex", b"element camera 1\nproperty float f\nelement vertex")
    path.write_bytes(head)
    with pytest.raises(DataError, match="its first element is camera"):
        read_points(path)


def test_an_npy_file_with_names(tmp_path, records):
    np.save(tmp_path / "scan.npy", records)
    assert np.allclose(read_points(tmp_path / "scan.npy"), columns(records, "intensity"))
    carla = np.array([(1, 2, 3, 0.5, 77, 30)] * 2,
                     [(name, "<f4") for name in ("x", "y", "z", "CosAngle")]
                     + [("ObjIdx", "<u4"), ("ObjTag", "<u4")])  # fmt: skip
    np.save(tmp_path / "scan.npy", carla)
    assert read_points(tmp_path / "scan.npy", classes=True).tolist() == [[1, 2, 3, 30]] * 2
    assert read_points(tmp_path / "scan.npy").tolist() == [[1, 2, 3, 1]] * 2


@pytest.mark.parametrize("name", ["scalar_Label", "Classification", "semantic_id"])
def test_the_class_is_never_taken_from_the_intensity_beside_it(tmp_path, records, name):
    table = only(records, ["x", "y", "z", "Label", "intensity"])
    table["intensity"] = [29, 255, 3, 0, 100]
    table.dtype.names = ("x", "y", "z", name, "scalar_Intensity")
    np.save(tmp_path / "scan.npy", table)
    if name != "semantic_id":
        assert np.allclose(read_points(tmp_path / "scan.npy", classes=True), columns(records, "Label"))
        assert (read_points(tmp_path / "scan.npy")[:, 3] == table["scalar_Intensity"]).all()
        return
    with pytest.raises(
        DataError, match="semantic_id, intensity do not say which is the class: name it label"
    ):
        read_points(tmp_path / "scan.npy", classes=True)
    np.save(tmp_path / "scan.npy", only(table, ["x", "y", "z", name]))  # no other column
    assert np.allclose(read_points(tmp_path / "scan.npy", classes=True), columns(records, "Label"))


def test_a_ring_is_no_class(tmp_path, records):
    np.save(tmp_path / "scan.npy", only(records, ["x", "y", "z", "ring"]))
    with pytest.raises(DataError, match="3 columns instead of x, y, z and class"):
        read_points(tmp_path / "scan.npy", classes=True)


def test_an_intensity_that_is_not_a_number_anywhere_is_none(tmp_path, records):
    records["intensity"] = np.nan
    np.save(tmp_path / "scan.npy", records)
    assert (read_points(tmp_path / "scan.npy")[:, 3] == 1).all()
    records["intensity"][0] = 0.5
    np.save(tmp_path / "scan.npy", records)
    with pytest.raises(DataError, match="4 of 5 points are NaN"):
        read_points(tmp_path / "scan.npy")


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("kind", ["npy", "flat npy", "bin", "ascii", "binary", "binary_compressed", "ply"])
def test_a_scan_without_a_point(tmp_path, records, kind, classes, recwarn):
    path = tmp_path / f"scan.{'pcd' if kind in ('ascii', 'binary', 'binary_compressed') else kind[-3:]}"
    if kind.endswith("npy"):
        np.save(path, np.zeros((0, 4) if kind == "npy" else 0))
    elif kind == "bin":
        path.write_bytes(b"")
    elif kind == "ply":
        lines = [f"property float {name}" for name in ("x", "y", "z", "label", "intensity")]
        head = ["ply", "format ascii 1.0", "element vertex 0", *lines, "end_header", ""]
        path.write_text("\n".join(head))
    else:
        write_pcd(path, records[:0], kind)
    assert read_points(path, classes).shape == (0, 4) and not recwarn


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed", "ply", "npy"])
def test_damage_is_one_clear_error(tmp_path, records, kind):
    path = tmp_path / f"scan.{kind if kind in ('ply', 'npy') else 'pcd'}"
    if kind == "npy":
        np.save(path, records)
    elif kind == "ply":
        write_ply(path, only(records, ["x", "y", "z"]), "binary_little_endian")
    else:
        write_pcd(path, records, kind)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for cut in range(0, len(whole), 5):
        hurt = np.frombuffer(whole, np.uint8).copy()
        hurt[rng.integers(0, len(hurt), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(whole[:cut])
        # The last digits of a number may be cut off unnoticed, and faces behind the points.
        lost = kind != "ascii" and cut < len(whole) - (13 if kind == "ply" else 0)
        with pytest.raises(DataError) if lost else contextlib.suppress(DataError):
            assert read_points(path).shape[1] == 4
        path.write_bytes(hurt.tobytes())
        with contextlib.suppress(DataError):
            assert read_points(path).shape[1] == 4


def test_whole_numbers_turn_as_others_do(tmp_path):
    np.save(tmp_path / "scan.npy", np.array([[3, 1, -1, 0], [9, 4, 0, 1]], np.int16))
    half = np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]])
    turned = read_points(tmp_path / "scan.npy", turn=half)
    assert np.allclose(turned, [[2.6, -1.8, -1, 0], [8.6, -4.8, 0, 1]])


def test_what_is_packed_may_reach_into_itself():
    assert decompress(bytes([2, *b"abc", 0xE0, 1, 2])) == b"abc" + b"abcabcabca"
    assert decompress(bytes([2, *b"abc", 0x20, 0, 0, *b"d"])) == b"abccccd"
    with pytest.raises(IndexError):
        decompress(bytes([2, *b"abc", 0xE0]))
