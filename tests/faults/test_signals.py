"""Real signals at every moment of a stage 1 run: the exit code, a complete checkpoint, and a resumed run as
if nothing had happened."""

import os
import signal
import time

import pytest

import train_stage1
from tests.faults.stopped_runs import (
    argv,
    exit_code,
    only_run,
    resume,
    signal_at,
    steps_per_epoch,
    stopped,
    train,
    whole_run,
)
from tests.tiny_runs import assert_same_run
from utils.run import script
from utils.run.folder import read_json
from utils.training import run as training_run
from utils.training.checkpoint import Checkpoint, load_checkpoint
from utils.training.interrupt import Interrupt

SCRIPT = "train_stage1"


@pytest.fixture(scope="module")
def whole():
    return whole_run(SCRIPT)


@pytest.fixture(scope="module")
def steps(whole) -> int:
    return steps_per_epoch(whole)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "place",
    ["middle", *(pytest.param(p, marks=LONG) for p in ("first", "last but one", "last", "next epoch"))],
)
def test_sigterm_at_any_step(whole, steps, tmp_path, monkeypatch, place):
    look = {"first": 1, "middle": steps // 2, "last but one": steps - 1, "last": steps}
    look = look.get(place, steps + 3)  # the first look of an epoch is before its first step
    run = stopped(monkeypatch, SCRIPT, tmp_path, look, signal.SIGTERM)
    state = load_checkpoint(run / "last.pth")
    assert state["epoch"] * steps + state["step"] == look - (place == "next epoch")
    assert not (run / "results.json").exists()
    assert read_json(run / "status.json")["state"] == "interrupted"
    resume(SCRIPT, run)
    assert_same_run(whole, run)
    assert read_json(run / "status.json")["state"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR2])
def test_other_signals_that_end_a_process_save_the_step_too(tmp_path, monkeypatch, number):
    run = stopped(monkeypatch, SCRIPT, tmp_path, 3, number)
    assert load_checkpoint(run / "last.pth")["step"] == 3
    status = read_json(run / "status.json")
    assert (status["state"], status["reason"]) == ("interrupted", f"stopped by {number.name}")


def test_what_nohup_started_outlives_the_terminal(whole, tmp_path, monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signal_at(monkeypatch, (3, signal.SIGHUP))
        assert exit_code(SCRIPT, argv(SCRIPT, tmp_path)) == 0
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert_same_run(whole, only_run(tmp_path))


@LONG
def test_three_stops_in_one_epoch(whole, tmp_path, monkeypatch):
    run = stopped(monkeypatch, SCRIPT, tmp_path, 2, signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        with monkeypatch.context() as patch:
            signal_at(patch, (2, number))
            with pytest.raises(SystemExit) as left:
                resume(SCRIPT, run)
        assert left.value.code == 128 + number
    assert load_checkpoint(run / "last.pth")["step"] == 6
    resume(SCRIPT, run)
    assert_same_run(whole, run)


def signal_in(monkeypatch, name: str, call: int, number: int) -> None:
    """Send this process a signal at the n-th call of a function of a run of stage 1, before its work."""
    place = {"save_epoch": Checkpoint, "save_last": Checkpoint, "write_results": training_run}.get(
        name, train_stage1
    )
    original, calls = getattr(place, name), iter(range(1, 10**6))

    def called(*values, **options):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return original(*values, **options)

    monkeypatch.setattr(place, name, called)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=LONG)])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("build_datasets", 1),  # nothing is lost: there is no checkpoint yet
        pytest.param("evaluate", 1, marks=LONG),  # validation: the epoch is finished first
        pytest.param("save_epoch", 2, marks=LONG),
        ("evaluate", 3),  # validation of the last epoch
        ("report", 1),  # the final pass, which a resumed run does again
        pytest.param("write_results", 1, marks=LONG),
    ],
)
def test_a_signal_at_any_other_moment(whole, tmp_path, monkeypatch, name, call, number):
    with monkeypatch.context() as patch:
        signal_in(patch, name, call, number)
        assert exit_code(SCRIPT, argv(SCRIPT, tmp_path)) == 128 + number
    run = only_run(tmp_path)
    assert read_json(run / "status.json")["state"] == "interrupted"
    if name == "build_datasets":
        assert not (run / "last.pth").exists()
        return
    finished_epochs = {"evaluate": call, "save_epoch": call}.get(name, 3)
    assert load_checkpoint(run / "last.pth")["epoch"] == finished_epochs
    resume(SCRIPT, run)
    assert_same_run(whole, run)


