"""Work in a forked process, where limits, handlers and hooks may be changed for good."""

import contextlib
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.run.lock import Lock

FORK = multiprocessing.get_context("fork")  # no second import of torch: fifty children in seconds


def in_a_child(work: Callable[[], int], seconds: float = 60) -> int:
    """The exit code that `work` returns there."""
    process = FORK.Process(target=lambda: os._exit(work()))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def on_ranks(count: int, work: Callable[[], int | None]) -> list[int]:
    """The exit codes of `work` (None: 0) in that many processes, which meet as those that torchrun starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}

    def work_as(rank: int) -> None:
        os.environ.update(meeting, WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank))
        os._exit(work() or 0)

    ranks = [FORK.Process(target=work_as, args=(rank,)) for rank in range(count)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(240)
        if rank.exitcode is None:
            rank.kill()
    return [rank.exitcode for rank in ranks]


@contextlib.contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    """A lock that a forked process holds meanwhile."""
    held, done = FORK.Event(), FORK.Event()

    def hold() -> None:
        theirs = Lock(path)  # closed, and free, when nothing refers to it
        theirs.take()
        held.set()
        done.wait(60)
        os._exit(0)

    process = FORK.Process(target=hold)
    process.start()
    held.wait(60)
    yield
    done.set()
    process.join()
