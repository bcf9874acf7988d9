"""Seeded random damage to labels, tables, images, scans and checkpoints: what comes out is the data or one
clear error, never a traceback of somebody else."""

import io
import json

import numpy as np
import openpyxl
import pytest
import torch
from PIL import Image

from datasets.anovox.pointclouds import read_points
from datasets.images import read_image
from datasets.ultrasound.sheets import find_sheet
from datasets.ultrasound.table import read_rows
from tests.jrdb_files import read
from tests.jrdb_world import one_frame
from tests.ultrasound_flags import data_arguments
from utils.run.errors import CommandError, DataError
from utils.training.checkpoint import load_checkpoint, save_checkpoint

ODD = [None, True, "", "x", "1", -1, 0, 1.5, 1e308, -1e308, float("nan"), float("inf"), 10**400, [], {},
       [None], {"pair": 1}, "\n", "\0", "../x", "=1+1", "\u4e2d"]  # fmt: skip


def read_or_refused(read, path):
    """What `read` makes of a damaged file; None when it refuses it in one clear error."""
    try:
        return read(path)
    except (DataError, CommandError) as error:
        said = str(error)
    assert path.name in said
    kinds = int(said.split()[0]) if "kinds of problems" in said else 1
    assert len(said.splitlines()) <= 5 * kinds
    return None


def places(value, path=()):
    """Every place in nested dicts and lists, as a path of keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


def damage_json(content, rng) -> None:
    """Replace, remove or repeat a few random parts."""
    for _ in range(rng.integers(1, 4)):
        if not (every := list(places(content))):
            return
        *path, last = every[rng.integers(len(every))]
        target = content
        for key in path:
            target = target[key]
        action = rng.integers(3)
        if action == 0:
            target[last] = ODD[rng.integers(len(ODD))]
        elif action == 1:
            del target[last]
        elif isinstance(target, list):
            target.append(target[last])


def test_label_files(tmp_path):
    rng = np.random.default_rng(0)
    path, fine = tmp_path / "cafe.json", 0
    for _ in range(400):
        content = {"labels": {f"{15 * k:06d}.jpg": one_frame(rng, 2, ("hugging",)) for k in range(2)}}
        damage_json(content, rng)
        path.write_text(json.dumps(content))
        if sequence := read_or_refused(read, path):
            assert np.isfinite(sequence.boxes).all()
            assert (sequence.boxes >= [0, 0, 1 / 1024, 1 / 1024]).all()
            fine += 1
    print(f"label files: {fine} of 400 read")
    assert 20 < fine < 300


CELLS = [None, "", " ", "001", 1, "1 ", 2.0, 2.5, -3, 200, "NA", "old", "=1+1", "\n", True, 1e300, "\u4e2d"]


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_tables(tmp_path, ending):
    rng = np.random.default_rng(1)
    path, read = tmp_path / f"t.{ending}", 0
    for _ in range(60):
        rows = [["Number", "Age"], *([k, 10.0 + k] for k in range(8))]
        for _ in range(rng.integers(1, 5)):
            rows[rng.integers(len(rows))][rng.integers(2)] = CELLS[rng.integers(len(CELLS))]
        write_rows(path, rows)
        if table := read_or_refused(read_table, path):
            assert all(0 <= age <= 120 for age in table.rows.age.to_dict().values())
            assert all(name and name == name.strip() for name in table.rows.age.to_dict())
            read += 1
    print(f"{ending} tables: {read} of 60 read")
    assert 10 < read < 58


def read_table(path):
    args = data_arguments()
    return read_rows(find_sheet(path, "healthy", args), args)


def write_rows(path, rows) -> None:
    if path.suffix == ".csv":
        path.write_text("\n".join(",".join("" if c is None else str(c) for c in row) for row in rows))
        return
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def flip(content: bytes, rng) -> bytes:
    """Change, cut or insert a few bytes."""
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(damaged)))
        damaged[place] = int(rng.integers(256))
    if rng.random() < 0.3:
        del damaged[int(rng.integers(len(damaged))) :]
    return bytes(damaged)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"])
def test_images(tmp_path, kind):
    rng = np.random.default_rng(2)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)).save(buffer, kind)
    path, read = tmp_path / "a.img", 0
    for _ in range(150):
        path.write_bytes(flip(buffer.getvalue(), rng))
        pixels = read_or_refused(read_image, path)
        if pixels is not None:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            read += 1
    print(f"{kind} images: {read} of 150 read")
    assert read < 130


PCD_HEAD = (
    "VERSION .7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 30\nHEIGHT 1\n"
    "POINTS 30\nDATA {}\n"
)


@pytest.mark.parametrize("kind", ["npy", "ascii.pcd", "binary.pcd"])
def test_scans(tmp_path, kind):
    rng = np.random.default_rng(3)
    points = rng.normal(0, 10, (30, 4)).astype("<f4")
    path, read = tmp_path / f"scan.{kind}", 0
    if kind == "npy":
        np.save(path, points)
    else:
        text = "\n".join(" ".join(f"{value:.4f}" for value in row) for row in points).encode()
        data = text if kind == "ascii.pcd" else points.tobytes()
        path.write_bytes(PCD_HEAD.format(kind.split(".")[0]).encode() + data)
    content = path.read_bytes()
    for k in range(300):  # every other time the header, where a reader goes wrong
        path.write_bytes(flip(content[:150], rng) + content[150:] if k % 2 else flip(content, rng))
        found = read_or_refused(read_points, path)
        if found is not None:
            assert found.shape[1] == 4
            assert np.isfinite(found).all()
            read += 1
    print(f"{kind} scans: {read} of 300 read")
    assert read < 270


def test_checkpoints(tmp_path):
    """Any damage at all is noticed: a weight that changed is worse than an error."""
    rng = np.random.default_rng(4)
    path, read = tmp_path / "last.pth", 0
    state = {"script": "train_stage1.py", "model": {"w": torch.arange(500.0)}}
    save_checkpoint(path, state)
    content = path.read_bytes()
    for _ in range(300):
        path.write_bytes(flip(content, rng))
        if loaded := read_or_refused(load_checkpoint, path):
            assert torch.equal(loaded["model"]["w"], state["model"]["w"])
            read += 1  # what changed was padding
    print(f"checkpoints: {read} of 300 read")
    assert read < 150
