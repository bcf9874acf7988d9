"""Files that are damaged, hostile, cut off in the middle of a write, or cannot be written at all."""

import contextlib
import errno
import io
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from tests.conftest import FSYNC
from tests.faults.children import FORK, in_a_child
from tests.faults.stopped_runs import EACH, argv, exit_code, only_run, resume, stopped, whole_run
from tests.tiny_runs import assert_equal, assert_same_run, checkpoints
from utils.run.errors import CommandError
from utils.run.folder import create_run_folder, read_json
from utils.training.checkpoint import FORMAT_VERSION, Checkpoint, load_checkpoint, save_checkpoint

SCRIPT = "train_stage1"


def state_of_size(epoch: int, count: int = 200_000) -> dict:
    return {"script": "train_stage1.py", "epoch": epoch, "model": {"w": torch.full((count,), float(epoch))}}


def one_and_long(first, *others) -> list:
    """Parameters of which the quick suite takes the first."""
    return [first, *(pytest.param(value, marks=pytest.mark.long) for value in others)]


def save_for_ever(path) -> None:
    for epoch in range(10**9):
        save_checkpoint(path, state_of_size(epoch))


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.long)])
def test_kills_while_saving_leave_a_whole_checkpoint(kills, tmp_path, monkeypatch):
    """kill -9 at random moments of a loop that does nothing but save: each time the file is whole."""
    monkeypatch.setattr(os, "fsync", FSYNC)
    path, draw = tmp_path / "last.pth", random.Random(0)
    unfinished = 0
    for _ in range(kills):
        child = FORK.Process(target=save_for_ever, args=(path,))
        child.start()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        child.kill()
        child.join()
        state = load_checkpoint(path, "train_stage1.py")
        assert (state["model"]["w"] == state["epoch"]).all()
        unfinished += any(tmp_path.glob(".*.tmp"))
    assert unfinished > kills / 10, "no kill met a write: the test tests nothing"


def test_a_resumed_run_removes_what_a_killed_one_left(tmp_path, monkeypatch):
    run = stopped(monkeypatch, SCRIPT, tmp_path, 3, signal.SIGTERM)
    (run / f".hashes.json.{os.getpid()}.tmp").write_bytes(b"half a file")
    (run / ".evaluation_report.txt.4711.tmp").write_bytes(b"of evaluate.py, which is not done")
    resume(SCRIPT, run)
    assert [path.name for path in run.glob(".*.tmp")] == [".evaluation_report.txt.4711.tmp"]


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    """RLIMIT_FSIZE stops a write after 100 kB, as a full disk does."""
    path = tmp_path / "last.pth"
    save_checkpoint(path, state_of_size(1, count=1000))

    def save_too_much() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_checkpoint(path, state_of_size(2))
        except CommandError as error:
            said = str(error)
            return 0 if f"cannot write {path}: File too large\n" in said and "is complete" in said else 3
        return 4

    assert in_a_child(save_too_much) == 0
    assert load_checkpoint(path)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


