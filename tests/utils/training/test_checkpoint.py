"""Checkpoints: whole or absent, data only, refused with a reason."""

import os

import pytest
import torch

from utils.run.errors import CommandError
from utils.training.checkpoint import FORMAT_VERSION, load_checkpoint, save_checkpoint

STATE = {
    "script": "train_stage1.py",
    "epoch": 3,
    "model": {"w": torch.arange(4.0)},
    "class_names": ["a", "b"],
}


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "last.pth", STATE)
    state = load_checkpoint(tmp_path / "last.pth", "train_stage1.py", class_names=["a", "b"])
    assert state["epoch"] == 3 and torch.equal(state["model"]["w"], torch.arange(4.0))
    assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "last.pth") == []
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]  # no temporary file is left


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "last.pth"
    save_checkpoint(path, STATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(CommandError, match=r"last\.pth is damaged or torch"):
        load_checkpoint(path)


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    save_checkpoint(path, STATE)
    before = path.read_bytes()

    def no_space(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    for name in ("last.pth", "best_loss.pth"):
        with pytest.raises(CommandError, match="No space left.*\n.*go on with --resume"):
            save_checkpoint(tmp_path / name, STATE | {"epoch": 4})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]
    path.unlink()
    with pytest.raises(CommandError, match="No space left.*\nnothing was saved yet, so begin again with"):
        save_checkpoint(path, STATE)
    with pytest.raises(CommandError, match="no checkpoint at "):
        load_checkpoint(path)


class Malicious:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_malicious_file_is_named_and_not_run(tmp_path):
    path = tmp_path / "last.pth"
    torch.save({"format_version": 1, "model": Malicious(tmp_path / "pwned")}, path)
    with pytest.raises(CommandError, match="mkdir"):
        load_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


def test_other_scripts_newer_formats_and_other_names_are_refused(tmp_path):
    path = tmp_path / "last.pth"
    save_checkpoint(path, STATE)
    with pytest.raises(CommandError, match=r"written by train_stage1\.py, not by train_mae\.py"):
        load_checkpoint(path, "train_mae.py")
    with pytest.raises(CommandError, match="other class_names.*another order"):
        load_checkpoint(path, class_names=["b", "a"])
    with pytest.raises(CommandError, match=r"other class_names.*'c'"):
        load_checkpoint(path, class_names=["a", "c"])
    torch.save(STATE | {"format_version": FORMAT_VERSION + 1}, path)
    with pytest.raises(CommandError, match="has format 3, this code reads 2: use it with the commit"):
        load_checkpoint(path)
    torch.save({"w": torch.ones(1)}, path)
    with pytest.raises(CommandError, match="not a checkpoint of this project"):
        load_checkpoint(path)
