"""Processes that fail or are stopped: loader workers, and the ranks of torchrun jobs."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from torch.utils.data import _utils

import train_stage1
from datasets.jrdb.dataset import JRDBPairDataset
from tests.faults.children import in_a_child, on_ranks
from tests.faults.stopped_runs import (
    argv,
    environment,
    exit_code,
    only_run,
    resume,
    stopped,
    train,
    whole_run,
)
from tests.tiny_runs import assert_same_run
from utils.run import status
from utils.run.errors import DataError
from utils.run.folder import REPO_ROOT, read_json, write_json
from utils.run.script import end_status
from utils.run.status import Status
from utils.training import distributed
from utils.training.checkpoint import Checkpoint, load_checkpoint
from utils.training.interrupt import Interrupt
from utils.training.stall import StallWatch

SCRIPT = "train_stage1"
STEPS = 24  # of an epoch of the tiny world with a global batch of 16


class Job:
    """A finished torchrun job of two ranks: its code, its output, the seconds from its fault to its end, and
    those of its processes that are left after ten more seconds."""

    def __init__(self, folder: Path, fault: str, flags: list[str], restarts: int = 0):
        mark, fault_time = uuid.uuid4().hex, folder / f"fault_{uuid.uuid4().hex}"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        launch.append(f"--max-restarts={restarts}")
        done = subprocess.run(
            [*launch, "tests/faults/faulty.py", fault, SCRIPT, *flags],
            cwd=REPO_ROOT, env=environment(FAULT_TIME=str(fault_time), FAULT_MARK=mark), text=True,
            capture_output=True, timeout=240, start_new_session=True,
        )  # fmt: skip
        ended = time.time()
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.seconds = ended - float(fault_time.read_text()) if fault_time.exists() else None
        while (left := processes_marked(mark)) and time.time() < ended + 10:
            time.sleep(0.1)
        self.left = left
        print(f"{fault}: code {self.code}, {self.seconds} s from the fault to the end, left {left}")
        print(self.err[-3000:])


def processes_marked(mark: str) -> list[int]:
    """The processes with this mark in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in place.read_bytes() and "Z" not in state_of(place.parent):
                found.append(int(place.parent.name))
        except OSError:  # ended meanwhile
            continue
    return found


def state_of(process: Path) -> str:
    return (process / "stat").read_text().rsplit(")", 1)[1].split()[0]


pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")


def session_of(process: Path) -> int:
    return int((process / "stat").read_text().rsplit(")", 1)[1].split()[3])


def processes_in_session(session: int) -> list[int]:
    """Processes that run in a session, but for those that ended and wait to be collected."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if session_of(process) == session and state_of(process) != "Z":
                found.append(int(process.name))
        except OSError:  # ended meanwhile
            continue
    return found


def in_a_session(folder: Path, action: Callable[[], None], look: int, delay: float, *flags: str) -> int:
    """Train in a session of its own; `delay` seconds after that look for signals a thread does `action`.
    Returns the exit code; fails when a process of the session is left after 10 seconds."""

    def work() -> int:
        os.setsid()
        (folder / "session").write_text(str(os.getpid()))
        plant_later(action, look, delay)
        try:
            return exit_code(SCRIPT, argv(SCRIPT, folder, *flags))
        except Exception as error:
            (folder / "error").write_text(f"{type(error).__name__}: {error}")
            return 1

    code, ended = in_a_child(work), time.monotonic()
    session = int((folder / "session").read_text())
    while (left := processes_in_session(session)) and time.monotonic() < ended + 10:
        time.sleep(0.05)
    assert left == []
    return code


def plant_later(action: Callable[[], None], wanted: int, delay: float) -> None:
    agreed, count = Interrupt.agreed, iter(range(10**6))

    def looked(self):
        if next(count) == wanted:
            threading.Timer(delay, action).start()
        return agreed(self)

    Interrupt.agreed = looked  # in a forked process: it stays there


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("number", "trial"),
    [
        (signal.SIGTERM, 0),
        *(pytest.param(signal.SIGTERM, trial, marks=LONG) for trial in range(1, 10)),
        *(pytest.param(signal.SIGINT, trial, marks=LONG) for trial in range(3)),
    ],
)
def test_a_signal_to_the_group_with_loader_workers(number, trial, tmp_path):
    """As a terminal's Ctrl-C or a scheduler send it: to the process and its two workers alike."""
    delay = random.Random(trial).uniform(0, 0.1)
    action = partial(os.killpg, 0, number)
    code = in_a_session(tmp_path, action, 3, delay, "--num_workers", "2")
    error = tmp_path / "error"
    assert (code, error.read_text() if error.exists() else "") == (128 + number, "")
    run = only_run(tmp_path)
    resume(SCRIPT, run, "--num_workers", "0")
    assert_same_run(whole_run(SCRIPT), run)


