"""Processes that fail or are stopped: loader workers, and the ranks of torchrun jobs."""

import argparse
import gc
import json
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
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import _utils

import train_stage1
from datasets.jrdb.dataset import JRDBPairDataset
from datasets.jrdb.labels import LABEL_FOLDER
from tests.faults.children import in_a_child, on_ranks
from tests.faults.stopped_runs import (
    EACH,
    SCRIPTS,
    argv,
    copied_data,
    environment,
    exit_code,
    only_run,
    resume,
    signal_at,
    stopped,
    train,
    whole_run,
)
from tests.folders import new_folder
from tests.tiny_runs import assert_same_run, furthest_weight, history
from utils.run import status
from utils.run.errors import CommandError, DataError
from utils.run.folder import REPO_ROOT, read_json, write_json
from utils.run.script import end_status
from utils.run.status import Status
from utils.training import distributed
from utils.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.training.config import check_resumed
from utils.training.interrupt import Interrupt, end_when_stalled
from utils.training.invariants import Invariants

SCRIPT = "train_stage1"
STEPS = 49  # of an epoch of the tiny world with a global batch of 16


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
def test_two_ranks_that_lose_their_terminal_save_the_step(tmp_path):
    """torchrun hands SIGHUP on to its ranks, also under nohup. Here one of them gets it first."""

    flags = flags_of_two(tmp_path)

    def lose_terminal() -> int:
        if os.environ["RANK"] == "1":
            plant_later(lambda: os.kill(os.getpid(), signal.SIGHUP), STEPS + 9, 0)
        return exit_code(SCRIPT, flags)

    assert on_ranks(2, lose_terminal) == [128 + signal.SIGHUP] * 2
    run = only_run(tmp_path)
    state = load_checkpoint(run / "last.pth")
    assert 0 < state["step"] < read_json(run / "status.json")["steps"]
    assert on_ranks(2, lambda: exit_code(SCRIPT, ["--resume", str(run)])) == [0, 0]
    assert_same_run(run_on_two(tmp_path / "whole"), run)


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
    watched, places = [], {"check_finite": [], "evaluate": [], "save_epoch": [], "report": []}
    made = Interrupt.__init__

    def make(self, *values):
        made(self, *values)
        watched.append(self)

    monkeypatch.setattr(Interrupt, "__init__", make)
    for name, seen in places.items():
        place = Checkpoint if name == "save_epoch" else train_stage1
        original = getattr(place, name)

        def noted(*values, original=original, seen=seen, **options):
            seen.append(watched[0].place)
            return original(*values, **options)

        monkeypatch.setattr(place, name, noted)
    train(SCRIPT, tmp_path, "--epochs", 1, "--max_batches", 3)
    assert places.pop("check_finite") == [(1, 0), (1, 1), (1, 2)]
    assert {place for seen in places.values() for place in seen} == {None}


@pytest.mark.long
def test_the_watch_ends_a_process_that_stands_still_and_no_other(tmp_path):
    def work(move: bool) -> int:
        status = Status(tmp_path, epochs=1, patience=0)
        status.write(state="training")
        trained = SimpleNamespace(place=None, status=status, processes=SimpleNamespace(rank=1))
        threading.Thread(target=end_when_stalled, args=(trained, 1), daemon=True).start()
        for step in range(12):
            trained.place = (1, step if move else 0)
            time.sleep(0.25)
        return 0

    assert in_a_child(lambda: work(move=True)) == 0
    assert in_a_child(lambda: work(move=False)) == 1
    assert read_json(tmp_path / "status.json")["reason"] == "rank 1 stalls in epoch 1 step 1, for 1 s now"


def recorded_on(run: Path, processes: int, batch: int) -> None:
    config = read_json(run / "config.json")
    config["args"]["batch_size"] = batch
    write_json(run / "config.json", config | {"world_size": processes})


