"""The decode-once cache: same pixels, rebuilt on any change, safe against crashes and other runs."""

import importlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datasets import cache
from datasets.cache import fingerprint, open_cache
from utils.run.errors import CommandError, DataError, ScriptError

SHAPE = (2, 3)


@pytest.fixture(autouse=True)
def _processes_for_a_few(monkeypatch):
    """As in earnest; other tests decode all they have in one process."""
    monkeypatch.setattr(cache, "FEW_SOURCES", 16)


def write_sources(folder, count):
    folder.mkdir(exist_ok=True)
    sources = [folder / f"{k:03d}.bin" for k in range(count)]
    for k, source in enumerate(sources):
        source.write_bytes(bytes([k]) * 10)
    return sources


def produce(sources, counts, log_file, k):
    """Items that depend on the file's first byte; every call leaves a line in `log_file`."""
    with open(log_file, "a") as file:
        file.write(f"{k}\n")
    value = sources[k].read_bytes()[0]
    return np.full((counts[k], *SHAPE), value, np.uint8) + np.arange(counts[k], dtype=np.uint8)[:, None, None]


def fail_at(stop, inner, k):
    if k == stop:
        raise DataError(f"source {k} is damaged")
    return inner(k)


def kill_at(stop, inner, k):
    if k == stop:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(k)


def slowly(inner, k):
    time.sleep(0.02)
    return inner(k)


class World:
    """Some sources and a cache folder; `open()` with the changes a test makes."""

    def __init__(self, folder, count=3):
        self.folder, self.sources = folder, write_sources(folder / "sources", count)
        self.counts = [k % 3 for k in range(count)]
        self.calls, self.lines = folder / "calls.txt", []

    @property
    def produce(self):
        return partial(produce, self.sources, self.counts, self.calls)

    def open(self, wrap=None, settings=None, cores=1, **options):
        make, settings = partial(wrap, self.produce) if wrap else self.produce, settings or {"size": [2, 3]}
        options |= {"cache_dir": self.folder / "cache"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache, "count_cores", lambda: cores)
            patch.setattr(cache.LOG, "info", self.lines.append)
            return open_cache("test", settings, self.sources, self.counts, SHAPE, make, **options)

    def expected(self):
        return np.concatenate([self.produce(k) for k in range(len(self.sources))])

    def builds(self):
        return sum("built" in line for line in self.lines)