def kill_a_worker() -> None:
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("delay", [0.0, *(pytest.param(0.004 * k, marks=LONG) for k in range(1, 4))])
def test_a_killed_loader_worker_ends_the_run_with_a_message(delay, tmp_path):
    assert in_a_session(tmp_path, kill_a_worker, 3, delay, "--num_workers", "2") == 1
    assert "DataLoader worker" in (tmp_path / "error").read_text()
    written = read_json(only_run(tmp_path) / "status.json")
    assert written["state"] == "failed"
    assert "DataLoader worker" in written["reason"]


def test_a_loader_worker_that_dies_while_the_end_is_written_changes_nothing(tmp_path, monkeypatch):
    """torch's handler of SIGCHLD raises wherever the process happens to be."""

    def worker_died(number, frame):
        raise RuntimeError("DataLoader worker is killed")

    def interrupted(path, value):
        os.kill(os.getpid(), signal.SIGCHLD)
        write_json(path, value)

    monkeypatch.setattr(Status, "current", None)
    Status(tmp_path, epochs=1, patience=0)
    monkeypatch.setattr(status, "write_json", interrupted)
    before = signal.signal(signal.SIGCHLD, worker_died)
    try:
        end_status("failed", "its first reason")
        assert signal.getsignal(signal.SIGCHLD) is worker_died
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert read_json(tmp_path / "status.json")["reason"] == "its first reason"


def break_reading(monkeypatch, what: Callable[[], None]) -> None:
    """The fifth batch that a process reads does `what` first."""
    read, count = JRDBPairDataset.__getitems__, iter(range(1, 10**6))

    def broken(self, indices):
        if multiprocessing.parent_process() is not None and next(count) == 5:
            what()
        return read(self, indices)

    monkeypatch.setattr(JRDBPairDataset, "__getitems__", broken)


def test_an_error_in_a_loader_worker_is_shown_as_it_was(tmp_path, monkeypatch, capsys):
    def fail():
        raise DataError("images/cafe/000015.jpg: not a readable image")

    break_reading(monkeypatch, fail)
    assert exit_code(SCRIPT, argv(SCRIPT, tmp_path, "--num_workers", "2")) == 3
    assert "images/cafe/000015.jpg: not a readable image" in capsys.readouterr().err
    assert not multiprocessing.active_children(), "its loaders must not keep the process from ending"


@pytest.mark.long
def test_a_loader_worker_that_hangs_is_an_error(tmp_path, monkeypatch):
    break_reading(monkeypatch, lambda: time.sleep(10))
    monkeypatch.setattr(distributed, "WORKER_TIMEOUT", 2)
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.1)  # seconds that torch waits for each process
    with pytest.raises(RuntimeError, match="timed out after 2 seconds"):
        exit_code(SCRIPT, argv(SCRIPT, tmp_path, "--num_workers", "2"))


def flags_of_two(folder: Path) -> list[str]:
    """The same global batch as on one process."""
    return argv(SCRIPT, folder, "--batch_size", "8")


def run_on_two(folder: Path) -> Path:
    """The uninterrupted run."""
    assert on_ranks(2, lambda: exit_code(SCRIPT, flags_of_two(folder))) == [0, 0]
    return only_run(folder)


