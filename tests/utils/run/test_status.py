"""status.json: a sign of life, which never ends a run."""

import os
from types import SimpleNamespace

import pytest

from utils.run.folder import read_json
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
