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
from children import in_a_child
from stopped_runs import argv, assert_same_run, environment, exit_code, only_run, resume, stopped, whole_run

from datasets.pair_dataset import JRDBPairDataset
from utils import distributed
from utils.checkpoint import load_checkpoint
from utils.errors import DataError
from utils.interrupt import Interrupt
from utils.run import REPO_ROOT

SCRIPT = "train_stage1"
STEPS = 24  # of an epoch of the tiny world with a global batch of 16


class Job:
    """A finished process: its code, its output, the seconds from its fault to its end, and those of its
    processes that are left after ten more seconds."""

    def __init__(self, folder: Path, fault: str, flags: list[str], ranks: int = 0):
        mark, fault_time = uuid.uuid4().hex, folder / f"fault_{uuid.uuid4().hex}"
        launch = [sys.executable]
        if ranks:
            launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
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


LONG = pytest.mark.faults


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


def test_a_killed_loader_worker_ends_the_run_with_a_message(tmp_path):
    assert in_a_session(tmp_path, kill_a_worker, 3, 0.0, "--num_workers", "2") == 1
    assert "DataLoader worker" in (tmp_path / "error").read_text()


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


@pytest.mark.faults
def test_a_loader_worker_that_hangs_is_an_error(tmp_path, monkeypatch):
    break_reading(monkeypatch, lambda: time.sleep(600))
    monkeypatch.setattr(distributed, "WORKER_TIMEOUT", 2)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="timed out after 2 seconds"):
        exit_code(SCRIPT, argv(SCRIPT, tmp_path, "--num_workers", "2"))
    assert time.monotonic() - began < 100


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    """The uninterrupted run on two processes; the same global batch as on one."""
    folder = tmp_path_factory.mktemp("two")
    job = Job(folder, "none:0:0", flags_of_two(folder), ranks=2)
    assert (job.code, job.left) == (0, [])
    return only_run(folder)


def flags_of_two(folder: Path) -> list[str]:
    return argv(SCRIPT, folder, "--batch_size", "8")


def resume_on_two(run: Path, folder: Path) -> None:
    job = Job(folder, "none:0:0", ["--resume", str(run)], ranks=2)
    assert (job.code, job.left) == (0, [])


@pytest.mark.faults
def test_sigterm_to_torchrun_stops_both_ranks_at_one_step(on_two, tmp_path):
    job = Job(tmp_path, f"term_launcher:0:{STEPS + 9}", flags_of_two(tmp_path), ranks=2)
    assert (job.code, job.left) == (1, [])  # torchrun's own code; its ranks left with 143
    assert job.seconds < 30
    run = only_run(tmp_path)
    state = load_checkpoint(run / "last.pth")
    assert state["epoch"] == 1
    assert state["totals"].shape == (2, 3)
    assert state["totals"][:, -1].tolist() == [8 * state["step"]] * 2  # both ranks had done as many samples
    resume_on_two(run, tmp_path)
    assert_same_run(on_two, run)


@pytest.mark.faults
def test_a_killed_rank_ends_the_job_and_leaves_the_epoch_before(tmp_path):
    job = Job(tmp_path, f"kill:1:{STEPS + 9}", flags_of_two(tmp_path), ranks=2)
    assert (job.code, job.left) == (1, [])
    assert job.seconds < 30
    assert "Signal 9 (SIGKILL)" in job.err
    assert load_checkpoint(only_run(tmp_path) / "last.pth")["epoch"] == 1


@pytest.mark.faults
def test_a_rank_that_raises_ends_the_job_with_its_traceback(tmp_path):
    job = Job(tmp_path, "raise:1:9", flags_of_two(tmp_path), ranks=2)
    assert (job.code, job.left) == (1, [])
    assert job.seconds < 30
    assert "ValueError: a planted fault" in job.err
    assert "Root Cause" in job.err


def test_a_run_is_not_resumed_on_another_number_of_processes(tmp_path, monkeypatch, capsys):
    run = stopped(monkeypatch, SCRIPT, tmp_path, 3, signal.SIGTERM)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"world_size": 1', '"world_size": 2'))
    assert exit_code(SCRIPT, ["--resume", str(run)]) == 2
    assert "processes: recorded 2, now 1" in capsys.readouterr().err