@pytest.mark.long
def test_a_job_ended_by_sigterm_and_restarted_by_torchrun_is_the_uninterrupted_one(tmp_path):
    """SIGTERM to torchrun in the second epoch; in the resumed job a rank is killed, and torchrun starts both
    again."""
    job = Job(tmp_path, f"term_launcher:0:{STEPS + 9}", flags_of_two(tmp_path))
    assert (job.code, job.left) == (1, [])  # torchrun's own code; its ranks left with 143
    assert job.seconds < 30
    run = only_run(tmp_path)
    state = load_checkpoint(run / "last.pth")
    assert state["epoch"] == 1
    assert state["totals"].shape == (2, 3)
    assert state["totals"][:, -1].tolist() == [8 * state["step"]] * 2  # both ranks had done as many samples

    job = Job(tmp_path, "kill:1:5", ["--resume", str(run)], restarts=1)
    assert (job.code, job.left) == (0, [])
    assert "exitcode: -9" in job.err
    resumed = f"resumed after epoch 1 and {state['step']} steps"
    assert (run / "train.log").read_text().count(resumed) == 2
    assert_same_run(run_on_two(tmp_path / "whole"), run)


CAUSES = {
    "kill": "Signal 9 (SIGKILL)",
    "raise": "ValueError: a planted fault",
    "stall": "error: rank 1 stalls in epoch 2 step 9, for 5 s now",
}


@pytest.mark.long
@pytest.mark.parametrize("fault", CAUSES)
def test_a_rank_that_fails_ends_the_job_with_the_cause(fault, tmp_path):
    """What was trained until the epoch before is there."""
    flags = [*flags_of_two(tmp_path), "--stall_timeout", "5"]
    job = Job(tmp_path, f"{fault}:1:{STEPS + 9}", flags)
    assert (job.code, job.left) == (1, [])
    assert job.seconds < 30
    assert CAUSES[fault] in job.err
    assert "Root Cause" in job.err
    run = only_run(tmp_path)
    assert load_checkpoint(run / "last.pth")["epoch"] == 1
    if fault == "stall":
        assert "time.sleep(600)" in job.err  # the line at which it stands
        assert read_json(run / "status.json")["state"] == "failed"


def test_only_training_steps_are_watched(tmp_path, monkeypatch):
    """Validation, saving and the test pass may take as long as they like."""
    watches, places = [], {"check_finite": [], "evaluate": [], "save_epoch": [], "report": []}
    made = StallWatch.__init__

    def make(self, *values):
        made(self, *values)
        watches.append(self)

    monkeypatch.setattr(StallWatch, "__init__", make)
    for name, seen in places.items():
        place = Checkpoint if name == "save_epoch" else train_stage1
        original = getattr(place, name)

        def noted(*values, original=original, seen=seen, **options):
            seen.append(watches[0].place)
            return original(*values, **options)

        monkeypatch.setattr(place, name, noted)
    train(SCRIPT, tmp_path, "--epochs", 1, "--max_batches", 3)
    assert places.pop("check_finite") == [(1, 0), (1, 1), (1, 2)]
    assert {place for seen in places.values() for place in seen} == {None}


@pytest.mark.long
def test_the_watch_ends_a_process_that_stands_still_and_no_other(tmp_path):
    def work(move: bool) -> int:
        watch = StallWatch(1, 1, Status(tmp_path, epochs=1, patience=0))
        watch.start()
        for step in range(12):
            watch.place = (1, step if move else 0)
            time.sleep(0.25)
        return 0

    assert in_a_child(lambda: work(move=True)) == 0
    assert in_a_child(lambda: work(move=False)) == 1
    assert read_json(tmp_path / "status.json")["reason"] == "rank 1 stalls in epoch 1 step 1, for 1 s now"


def test_a_run_is_not_resumed_on_another_number_of_processes(tmp_path, monkeypatch, capsys):
    run = stopped(monkeypatch, SCRIPT, tmp_path, 3, signal.SIGTERM)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"world_size": 1', '"world_size": 2'))
    assert exit_code(SCRIPT, ["--resume", str(run)]) == 2
    assert "processes: recorded 2, now 1" in capsys.readouterr().err
