"""The cached index of label files: the same columns as from JSON, made anew on any change, damage noticed."""

import json
import multiprocessing
import os
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from datasets.jrdb import index as jrdb_index
from datasets.jrdb.flags import LabelRules
from datasets.jrdb.index import read_indexed
from datasets.jrdb.labels import IMAGE_FOLDER, Sequence
from tests.jrdb_files import crowd, load, person, read, write_labels
from utils.run.errors import CommandError, DataError

HELLO = person(1, [3, 4, 50, 60], pedestrian_2="conversation,hugging")
LABELS = {
    "crowd": crowd(),
    "alone": {"000015.jpg": [person(1, [0.1, 20, 30, 60.5])], "000030.jpg": []},  # no group, no pair
    "two": {"000015.jpg": [HELLO, person(2, [60, 4, 50, 60]) | {"label_id": "p\u00e9destrian:2"}]},
}


class World:
    """Three label files, images of one, and a cache folder; `read()` reads the index."""

    def __init__(self, folder):
        self.data, self.cache, self.lines = folder / "data", folder / "cache", []
        self.paths = [write_labels(self.data, name, labels) for name, labels in LABELS.items()]
        self.images = self.data / IMAGE_FOLDER / "crowd"
        self.images.mkdir(parents=True)
        Image.new("L", (3760, 480)).save(self.images / "000030.jpg")

    def read(self, policy="priority"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jrdb_index.LOG, "info", self.lines.append)
            return read_indexed(self.paths, self.data, LabelRules(multi_label=policy), self.cache)

    def cold(self, policy="priority"):
        return [read(path, self.data, LabelRules(multi_label=policy)) for path in self.paths]

    def builds(self):
        return sum("building" in line for line in self.lines)

    def file(self):
        (path,) = self.cache.glob("*.npz")
        return path


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(jrdb_index, "SMALL", 0)
    return World(tmp_path)


def assert_same(one: list[Sequence], two: list[Sequence]):
    """Every field, with its type."""
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for name in (field.name for field in fields(Sequence)):
            x, y = getattr(a, name), getattr(b, name)
            assert type(x) is type(y), name
            if isinstance(x, np.ndarray):
                assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), name
            else:
                assert x == y, name


@pytest.mark.parametrize("policy", ["priority", "first", "drop"])
def test_the_index_is_what_json_gives(world, policy):
    first, second = world.read(policy), world.read(policy)
    assert_same(world.cold(policy), first)
    assert_same(first, second)
    assert second[2].notes == ["records of p\u00e9destrian are left out, not pedestrian"]
    assert second[0].image_found.tolist() == [False, True, False, False]
    assert [line.split()[2] for line in world.lines] == ["building", "built", "3", "3"]
    assert world.lines[-1] == f"cache jrdb_index: 3 sequences read from {world.file()}"


def test_json_is_parsed_once(world, monkeypatch):
    world.read()
    monkeypatch.delattr(jrdb_index.labels, "read_sequences")
    assert len(world.read()) == 3
    with pytest.raises(AttributeError):
        world.read("first")


