"""status.json: a sign of life, which never ends a run."""

import os
from types import SimpleNamespace

import pytest

from tests.faults.children import in_a_child
from utils.run.folder import read_json
from utils.run.lock import Lock
from utils.run.log import LOG
from utils.run.status import Status


@pytest.mark.parametrize("lacks", [["st_blocks", "st_blksize"], []], ids=["Windows", "POSIX"])
def test_a_full_disk_does_not_end_the_run(lacks, tmp_path, monkeypatch):
    status, fstat = Status(tmp_path, epochs=3, patience=0), os.fstat

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    def look(file):
        found = fstat(file)
        names = [name for name in dir(found) if name.startswith("st_") and name not in lacks]
        return SimpleNamespace(**{name: getattr(found, name) for name in names})

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "fstat", look)
    status.write(step=7)
    assert status.fields["step"] == 7 and read_json(status.path)["step"] == (0 if lacks else 7)
    status.end("finished")


def test_all_warnings_are_kept_until_the_run_has_ended(tmp_path):
    lock = Lock(tmp_path / ".lock")
    assert lock.take()
    status = Status(tmp_path, epochs=3, patience=0, lock=lock)
    LOG.warning("the loss stands still")
    LOG.warning("no gradient reaches head")
    assert in_a_child(lambda: Lock(tmp_path / ".lock").take()) == 0
    status.end("finished", "LEARNED")
    assert in_a_child(lambda: Lock(tmp_path / ".lock").take()) == 1  # the folder is free
    LOG.warning("of the next run in this process")
    ended = read_json(tmp_path / "status.json")
    assert ended["warnings"] == ["the loss stands still", "no gradient reaches head"]
    assert (ended["state"], ended["reason"]) == ("finished", "LEARNED")


def test_a_shorter_status_on_a_full_disk_leaves_nothing_of_the_longer_one(tmp_path, monkeypatch):
    status = Status(tmp_path, epochs=3, patience=0)
    status.write(reason="long " * 200)
    monkeypatch.setattr(os, "replace", lambda source, target: os.remove("/there is no such file"))
    status.write(reason="short")
    assert read_json(status.path)["reason"] == "short"
    status.end("finished")
