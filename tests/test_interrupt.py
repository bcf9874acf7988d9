"""Stopped between any two steps by a real signal, a run goes on as if nothing had happened."""

import os
import signal

import pytest
import torch
from jrdb_world import write_world

import train_stage1
from utils.checkpoint import load_checkpoint
from utils.errors import CommandError
from utils.interrupt import Interrupt
from utils.run import read_json

TIMES = {"seconds", "samples_per_second"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("jrdb"), {"train": 4, "val": 2, "test": 6})


def train(world, folder, *more: str):
    """Run stage 1 on geometry in this process; returns the run folder."""
    flags = [
        "--data_path",
        str(world),
        "--features",
        "geometry",
        "--epochs",
        "2",
        "--output_dir",
        str(folder),
    ]
    train_stage1.main(train_stage1.parse_args([*flags, *more]))
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    return train(world, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def steps(whole) -> int:
    return read_json(whole / "status.json")["steps"]


def signal_at(monkeypatch, *looks: tuple[int, int]) -> None:
    """Send this process a signal when the run looks for one for the n-th time: (n, signal). The first look is
    before the first step."""
    look, wanted, count = Interrupt.agreed, dict(looks), iter(range(10**6))

    def agreed(self):
        if number := wanted.get(next(count)):
            os.kill(os.getpid(), number)
        return look(self)

    monkeypatch.setattr(Interrupt, "agreed", agreed)


def resume(run):
    train_stage1.main(train_stage1.parse_args(["--resume", str(run)]))


def assert_same_run(a, b):
    """Everything a run keeps but for times, which of two machines' folders it is and what was typed."""
    for name in ("last.pth", "best_f1.pth", "best_loss.pth"):
        left, right = load_checkpoint(a / name), load_checkpoint(b / name)
        for state in (left, right):
            state["history"] = [{k: v for k, v in row.items() if k not in TIMES} for row in state["history"]]
            del state["args"]["output_dir"], state["args"]["resume"]
        assert_equal(left, right, name)
    results = [read_json(run / "results.json") for run in (a, b)]
    assert results[0]["metrics"] == results[1]["metrics"]


def assert_equal(a, b, where: str) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where} {key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.parametrize("place", ["first", "middle", "last but one", "last", "next epoch"])
def test_sigterm_at_any_step_then_resume_is_the_uninterrupted_run(
    world, whole, steps, tmp_path, monkeypatch, place
):
    step = {
        "first": 1,
        "middle": steps // 2,
        "last but one": steps - 1,
        "last": steps,
        "next epoch": steps + 3,
    }
    signal_at(monkeypatch, (step[place], signal.SIGTERM))
    with pytest.raises(SystemExit) as left:
        train(world, tmp_path)
    assert left.value.code == 143
    monkeypatch.undo()
    run = next(tmp_path.iterdir())
    state = load_checkpoint(run / "last.pth")
    assert state["epoch"] * steps + state["step"] == step[place] - (place == "next epoch")
    assert not (run / "results.json").exists()
    assert read_json(run / "status.json")["state"] == "interrupted"
    resume(run)
    assert_same_run(whole, run)
    assert read_json(run / "status.json")["state"] == "finished"


def test_three_stops_in_one_epoch(world, whole, tmp_path, monkeypatch):
    for stop in range(3):
        with monkeypatch.context() as patch:
            signal_at(patch, (2, (signal.SIGTERM, signal.SIGINT)[stop % 2]))
            with pytest.raises(SystemExit) as left:
                train(world, tmp_path) if stop == 0 else resume(next(tmp_path.iterdir()))
            assert left.value.code == (143, 130)[stop % 2]
    run = next(tmp_path.iterdir())
    assert load_checkpoint(run / "last.pth")["step"] == 6
    resume(run)
    assert_same_run(whole, run)


def test_sigusr1_saves_and_goes_on(world, whole, tmp_path, monkeypatch):
    signal_at(monkeypatch, (3, signal.SIGUSR1))
    saved = []
    save_last = train_stage1.save_last
    monkeypatch.setattr(
        train_stage1,
        "save_last",
        lambda run, state, *rest: (saved.append(state["step"]), save_last(run, state, *rest)),
    )
    run = train(world, tmp_path)
    assert saved == [3]
    assert_same_run(whole, run)


def test_a_second_ctrl_c_does_not_wait(world, tmp_path, monkeypatch):
    handler = Interrupt.receive

    def twice(self, number, frame):
        handler(self, number, frame)
        handler(self, number, frame)

    monkeypatch.setattr(Interrupt, "receive", twice)
    signal_at(monkeypatch, (2, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(world, tmp_path)


def test_max_hours_stops_with_a_checkpoint(world, whole, tmp_path):
    with pytest.raises(SystemExit) as left:
        train(world, tmp_path, "--max_hours", "1e-9")
    assert left.value.code == 143
    run = next(tmp_path.iterdir())
    assert read_json(run / "status.json")["reason"] == "--max_hours is over"
    resume(run)
    assert_same_run(whole, run)


def test_a_resumed_run_refuses_other_data(world, tmp_path, monkeypatch):
    signal_at(monkeypatch, (2, signal.SIGTERM))
    with pytest.raises(SystemExit):
        train(world, tmp_path)
    monkeypatch.undo()
    run = next(tmp_path.iterdir())
    config = read_json(run / "config.json")
    other = write_world(tmp_path.parent / f"{tmp_path.name}_other", {"train": 5, "val": 2, "test": 6})
    (run / "config.json").write_text(
        (run / "config.json").read_text().replace(config["args"]["data_path"], str(other))
    )
    with pytest.raises(CommandError, match="fingerprint"):
        resume(run)