def test_a_run_goes_on_with_the_same_global_batch_on_another_number_of_processes(tmp_path, monkeypatch):
    """Recorded as one of 4 processes: their sums of the begun epoch are joined."""
    run = stopped(monkeypatch, SCRIPT, tmp_path, STEPS + 9, signal.SIGTERM)
    recorded_on(run, 4, 4)
    state = load_checkpoint(run / "last.pth")
    state["totals"] = torch.cat([state["totals"] / 4] * 4)
    save_checkpoint(run / "last.pth", state)
    resume(SCRIPT, run)
    assert furthest_weight(whole_run(SCRIPT), run) == 0
    losses = [[row["train_loss"] for row in history(folder)] for folder in (whole_run(SCRIPT), run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    warnings = read_json(run / "status.json")["warnings"]
    assert any("1 process(es) with 16 samples a step each, 4 with 4 before" in text for text in warnings)


def test_a_global_batch_that_can_not_be_shared_is_refused(tmp_path):
    recorded = {"args": {"batch_size": 9}, "world_size": 1, "dataset": {"fingerprint": "f"}}
    recorded |= {"training": {}, "optimizations": {}, "num_threads": 1, "device": "cpu"}
    write_json(tmp_path / "config.json", recorded)
    write_json(tmp_path / "split.json", {})
    args, two = argparse.Namespace(resume=str(tmp_path)), distributed.Processes(0, 2, torch.device("cpu"))
    with pytest.raises(CommandError, match=r"9 samples a step \(9 on 1\) cannot be split by 2"):
        check_resumed(SimpleNamespace(args=args, processes=two), recorded["dataset"], {})


@pytest.mark.long
def test_one_process_goes_on_with_a_run_of_two_and_two_with_one(tmp_path):
    """Without dropout, and this model has no BatchNorm."""
    whole = train(SCRIPT, new_folder("whole_without_dropout"), "--dropout", 0)

    flags = [*flags_of_two(tmp_path), "--dropout", "0"]

    def train_and_stop() -> int:
        plant_later(partial(os.kill, os.getpid(), signal.SIGTERM), STEPS + 9, 0)
        return exit_code(SCRIPT, flags)

    assert on_ranks(2, train_and_stop) == [143, 143]
    run = only_run(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, (5, signal.SIGTERM))
        with pytest.raises(SystemExit):
            resume(SCRIPT, run)
    assert load_checkpoint(run / "last.pth")["totals"].shape == (1, 3)
    assert on_ranks(2, lambda: exit_code(SCRIPT, ["--resume", str(run)])) == [0, 0]
    assert furthest_weight(whole, run) < 1e-6


@pytest.mark.long
@pytest.mark.parametrize("what", ["data", "split", "flag"])
def test_ranks_that_differ_end_at_once_with_a_table(what, tmp_path):
    """As two nodes of which one has a stale copy of the data, or another command."""
    root, given = copied_data(SCRIPT, tmp_path / "stale")
    path = next((root / LABEL_FOLDER).iterdir()) if what == "data" else root / "split.json"
    content = json.loads(path.read_text())
    if what == "data":
        next(iter(content["labels"].values()))[0]["box"][3] += 1
    else:
        content["val"][0], content["test"][0] = content["test"][0], content["val"][0]
    path.write_text(json.dumps(content))
    differs = given if what != "flag" else ["--weight_decay", "1e-3"]
    flags, said = flags_of_two(tmp_path / "runs"), tmp_path / "said"

    def train_rank() -> int:
        rank = os.environ["RANK"]
        sys.stderr = open(said.with_name(f"said{rank}"), "w", buffering=1)  # noqa: SIM115
        return exit_code(SCRIPT, [*flags, *(differs if rank == "1" else [])])

    assert on_ranks(2, train_rank) == [2, 2]
    for rank in "01":
        lines = said.with_name(f"said{rank}").read_text().splitlines()
        assert lines[0].endswith("the ranks differ and would not train one model:")
        assert lines[1].split() == ["--weight_decay" if what == "flag" else what]
        assert [line.split("  ")[0] for line in lines[2:]] == ["rank 0", "rank 1"]


def test_srun_without_torchrun_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert exit_code(SCRIPT, argv(SCRIPT, tmp_path, "--epochs", 1, "--max_batches", 1)) == 0
    assert "srun torchrun" in read_json(only_run(tmp_path) / "status.json")["warnings"][0]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("script", EACH)
def test_what_evaluate_keeps_holds_no_files_open(script, tmp_path, monkeypatch):
    """Each tensor that a worker of a loader made is an open file until it is gone."""
    monkeypatch.setattr(SCRIPTS[script], "EVALUATION_BATCH", 1)
    gather, broadcast, begun, seen = distributed.gather_rows, distributed.broadcast_buffers, [], []

    def begin(model):
        gc.collect()
        begun.append(open_files())
        broadcast(model)

    def end(batches):
        gc.collect()
        seen.append((len(batches), open_files() - begun[-1]))
        return gather(batches)

    monkeypatch.setattr(distributed, "broadcast_buffers", begin)
    monkeypatch.setattr(distributed, "gather_rows", end)
    train(script, tmp_path, "--epochs", 1, "--num_workers", 2)
    print(f"{script}: (batches, more open files) {seen}")
    assert max(batches for batches, _ in seen) > 8
    assert max(more for _, more in seen) <= 16


def test_what_the_learning_check_keeps_of_batches_holds_no_files_open(tmp_path, monkeypatch):
    """A copy of the indices: those of a worker's batch are an open file."""
    look, shared = Invariants.look, []

    def looked(self, epoch, step, batch):
        look(self, epoch, step, batch)
        shared.append(np.shares_memory(self.orders[1][-1], batch["indices"].numpy()))

    monkeypatch.setattr(Invariants, "look", looked)
    train("train_mae", tmp_path, "--epochs", 1, "--max_batches", 3)
    assert shared == [False] * 3