def changes(world):
    """Everything that may change below the data folder, one after the other."""
    later = {"000015.jpg": [person(1, [0.1, 20, 30, 61.5])], "000030.jpg": []}
    yield "a label file", lambda: write_labels(world.data, "alone", later)
    stat = world.paths[2].stat()
    yield "its time", lambda: os.utime(world.paths[2], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    yield "an image more", lambda: (world.images / "000045.jpg").write_bytes(b"never opened")
    yield "an image less", lambda: (world.images / "000045.jpg").unlink()
    yield "another size", lambda: Image.new("L", (4000, 500)).save(world.images / "000030.jpg")
    yield "another first image", lambda: Image.new("L", (3800, 490)).save(world.images / "000015.jpg")
    yield "the first image's size", lambda: Image.new("L", (3800, 480)).save(world.images / "000015.jpg")
    yield "a picture that is no frame", lambda: Image.new("L", (9, 9)).save(world.images / "cover.png")
    yield "the first image again", lambda: Image.new("L", (3820, 480)).save(world.images / "000015.jpg")
    yield "no image", lambda: [path.unlink() for path in world.images.iterdir()]
    yield "no folder", lambda: world.images.rmdir()
    yield "fewer sequences", lambda: world.paths.pop()
    yield "another order", lambda: world.paths.reverse()
    yield "no pair at all", lambda: world.paths.pop()


def test_a_change_makes_a_new_index(world):
    world.read()
    for what, change in changes(world):
        change()
        before = world.builds()
        assert_same(world.cold(), world.read())
        known = what in ("an image less", "no folder")  # as it was before; as good as without images
        assert world.builds() - before == (not known), what
    assert_same(world.cold("drop"), world.read("drop"))


def test_a_changed_rule_makes_a_new_index(world, monkeypatch):
    world.read()
    for rule in ("CLASS_OF_NAME = ", "NUMBER = ", "def name_of"):  # which numbers and ids stand in a file
        assert any(rule in code for code in jrdb_index.CODE)
    monkeypatch.setattr(jrdb_index, "CODE", ["another CLASS_OF_NAME"])
    world.read()
    assert world.builds() == 2


@pytest.mark.parametrize("bits", [60, pytest.param(450, marks=pytest.mark.long)])
def test_a_damaged_file_is_built_again(world, bits):
    world.read()
    good, expected = world.file().read_bytes(), world.cold()
    rng = np.random.default_rng(0)
    sizes = [0, 1, 30, len(good) // 2, len(good) - 1]
    spoilt = [good[:size] for size in sizes]
    for place in (*rng.integers(0, len(good), bits // 3), *rng.integers(len(good) - 300, len(good), bits)):
        spoilt.append(good[:place] + bytes([good[place] ^ (1 << rng.integers(8))]) + good[place + 1 :])
    for content in spoilt:
        world.file().write_bytes(content)
        assert_same(expected, world.read())  # unused bits (times, attributes) may change without a loss
    assert world.builds() > bits / 2
    assert_same(expected, world.read())
    assert "read from" in world.lines[-1]
    assert [path.suffix for path in world.cache.iterdir()] == [".npz"]


def test_a_refused_label_file_leaves_nothing(world):
    """The error is the reader's own, again and again, also where an earlier index is there."""
    world.read()
    earlier = world.file()
    content = json.loads(world.paths[0].read_text())
    content["labels"]["000030.jpg"][2]["box"][2] = -3
    world.paths[0].write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"frame 000030.jpg, pedestrian:3") as cold:
        world.cold()
    for _ in range(2):
        with pytest.raises(DataError) as warm:
            world.read()
        assert str(warm.value) == str(cold.value)
    assert set(world.cache.iterdir()) == {earlier}


def test_two_processes_at_once_build_once(world):
    def work():
        world.read()
        (world.cache / f"{os.getpid()}.txt").write_text("\n".join(world.lines))

    children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 4
    assert sum("building" in path.read_text() for path in world.cache.glob("*.txt")) == 1
    assert_same(world.cold(), world.read())
    assert world.builds() == 0


def test_the_data_folder_is_only_read(world):
    before = sorted(world.data.rglob("*"))
    folders = [world.data, *(path for path in before if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    world.read()
    assert_same(world.cold(), world.read())
    for folder in folders:
        folder.chmod(0o755)
    assert sorted(world.data.rglob("*")) == before


def test_a_cache_folder_that_can_not_be_made(world):
    world.cache.write_text("a file is in the way")
    with pytest.raises(CommandError, match="can be written to"):
        world.read()


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(world, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(CommandError, match="cannot write .*cache.*: No space left.*make room"):
        world.read()
    assert [path.suffix for path in world.cache.iterdir()] == []


def test_few_labels_leave_no_file(world, monkeypatch):
    monkeypatch.setattr(jrdb_index, "SMALL", 20_000_000)
    assert_same(world.cold(), world.read())
    assert not world.cache.exists() and not world.lines


def test_data_sets_from_the_index_are_those_from_json(tmp_path, monkeypatch):
    for down, name in enumerate("abc"):
        write_labels(tmp_path, name, crowd(frames=6), down)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["b"], "val": ["c"], "test": ["a"]}))
    cold = load(tmp_path)
    monkeypatch.setattr(jrdb_index, "SMALL", 0)
    for _ in range(2):
        warm = load(tmp_path, cache_dir=tmp_path / "cache")
        assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
        assert warm.describe() == cold.describe() and warm.split == cold.split
        assert [part.sequences for part in warm.parts.values()] == [["b"], ["c"], ["a"]]
        for one, two in zip(cold.parts.values(), warm.parts.values(), strict=True):
            assert np.array_equal(one.geometry, two.geometry, equal_nan=True)
            assert np.array_equal(one.labels, two.labels)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"], "test": ["c"]}))
    load(tmp_path, cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1, "the same files in another split"
    assert load(tmp_path).describe()["fingerprint"] == cold.describe()["fingerprint"]