def start(world, wrap, cores):
    """Open the cache in another process."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=world.open, args=(wrap,), kwargs={"cores": cores})
    child.start()
    return child


@pytest.mark.parametrize("count", [3, 40])
def test_items_equal_those_produced_directly(tmp_path, count, monkeypatch):
    world, used, run = World(tmp_path, count), [], cache.in_processes
    monkeypatch.setattr(cache, "in_processes", lambda work, jobs, n: used.append(n) or run(work, jobs, n))
    cached = world.open(cores=2)
    assert used == [2 if count == 40 else 1]
    assert cached.dtype == np.uint8
    assert np.array_equal(cached, world.expected())
    with pytest.raises(ValueError, match="read-only"):
        cached[0] = 1


def test_every_source_is_decoded_once_ever(tmp_path):
    world = World(tmp_path, 40)
    world.open(cores=2)
    first = world.open()
    second = world.open()
    assert sorted(map(int, world.calls.read_text().split())) == [k for k in range(40) if k % 3]
    assert np.array_equal(first, second)
    assert world.builds() == len(world.lines) == 1  # the log has nothing to say on what is there


def test_changes_make_a_new_cache(tmp_path):
    world = World(tmp_path)
    world.open()
    world.open(settings={"size": [2, 3], "boxes": np.arange(3)})
    world.open(settings={"size": [2, 3], "boxes": np.arange(1, 4)})
    assert world.builds() == 3
    world.counts[1] = 5
    assert len(world.open()) == 7
    assert world.builds() == 4
    before = world.sources[1].stat()
    world.sources[1].write_bytes(b"\x07" * 11)  # another size, at the same time: a copy with cp -p
    os.utime(world.sources[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert world.open()[0].max() == 7
    content = world.sources[2].stat()
    os.utime(world.sources[2], ns=(content.st_atime_ns, content.st_mtime_ns + 1))  # another time
    world.open()
    assert world.builds() == 6
    world.open()
    assert world.builds() == 6


@pytest.mark.parametrize("cores", [1, 2])
def test_a_failed_build_leaves_nothing(tmp_path, cores):
    world = World(tmp_path, 40)
    with pytest.raises(DataError, match="source 20 is damaged"):
        world.open(partial(fail_at, 20), cores=cores)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == []
    assert np.array_equal(world.open(), world.expected())


def test_a_killed_build_is_not_mistaken_for_a_complete_one(tmp_path):
    world = World(tmp_path, 40)
    child = start(world, partial(kill_at, 20), 1)
    child.join(20)
    assert child.exitcode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob("*.partial"))
    assert np.array_equal(world.open(), world.expected())
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_a_signal_while_the_workers_start_leaves_none(tmp_path, monkeypatch):
    kind, begun = multiprocessing.context.ForkProcess, multiprocessing.active_children
    start = kind.start
    monkeypatch.setattr(kind, "start", lambda self: sys.exit(143) if begun() else start(self))
    with pytest.raises(SystemExit):
        World(tmp_path, 40).open(cores=2)
    for child in begun():
        child.join(10)
    assert not begun()


def test_a_killed_worker_is_an_error_and_not_a_hang(tmp_path):
    world = World(tmp_path, 40)
    with pytest.raises(ScriptError, match="a process that decodes images was killed"):
        world.open(partial(kill_at, 20), cores=2)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == []


def lives(pid):
    """Also false for one that has ended and that nobody has asked about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    world = World(tmp_path, 40)
    child = start(world, slowly, 2)
    while not world.calls.exists():
        time.sleep(0.01)
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert len(workers) >= 2
    child.kill()
    child.join()
    cached = world.open(cores=1)  # the lock of the dead is free, whatever its workers still do
    assert np.array_equal(cached, world.expected())
    for _ in range(100):
        if not (left := [pid for pid in workers if lives(pid)]):
            break
        time.sleep(0.1)
    assert left == []


def test_a_file_cut_short_is_built_again(tmp_path):
    world = World(tmp_path)
    world.open()
    (path,) = (tmp_path / "cache").glob("*.npy")
    for size in (path.stat().st_size - 1, 20, 0):
        path.write_bytes(path.read_bytes()[:size])
        assert np.array_equal(world.open(), world.expected())
    assert world.builds() == 4


def test_two_processes_at_once_build_once(tmp_path):
    world = World(tmp_path, 60)
    children = [start(world, slowly, 1) for _ in range(3)]
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert sorted(map(int, world.calls.read_text().split())) == [k for k in range(60) if k % 3]
    assert np.array_equal(world.open(), world.expected())
    assert world.builds() == 0


def test_the_array_pickles_as_its_path_and_its_parts_as_data(tmp_path):
    world = World(tmp_path, 40)
    cached = world.open()
    content = pickle.dumps(cached)
    assert len(content) < 600
    assert np.array_equal(pickle.loads(content), cached)
    for part in (cached[3:9], cached[[4, 1]], cached.reshape(-1), cached.T):
        assert np.array_equal(pickle.loads(pickle.dumps(part)), part)
    assert type(cached[[4, 1]]) is np.ndarray
    assert cached[[4, 1]].flags.writeable


class Items(torch.utils.data.Dataset):
    def __init__(self, cached):
        self.cached = cached

    def __len__(self):
        return len(self.cached)

    def __getitem__(self, index):
        return torch.from_numpy(self.cached[[index]])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_workers_of_a_data_loader_read_it(tmp_path, method):
    cached = World(tmp_path, 12).open()
    loader = DataLoader(Items(cached), batch_size=None, num_workers=1, multiprocessing_context=method)
    assert np.array_equal(torch.cat(list(loader)).numpy(), cached)


