"""One owner at a time, with the locks of the system and without; whoever is gone is recognised."""

import errno
import os
import time

import pytest

from tests.faults.children import FORK, held_by_another, in_a_child
from utils.run import lock as locks
from utils.run.errors import CommandError
from utils.run.lock import Lock, machine


@pytest.fixture(params=["system", errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=str)
def _locks(request, monkeypatch):
    """The lock calls of the system, or ones that fail as those of some NFS and Lustre do."""
    if request.param != "system":

        def lockf(file, how):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(locks.fcntl, "lockf", lockf)


@pytest.mark.usefixtures("_locks")
def test_one_owner_at_a_time(tmp_path):
    with held_by_another(tmp_path / "lock"):
        assert not Lock(tmp_path / "lock").take()
    ours = Lock(tmp_path / "lock")
    assert ours.take()  # the other one left without a word
    assert in_a_child(lambda: Lock(tmp_path / "lock").take()) == 0
    ours.release()
    assert not list(tmp_path.iterdir())
    assert in_a_child(lambda: Lock(tmp_path / "lock").take()) == 1


@pytest.mark.usefixtures("_locks")
def test_of_eight_processes_one_gets_it(tmp_path):
    start, got = FORK.Event(), FORK.Queue()

    def race() -> None:
        start.wait()
        theirs = Lock(tmp_path / "lock")
        got.put(theirs.take())
        time.sleep(60)

    children = [FORK.Process(target=race) for _ in range(8)]
    for child in children:
        child.start()
    start.set()
    assert sorted(got.get(timeout=60) for _ in children) == [False] * 7 + [True]
    for child in children:
        child.kill()
        child.join()
    assert Lock(tmp_path / "lock").take()


def test_of_two_that_see_the_owner_gone_one_gets_it(tmp_path, monkeypatch):
    """The other one removes the file of the owner that is gone when it is already ours."""
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 2, raising=False)
    ours, gone = f"{machine()} {os.getpid()}", f"{machine()} {2**22 + 1}"
    (tmp_path / "lock.held").write_text(gone)

    def is_slowly_seen(lock: Lock) -> bool:
        while lock.held.read_text() != ours:
            time.sleep(0.01)
        return True

    def take_too() -> None:
        monkeypatch.setattr(Lock, "is_stale", is_slowly_seen)
        theirs.put(Lock(tmp_path / "lock").take())
        time.sleep(60)

    theirs, other = FORK.Queue(), FORK.Process(target=take_too)
    other.start()
    taken = Lock(tmp_path / "lock").take()
    assert [taken, theirs.get(timeout=60)] == [False, True]
    other.kill()
    other.join()


@pytest.mark.parametrize(
    ("owner", "quiet", "free"),
    [
        ("node3 4f1c 4711", 10, False),  # another machine, alive
        ("node3 4f1c 4711", 61, True),
        (f"{machine().split()[0]} another-start 1", 61, True),  # this machine before it was restarted
        (f"{machine()} 1", 3600, False),  # a process that is there, suspended perhaps
        (f"{machine()} {2**22 + 1}", 0, True),  # above every process number
        (f"{machine()} {os.getpid()}", 0, True),
        ("", 0, False),  # being written
        ("", 61, True),
    ],
)
def test_who_is_gone(owner, quiet, free, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    (tmp_path / "lock.held").write_text(owner)
    os.utime(tmp_path / "lock.held", (time.time() - quiet,) * 2)
    assert Lock(tmp_path / "lock").take() is free


def test_the_owner_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    ours = Lock(tmp_path / "lock")
    assert ours.take()
    os.utime(tmp_path / "lock.held", (0, 0))
    until = time.monotonic() + 30
    while (tmp_path / "lock.held").stat().st_mtime == 0:
        assert time.monotonic() < until
        time.sleep(0.01)
    ours.release()
    assert not (tmp_path / "lock.held").exists()


def test_what_can_not_be_locked_is_said(tmp_path):
    with pytest.raises(CommandError, match="cannot lock .*: No such file or directory\nmake its folder"):
        Lock(tmp_path / "nowhere" / "lock").take()
