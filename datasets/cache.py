"""Decode once: the pixels that a run needs, as one array in a memory-mapped file in data/cache.

`open_cache` builds the array on the first call and maps it on every later one. The file's name is a
fingerprint of the kind, the settings, the code that reads, the source files (path, size, modification time)
and the number of items in each: a change in any of them leads to a new file. A build writes under a temporary
name and renames the file at the end, so a file with the final name is complete. The process that holds the
lock builds; other ranks and runs wait for it and then read. Delete data/cache at any time to free the space.
"""

import errno
import hashlib
import inspect
import json
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from utils.run.errors import CommandError, DataError, ScriptError, some
from utils.run.lock import Lock
from utils.run.log import LOG, progress

CACHE_DIR = Path(__file__).resolve().parent.parent / "data" / "cache"
FORMAT = 1  # part of every key; raise it when the layout of the files changes
FEW_SOURCES = 16  # to read fewer files, starting processes does not pay


class CachedArray(np.memmap):
    """A read-only memory map of a whole .npy file. Indexing it gives plain arrays. It pickles as its path
    (np.memmap pickles all bytes), so that DataLoader workers map the same pages, forked or spawned."""

    path: Path | None = None  # set on the array that `open_cache` returns, not on numpy's views of it

    def __getitem__(self, index):
        return self.view(np.ndarray)[index]

    def __reduce_ex__(self, protocol):
        return (_map, (self.path,)) if self.path else np.asarray(self).__reduce_ex__(protocol)


def open_cache(
    kind: str, settings: dict, sources: Sequence[Path], counts: Sequence[int], item_shape: Sequence[int],
    produce: Callable[[int], np.ndarray], cache_dir: Path | None = None, limit_gb: float = 4.0,
    dtype: np.dtype | type = np.uint8,
) -> CachedArray:  # fmt: skip
    """The items of all sources in order, of `dtype` and shape (sum(counts), *item_shape), read-only.

    `produce(k)` returns the items of `sources[k]`, of shape (counts[k], *item_shape). It must be picklable,
    and is not called if counts[k] is 0. A dtype with fields can store flags beside the pixels. `settings`
    (JSON values and numpy arrays) must hold everything else that affects the pixels: of the code, only the
    file that defines `produce` and images.py count. Of several processes one builds and the others wait.
    Raises DataError for missing sources, CommandError if the file would exceed `limit_gb` (1e9 bytes) or the
    free space or cannot be written, and what `produce` raises."""
    shape, dtype = (int(sum(counts)), *map(int, item_shape)), np.dtype(dtype)
    readers = inspect.getfile(getattr(produce, "func", produce)), Path(__file__).with_name("images.py")
    code = [Path(file).read_text(encoding="utf-8") for file in readers]
    settings = {"settings": settings, "code": code}
    key = fingerprint(FORMAT, kind, settings, describe_files(sources), np.asarray(counts, np.int64), shape)
    directory = Path(cache_dir) if cache_dir else CACHE_DIR
    path = directory / f"{kind}-{key[:20]}.npy"
    find = partial(_map, path, shape, dtype)
    what = f"cache {kind} ({shape[0]:,} items)"
    build = partial(_build, what, shape, dtype, counts, produce, limit_gb)
    return build_once(path, what, find, build)


def build_once(path: Path, what: str, find: Callable[[], Any], build: Callable[[Path], None]) -> Any:
    """Return `find()`. If it is None, first let `build(temporary)` make the file or folder `path` under a
    temporary name; of several processes one builds. Raises CommandError if nothing can be written there."""
    if (found := find()) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ours = Lock(path.parent / f".{path.name}.lock")  # not inherited by forked workers
        if not ours.take():
            LOG.info(f"{what}: waiting for another process, which builds it")
            while not ours.take():
                time.sleep(0.2)
        try:
            if (found := find()) is None:  # nobody built it while this one waited
                _build_alone(path, what, build)
                found = find()
        finally:
            ours.release()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
            raise  # not the folder's fault
        reason = f"{error.strerror or error}\nMake that folder writable, or make room in it."
        raise CommandError(f"nothing can be written to {path.parent}: {reason}") from error
    return found


