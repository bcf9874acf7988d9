"""How a script ends: the exit code, one clear message, and what status.json says of it."""

import argparse
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

import train_stage1
from utils.metrics.verdict import Verdict
from utils.run import script
from utils.run.errors import CommandError, DataError, NonFiniteError
from utils.run.folder import read_json
from utils.run.log import format_duration, start_log
from utils.run.script import run_script
from utils.run.status import Status
from utils.training.interrupt import expected_time, quicker


def ending(action, **options) -> int:
    """The exit code with which run_script leaves when main does `action`."""

    def main(args):
        return action() if callable(action) else action

    try:
        run_script(main, argparse.Namespace(**options))
    except SystemExit as left:
        return left.code
    return 0


def fail(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code"),
    [(CommandError("no such flag"), 2), (DataError("a bad file"), 3), (NonFiniteError("a NaN"), 4),
     (KeyboardInterrupt(), 130), (SystemExit(143), 143)],
)  # fmt: skip
def test_every_end_has_its_code(error, code, capsys):
    assert ending(fail(error)) == code
    said = capsys.readouterr().err
    assert said == (f"error: {error}\n" if code < 5 else "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no file system that is always full")
def test_output_that_nobody_can_store_does_not_change_the_code():
    program = "import argparse; from utils.run.script import run_script; run_script({}, argparse.Namespace())"
    for main, code in (("lambda args: print(1)", 0), ("lambda args: print(1) or exit(143)", 143)):
        with open("/dev/full", "w") as full:
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
            command = [sys.executable, "-c", program.format(main)]
            ended = subprocess.run(command, stdout=full, env=environment)
        assert ended.returncode == code