def test_a_run_on_a_full_disk_ends_with_code_2_and_can_go_on(tmp_path, monkeypatch):
    run = stopped(monkeypatch, SCRIPT, tmp_path, 3, signal.SIGTERM)
    smaller = (run / "last.pth").stat().st_size - 1000

    def resume_without_room() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (smaller, smaller))
        return exit_code(SCRIPT, ["--resume", str(run)])

    assert in_a_child(resume_without_room) == 2
    assert not list(run.glob(".*.tmp"))
    assert load_checkpoint(run / "last.pth")["step"] == 3
    assert "cannot write" in read_json(run / "status.json")["reason"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root mounts a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # the log of the last run is open


def fill(disk: Path) -> Path:
    """Somebody else writes until nothing is left."""
    with open(disk / "other", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return disk / "other"


def before_saving_epoch(monkeypatch, epoch: int, action) -> None:
    save = Checkpoint.save_epoch

    def act_and_save(self, *values, **options):
        if len(self.history) == epoch:
            action()
        return save(self, *values, **options)

    monkeypatch.setattr(Checkpoint, "save_epoch", act_and_save)


def test_a_disk_that_somebody_else_filled(small_disk, monkeypatch, capsys):
    whole = whole_run(SCRIPT)
    with monkeypatch.context() as patch:
        before_saving_epoch(patch, 2, lambda: fill(small_disk))
        assert exit_code(SCRIPT, argv(SCRIPT, small_disk)) == 2
    said = capsys.readouterr()
    assert "pth: No space left on device; make room there\nthe checkpoint before it is complete" in said.err
    assert "Traceback" not in said.err
    assert said.out.count("history.json failed, the run goes on") <= 1
    run = only_run(small_disk)
    status = read_json(run / "status.json")
    assert status["state"] == "failed" and "No space left on device" in status["reason"]
    assert load_checkpoint(run / "last.pth")["epoch"] == 1
    (small_disk / "other").unlink()
    resume(SCRIPT, run)
    assert_same_run(whole, run)


def refuse(monkeypatch, number: int, *names: str) -> None:
    """The system refuses to put files of these names in their place."""
    replace = os.replace

    def refused(source, target):
        if Path(target).name in names:
            raise OSError(number, os.strerror(number))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)


@pytest.mark.parametrize("number", one_and_long(errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOSPC))
def test_what_stands_beside_the_weights_never_ends_a_run(number, tmp_path, monkeypatch):
    class Lost(io.StringIO):
        def write(self, text):
            raise OSError(number, os.strerror(number))

    whole = whole_run(SCRIPT)
    refuse(monkeypatch, number, "status.json", "history.json")
    monkeypatch.setattr(sys, "stdout", Lost())
    assert exit_code(SCRIPT, argv(SCRIPT, tmp_path)) == 0
    run = only_run(tmp_path)
    assert_equal(checkpoints(whole), checkpoints(run), "")
    lines = (run / "train.log").read_text().splitlines()
    for what in ("status.json", "history.json", "stdout"):
        (warning,) = (line for line in lines if line.startswith(f"warning: {what} failed, the run goes on: "))
        assert os.strerror(number) in warning


@pytest.mark.parametrize("number", one_and_long(errno.EIO, errno.EACCES, errno.ESTALE, errno.EDQUOT))
def test_a_checkpoint_that_can_not_be_written_ends_the_run_with_the_reason(
    number, tmp_path, monkeypatch, capsys
):
    before_saving_epoch(monkeypatch, 2, lambda: refuse(monkeypatch, number, "last.pth"))
    assert exit_code(SCRIPT, argv(SCRIPT, tmp_path)) == 2
    said, run = capsys.readouterr().err, only_run(tmp_path)
    assert f"cannot write {run / 'last.pth'}: {os.strerror(number)}" in said
    assert ("make room" in said) == (number == errno.EDQUOT)
    assert os.strerror(number) in read_json(run / "status.json")["reason"]
    assert load_checkpoint(run / "last.pth")["epoch"] == 1


@pytest.fixture(scope="module")
def checkpoint():
    """A real last.pth."""
    return whole_run(SCRIPT) / "last.pth"


def damaged(kind: str, content: bytes) -> bytes:
    if kind.endswith("%"):
        return content[: len(content) * int(kind[:-1]) // 100]
    if kind == "text":
        return b"epoch 3\n" * 100
    if kind == "one byte":
        return b"P"
    middle = len(content) // 2
    return content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize("kind", ["0%", "10%", "50%", "99%", "text", "one byte", "flipped bytes"])
def test_a_damaged_checkpoint_is_refused_by_name(kind, checkpoint, tmp_path):
    path = tmp_path / "last.pth"
    path.write_bytes(damaged(kind, checkpoint.read_bytes()))
    with pytest.raises(CommandError, match=r"last\.pth") as refused:
        load_checkpoint(path)
    assert len(str(refused.value).splitlines()) <= 5


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(CommandError, match="no checkpoint at"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["50%", "text"])
def test_a_run_with_a_damaged_last_pth_is_not_started_afresh(kind, tmp_path, monkeypatch, capsys):
    run = stopped(monkeypatch, SCRIPT, tmp_path, 3, signal.SIGTERM)
    content = (run / "last.pth").read_bytes()
    (run / "last.pth").write_bytes(damaged(kind, content))
    assert exit_code(SCRIPT, ["--resume", str(run)]) == 2
    assert str(run / "last.pth") in capsys.readouterr().err
    assert not (run / "results.json").exists()


class Runs:
    """Unpickling this calls a function."""

    def __init__(self, function, *values):
        self.call = function, values

    def __reduce__(self):
        return self.call


def payloads(target: str) -> dict:
    """Six ways to run code on loading; each would make the folder `target`."""
    hidden = pickle.dumps(Runs(os.mkdir, target))
    return {
        "system": {"model": Runs(os.system, f"mkdir {target}")},
        "as a weight": {"model": {"w": torch.ones(2), "b": Runs(os.mkdir, target)}},
        "deep in the history": {"model": {}, "history": [{"epoch": 1, "x": [(Runs(os.mkdir, target),)]}]},
        "as a key": {"model": {}, Runs(os.mkdir, target): 1},
        "eval": {"model": {}, "args": {"lr": Runs(eval, f"__import__('os').mkdir({target!r})")}},
        "a pickle in a pickle": {"model": {}, "extra": Runs(pickle.loads, hidden)},
    }


@pytest.mark.parametrize("kind", payloads(""))
def test_nothing_in_a_checkpoint_is_run(kind, tmp_path):
    path, target = tmp_path / "last.pth", tmp_path / "made"
    torch.save(
        {"format_version": FORMAT_VERSION, "script": "train_stage1.py"} | payloads(str(target))[kind], path
    )
    name = {"system": "system", "eval": "eval", "a pickle in a pickle": "loads"}.get(kind, "mkdir")
    with pytest.raises(CommandError, match=rf"holds more than tensors and plain values, such as .*{name}\n"):
        load_checkpoint(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the payload is harmless: the test tests nothing"


def test_hostile_pickles_in_the_old_file_format_and_in_a_renamed_zip(tmp_path):
    for k, write in enumerate((write_bare_pickle, write_zip)):
        path = tmp_path / f"{k}.pth"
        write(path, {"format_version": 1, "model": Runs(os.mkdir, str(tmp_path / "made"))})
        with pytest.raises(CommandError, match=path.name):
            load_checkpoint(path)
        assert not (tmp_path / "made").exists()


def write_bare_pickle(path, value) -> None:
    path.write_bytes(pickle.dumps(value))


def write_zip(path, value) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(value))
        file.writestr("archive/version", "3")


def test_a_name_in_a_checkpoint_is_only_a_name(tmp_path, monkeypatch):
    """Strings that look like import paths are compared, never imported."""
    path = tmp_path / "last.pth"
    save_checkpoint(path, state_of_size(1) | {"script": "os.system", "class_names": ["os:mkdir"]})
    with pytest.raises(CommandError, match="was written by os.system"):
        load_checkpoint(path, "train_stage1.py")


@pytest.mark.parametrize("script", EACH)
def test_every_checkpoint_of_every_script_is_plain_data_and_of_this_format(script):
    paths = list(whole_run(script).glob("*.pth"))
    assert len(paths) >= 3
    for path in paths:
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
        assert torch.load(path, weights_only=True)["format_version"] == FORMAT_VERSION


@pytest.mark.parametrize("step", [1, -1])
def test_another_format_is_refused(checkpoint, tmp_path, step):
    other = torch.load(checkpoint, weights_only=True) | {"format_version": FORMAT_VERSION + step}
    torch.save(other, tmp_path / "last.pth")
    found = f"has format {FORMAT_VERSION + step}, this code reads {FORMAT_VERSION}: use it with the commit"
    with pytest.raises(CommandError, match=found):
        load_checkpoint(tmp_path / "last.pth")


@pytest.mark.parametrize("script", EACH)
def test_an_output_folder_that_can_not_be_made(script, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert exit_code(script, argv(script, tmp_path / "file" / "runs")) == 2
    assert "--output_dir" in capsys.readouterr().err


def make_folder(parent, start, made) -> None:
    start.wait()
    made.put(str(create_run_folder(parent, "stage1_experiment")))


def test_sixteen_processes_in_one_second_get_a_folder_each(tmp_path):
    start, made = FORK.Event(), FORK.Queue()
    children = [FORK.Process(target=make_folder, args=(tmp_path, start, made)) for _ in range(16)]
    for child in children:
        child.start()
    start.set()
    folders = {made.get(timeout=30) for _ in children}
    for child in children:
        child.join()
    assert len(folders) == len(list(tmp_path.iterdir())) == 16