def test_sigusr1_saves_and_goes_on(whole, tmp_path, monkeypatch):
    signal_at(monkeypatch, (3, signal.SIGUSR1))
    saved = []
    save_last = Checkpoint.save_last
    monkeypatch.setattr(
        Checkpoint, "save_last", lambda self, *done: (saved.extend(done[:1]), save_last(self, *done))
    )
    run = train(SCRIPT, tmp_path)
    assert saved == [3]
    assert_same_run(whole, run)


def test_a_signal_to_stop_is_not_lost_in_a_save(tmp_path, monkeypatch):
    signal_at(monkeypatch, (3, signal.SIGUSR1))
    signal_in(monkeypatch, "save_last", 1, signal.SIGTERM)
    assert exit_code(SCRIPT, argv(SCRIPT, tmp_path)) == 143
    assert load_checkpoint(only_run(tmp_path) / "last.pth")["step"] == 4


@pytest.mark.parametrize("name", ["build_datasets", pytest.param("report", marks=LONG)])
def test_sigusr1_outside_of_training_ends_nothing(whole, tmp_path, monkeypatch, name):
    """There is nothing to save before training and in the final pass; the system's own answer would be to
    end the process."""

    def ended(number, frame):
        raise AssertionError("SIGUSR1 is not handled here")

    signal.signal(signal.SIGUSR1, ended)
    signal_in(monkeypatch, name, 1, signal.SIGUSR1)
    assert exit_code(SCRIPT, argv(SCRIPT, tmp_path)) == 0
    assert_same_run(whole, only_run(tmp_path))


@pytest.mark.parametrize("first", [(), (signal.SIGTERM,)])
def test_a_second_ctrl_c_does_not_wait(tmp_path, monkeypatch, first):
    handler = Interrupt.receive

    def twice(self, number, frame):
        for earlier in (*first, number):
            handler(self, earlier, frame)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Interrupt, "receive", twice)
    signal_at(monkeypatch, (2, signal.SIGINT))
    assert exit_code(SCRIPT, argv(SCRIPT, tmp_path)) == 130
    assert not (only_run(tmp_path) / "last.pth").exists()


@LONG
def test_max_hours_stops_with_a_checkpoint(whole, tmp_path, monkeypatch):
    agreed = Interrupt.agreed

    def late(self):
        if not self.wish:
            script.send_later(signal.SIGTERM, 0)
            time.sleep(0.5)
        return agreed(self)

    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "agreed", late)
        patch.setattr(script, "STARTED", -3600.0)
        with pytest.raises(SystemExit):
            train(SCRIPT, tmp_path, "--max_hours", "1")
    run = only_run(tmp_path)
    assert read_json(run / "status.json")["reason"] == "--max_hours is over"
    resume(SCRIPT, run)
    assert_same_run(whole, run)


def test_resuming_what_is_finished_or_never_began(whole, tmp_path, capsys):
    before = (whole / "results.json").read_bytes()
    assert exit_code(SCRIPT, ["--resume", str(whole)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert (whole / "results.json").read_bytes() == before
    with pytest.raises(SystemExit) as left:
        train_stage1.parse_args(["--resume", str(tmp_path)])
    assert left.value.code == 2
    assert "is not a run folder: it has no config.json of a training script" in capsys.readouterr().err
