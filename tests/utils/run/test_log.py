"""What stdout shows: progress without a terminal, and lines beside a bar."""

import errno
import io
import sys

import tqdm

from utils.run import log


def test_redirected_work_says_every_few_seconds_how_far_it_is(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    log.start_log(None)
    assert list(log.progress(list("abcdefgh"), "frames")) == list("abcdefgh")
    log.stop_log()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["frames: 2 of 8", "frames: 5 of 8"]


def test_an_epoch_is_one_line_that_says_whether_it_is_the_best():
    row = {"epoch": 2, "lr": 1e-3, "train_loss": 0.30391, "seconds": 1.62, "samples_per_second": 811.7}
    line = "epoch 002/050 train_loss 0.3039 lr 0.001 1.6 s 812 samples/s"
    assert log.epoch_line(row, 50, ["train_loss"], best=False) == line
    assert log.epoch_line(row, 50, ["train_loss"], best=True) == f"{line} best"


def test_text_for_a_full_disk_is_a_warning(monkeypatch, capsys):
    def full(*texts, file=None, **options):
        if file is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write(*texts)

    monkeypatch.setattr("builtins.print", full)
    log.show("a table")
    assert capsys.readouterr().err == "warning: stdout cannot be written: No space left on device"


def test_what_fails_again_and_again_is_said_once_per_run(capsys):
    for _ in range(2):
        log.start_log(None)
        for _ in range(3):
            log.run_goes_on("training_curves.png", "no fonts")
        log.stop_log()
    said = "warning: training_curves.png failed, the run goes on: no fonts"
    assert capsys.readouterr().out.splitlines() == [said, said]


def test_a_line_does_not_end_behind_a_bar_of_the_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    log.start_log(None)
    with tqdm.tqdm(total=3, desc="batches", file=terminal, mininterval=0) as bar:
        bar.update()
        log.LOG.info("a line")
    log.stop_log()
    (line,) = [line for line in terminal.getvalue().split("\n") if "a line" in line]
    assert line.split("\r")[-1] == "a line"