def test_an_error_of_another_rank_says_so(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert ending(fail(DataError("a bad file"))) == 3
    assert capsys.readouterr().err == "error (rank 1): a bad file\n"


@pytest.mark.parametrize(
    ("ends", "code"), [("pass", 0), ("sys.exit(143)", 143), ("raise DataError('bad')", 3)]
)
def test_one_of_several_ranks_leaves_before_python_ends(ends, code):
    """torch's threads may not outlive Python: an object that aborts when Python frees it stands for them."""
    program = f"""
import argparse, atexit, os, sys
from utils.run.errors import DataError
from utils.run.script import run_script
class Thread:
    __del__ = lambda self: os.abort()
thread = Thread()
def main(args):
    atexit.register(print, "tidied up")
    {ends}
run_script(main, argparse.Namespace())
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=os.environ | {"WORLD_SIZE": "2"}, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (code, "tidied up\n")


def test_ctrl_c_ends_a_script_at_once_until_its_main_begins(monkeypatch):
    """While PyTorch is imported there is nothing to save and nothing to say."""
    monkeypatch.setattr("sys.argv", ["train_stage1.py"])
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        args = train_stage1.parse_args()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert ending(lambda: signal.raise_signal(signal.SIGINT), **vars(args)) == 130
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_file_of_somebody_else_is_one_clear_error(capsys):
    assert ending(fail(PermissionError(13, "Permission denied", "/data/ages.csv"))) == 2
    assert capsys.readouterr().err.startswith("error: /data/ages.csv: Permission denied\n")
    with pytest.raises(PermissionError):  # of no file, it is ours
        ending(fail(PermissionError("not permitted")))


def test_debug_shows_the_traceback_and_the_unforeseen_keeps_it():
    with pytest.raises(DataError):
        ending(fail(DataError("a bad file")), debug=True)
    with pytest.raises(ZeroDivisionError):
        ending(lambda: 1 // 0)


def test_a_signal_outside_of_training_leaves_with_its_code(tmp_path):
    start_log(None)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGXCPU):
        Status(tmp_path, epochs=3, patience=0)
        assert ending(lambda number=number: signal.raise_signal(number)) == 128 + number
        assert read_json(tmp_path / "status.json")["reason"] == f"stopped by {number.name}"
        (tmp_path / "status.json").unlink()
    assert ending(lambda: signal.raise_signal(signal.SIGUSR1)) == 0


class Loud:
    """Raises what a signal's handler raises where Python only prints it, as it does around a fork."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_python_would_swallow_comes_again(number):
    def build():
        Loud(number)
        time.sleep(1)

    assert ending(build) == 128 + number


def test_what_python_swallows_of_others_is_still_printed(capsys):
    class Broken:
        def __del__(self):
            raise SystemExit("no signal")

    assert ending(Broken) == 0
    assert "SystemExit: no signal" in capsys.readouterr().err


def test_max_hours_count_from_the_start_of_the_process_and_end_it_wherever_it_is(tmp_path, monkeypatch):
    start_log(None)
    monkeypatch.setattr(script, "STARTED", time.monotonic() - 7199.9)
    for hours, code, reason in (2.1, 0, None), (2.0, 143, "--max_hours is over"):
        (tmp_path / "status.json").unlink(missing_ok=True)
        Status(tmp_path, epochs=3, patience=0)
        assert ending(partial(time.sleep, 0.5), max_hours=hours) == code
        assert read_json(tmp_path / "status.json")["reason"] == reason


@pytest.mark.parametrize(
    ("learned", "required", "code"), [(True, True, 0), (False, True, 5), (False, False, 0)]
)
def test_require_learning(learned, required, code):
    verdict = Verdict("LEARNED" if learned else "NOT JUDGED", "AUROC against chance")
    assert ending(lambda: verdict, require_learning=required) == code


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_out_of_memory_names_a_smaller_batch(error, capsys):
    assert ending(fail(error), batch_size=32) == 1
    assert "--batch_size 16" in capsys.readouterr().err


def test_status_says_how_a_run_ended(tmp_path):
    start_log(None)
    for action, state in (fail(DataError("bad\nfile")), "failed"), (fail(KeyboardInterrupt()), "interrupted"):
        (tmp_path / "status.json").unlink(missing_ok=True)
        Status(tmp_path, epochs=3, patience=0)
        ending(action)
        assert read_json(tmp_path / "status.json")["state"] == state
    assert read_json(tmp_path / "status.json")["reason"] == "stopped by Ctrl-C"


def test_a_dry_run_whose_reader_has_left_ends_quietly(monkeypatch):
    """| head: all that is wanted has been read."""

    def closed(*texts, **options):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    monkeypatch.setattr(os, "dup2", lambda *files: None)
    assert ending(lambda: None, dry_run=True) == 0


def test_a_dry_run_says_what_it_has_shown(capsys):
    assert ending(lambda: None, dry_run=True) == 0
    assert capsys.readouterr().out == "dry run: everything a full run needs works; its files are removed\n"


def test_a_dry_run_is_two_steps_and_writes_all_that_a_run_writes():
    args = train_stage1.parse_args(["--dry_run", "--epochs", "50"])
    assert (args.epochs, args.max_batches, args.save_interval, args.plot_interval) == (1, 2, 1, 1)


@pytest.mark.parametrize("trial", ["--dry_run", "--check_data"])
def test_a_trial_does_not_go_on_with_a_run(trial, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_stage1.parse_args([trial, "--resume", str(tmp_path)])
    assert "--dry_run and --check_data are for new runs only" in capsys.readouterr().err


def test_durations_are_said_in_the_unit_people_use():
    said = [format_duration(seconds) for seconds in (50, 720, 3.4 * 3600, 2.1 * 86400)]
    assert said == ["50 s", "12 min", "3.4 h", "2.1 days"]


def test_the_expected_time_counts_all_steps_and_a_tenth_for_the_evaluation():
    assert (
        expected_time(0.9, 24, 30) == "expected time: 12 min for 30 epochs of 24 steps, 0.9 s each"
    )  # 713 s


def test_hours_on_a_cpu_come_with_a_quick_command_unless_a_recipe_was_typed():
    cpu, hint = torch.device("cpu"), "python train_mae.py --epochs 24"
    assert hint in quicker(["./train_mae.py", "--image_dir", "x"], 9e5, cpu)
    assert quicker(["./train_mae.py", "--model", "resnet50"], 9e5, cpu) == ""
    assert (
        quicker(["./train_mae.py"], 60, cpu) == quicker(["./train_mae.py"], 9e5, torch.device("cuda")) == ""
    )
    assert quicker(["train_stage1.py"], 9e5, cpu) == quicker(["-c"], 9e5, cpu) == ""