def _build_alone(path: Path, what: str, build: Callable[[Path], None]) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.partial"):  # from a killed build
        _remove(leftover)
    started, temporary = time.monotonic(), path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        build(temporary)
        os.replace(temporary, path)
    finally:
        _remove(temporary)
    LOG.info(f"{what}: built in {time.monotonic() - started:.1f} s in {path}")


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def fingerprint(*parts) -> str:
    """SHA-256 (64 hexadecimal digits) of JSON values and numpy arrays; the same on every machine."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value):
    """JSON values for numpy arrays and scalars."""
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        return [little.dtype.str, list(value.shape), hashlib.sha256(little.tobytes()).hexdigest()]
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a fingerprint is made of JSON values and numpy arrays, not {type(value).__name__}")


def describe_files(sources: Sequence[Path]) -> list[tuple[str, int, int]]:
    """(absolute path, bytes, modification time in ns) of each source; one DataError for all missing files."""
    described, missing = [], []
    for source in sources:
        try:
            stat = source.stat()
            described.append((os.path.abspath(str(source)), stat.st_size, stat.st_mtime_ns))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(str(source))
    if missing:
        raise DataError(f"{len(missing)} of {len(sources)} files are missing:\n" + some(missing, 3, "\n"))
    return described


def _map(path: Path, shape: tuple = (), dtype: np.dtype | None = None) -> CachedArray | None:
    """Map a cache file; None if it is missing or damaged, or has another shape or dtype."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False).view(CachedArray)
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError):
        return None
    if dtype is not None and (array.shape, array.dtype) != (shape, dtype):
        return None
    array.path = path
    return array


def _build(what, shape, dtype, counts, produce, limit_gb, path) -> None:
    size, free = math.prod(shape) * dtype.itemsize, shutil.disk_usage(path.parent).free
    takes = f"{what} takes {size / 1e9:.1f} GB in {path.parent}"
    less = "fewer frames or a smaller --image_size"
    if size > limit_gb * 1e9:
        allow = f"Pass --cache_limit_gb {math.ceil(size / 1e9)} to allow it"
        raise CommandError(f"{takes}, over the limit of {limit_gb:g} GB.\n{allow}, or use {less}.")
    if size > 0.98 * free:
        raise CommandError(f"{takes}, which has {free / 1e9:.1f} GB free.\nFree some space, or use {less}.")
    filled = [k for k, count in enumerate(counts) if count]
    processes = count_processes(filled) if len(filled) >= FEW_SOURCES else 1
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        written = in_processes(partial(_write, path, starts, produce), filled, processes)
        for _ in progress(written, what, len(filled)):
            pass
        array.flush()
    except BrokenProcessPool as error:
        killed = "a process that decodes images was killed, most often because memory ran out"
        fewer = "Start again with fewer processes: taskset -c 0,1 python ..."
        raise ScriptError(f"{what}: {killed} ({processes} ran)\n{fewer}") from error


def _write(path, starts, produce, k) -> None:
    array = np.lib.format.open_memmap(path, mode="r+")
    try:
        items = produce(k)
    except OSError as error:  # of a source, not of the cache's folder
        what = f"{error.filename or f'source {k}'}: cannot be read ({error.strerror or error})"
        raise DataError(f"{what}.\nCopy it again, check who may read it, or remove it.") from error
    expected = (int(starts[k + 1] - starts[k]), *array.shape[1:])
    if items.shape != expected or items.dtype != array.dtype:
        raise ValueError(f"source {k} gave {items.dtype} {items.shape} instead of {array.dtype} {expected}")
    array[starts[k] : starts[k + 1]] = items


def count_processes(jobs: Sequence, few: int = 1) -> int:
    """One process per core, or fewer so that each has at least `few` jobs."""
    return min(count_cores(), len(jobs) // few)


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(work: Callable, jobs: Sequence, processes: int) -> Iterator:
    """Yield work(job) for every job, in order; computed in this process if `processes` is below 2."""
    if processes < 2:
        yield from map(work, jobs)
        return
    # Forked workers start at once, without importing torch again.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    chunk = max(1, min(8, len(jobs) // (4 * processes)))
    context = multiprocessing.get_context(method)
    try:
        with ProcessPoolExecutor(processes, context, _start_worker, (work, os.getpid())) as pool:
            yield from pool.map(_do, jobs, chunksize=chunk)
    except (KeyboardInterrupt, SystemExit):  # a signal while the pool forks: its workers would wait for ever
        for worker in multiprocessing.active_children():
            if not worker.daemon:  # not one of a loader
                worker.terminate()
        raise


_work = None  # the function of this worker process, sent once instead of with every job


def _start_worker(work, parent) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _work = work


def _end_with(parent: int) -> None:
    """End a worker process whose parent was killed; it would wait for work forever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _do(job):
    return _work(job)