def test_limits(tmp_path):
    world = World(tmp_path, 4)
    with pytest.raises(CommandError, match="--cache_limit_gb 1 to allow"):
        world.open(limit_gb=1e-9)
    world.counts = [10**12, 1, 1, 1]
    with pytest.raises(CommandError, match="GB free"):
        world.open(limit_gb=1e9)


def test_a_cache_folder_that_can_not_be_made(tmp_path):
    world = World(tmp_path)
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(CommandError, match="can be written to"):
        world.open()


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(CommandError, match="written to .*cache: No space left.*\n.*make room"):
        World(tmp_path).open()
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("count", [3, 30])  # in one process, in several
def test_a_source_that_can_not_be_read_is_not_the_caches_fault(tmp_path, count):
    world = World(tmp_path, count)
    world.sources[2].unlink()
    world.sources[2].mkdir()
    with pytest.raises(DataError, match=r"sources/002\.bin: cannot be read \(Is a directory\)"):
        world.open()


def test_missing_sources_are_one_error(tmp_path):
    world = World(tmp_path, 30)
    for source in world.sources[5:12]:
        source.unlink()
    with pytest.raises(DataError, match=r"7 of 30(.|\n)*005\.bin(.|\n)*4 more"):
        world.open()


def test_no_items_at_all(tmp_path):
    world = World(tmp_path, 2)
    world.counts = [0, 0]
    assert world.open().shape == (0, *SHAPE)


def test_a_wrong_shape_is_a_programming_error(tmp_path):
    world = World(tmp_path)
    with pytest.raises(ValueError, match="source 1 gave"):
        open_cache("test", {}, world.sources, [0, 4, 0], SHAPE, world.produce, tmp_path / "cache")


@pytest.mark.parametrize("changed", ["the module of produce", "datasets/images.py"])
def test_code_that_reads_otherwise_gets_a_new_cache(tmp_path, monkeypatch, changed):
    """A changed resize must not train on the pixels of the code before it."""
    (tmp_path / "ours").mkdir()
    files = {
        "the module of produce": tmp_path / "ours" / "reader_of_tests.py",
        "datasets/images.py": tmp_path / "ours" / "images.py",
    }
    files["datasets/images.py"].write_text("# reads files")
    files["the module of produce"].write_text(
        "import numpy as np\n\n\ndef read(value, k):\n    return np.full((1, 2), value, np.uint8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "ours")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "ours" / "cache.py"))
    read, source = importlib.import_module("reader_of_tests").read, tmp_path / "source"
    source.touch()

    def first(value):
        return open_cache("t", {}, [source], [1], (2,), partial(read, value), tmp_path / "cache")[0, 0]

    assert [first(1), first(2)] == [1, 1]  # read once
    with files[changed].open("a") as file:
        file.write("# changed\n")
    assert [first(3), first(4)] == [3, 3]


def test_fingerprints():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert fingerprint("a", 1, {"x": 1, "y": 2}) == fingerprint("a", 1, {"y": 2, "x": 1})
    assert fingerprint(array) == fingerprint(np.asfortranarray(array)) == fingerprint(array.astype(">f4"))
    others = [array + 1, array.T, array.astype(np.float64), array.tolist()]
    assert len({fingerprint(other) for other in [array, *others]}) == 5
    assert fingerprint(["ab"], ["c"]) != fingerprint(["a"], ["bc"])
    assert fingerprint(np.int64(3)) == fingerprint(3)
    with pytest.raises(TypeError):
        fingerprint(Path("a"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(float("nan"))
    code = "from datasets.cache import fingerprint; print(fingerprint('a', [1.5, None], {'k': True}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint("a", [1.5, None], {"k": True})


def test_want_of_open_files_is_not_told_as_a_folder_that_can_not_be_written(tmp_path):
    def build(path):
        raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        cache.build_once(tmp_path / "a", "a", lambda: None, build)
    assert not list(tmp_path.iterdir())
